//! Servers are killed under load and come back: nothing acknowledged is lost, nothing is doubled, the clients go on.

use anyhow::Result;
use freehold_tests::workload::Workload;

use crate::exclusive::progress;
use crate::given::{ASK_AGAIN, Given, SITE};

/// Each client has a record of its own.
const RECORDS: u64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn the_only_server_is_killed_again_and_again_under_load() -> Result<()> {
    let given = Given::one_site().await?;
    let one = given.process("one").await?;
    let two = given.process("two").await?;
    let workload = Workload::start_asking_again(&given.client, SITE, 16, RECORDS as usize, ASK_AGAIN);
    for _ in 0..3 {
        progress(&workload, 200).await?;
        given.site().server().kill().await?;
        given.site().server().restart().await?;
    }
    progress(&workload, 200).await?;
    given.wait_shared().await?;
    let sent = workload.finish(&given.client, SITE).await?;
    given.wait_same(&[&one, &two], RECORDS).await?;
    println!("{sent} commands over three kills of the server");
    given.log().await?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_of_a_cluster_is_killed_in_turn_under_load() -> Result<()> {
    let given = Given::one_cluster().await?;
    let one = given.process("one").await?;
    let two = given.process("two").await?;
    let workload = Workload::start_asking_again(&given.client, SITE, 16, RECORDS as usize, ASK_AGAIN);
    for server in given.site().servers() {
        progress(&workload, 100).await?;
        server.kill().await?;
        progress(&workload, 100).await?;
        server.restart().await?;
        given.site().wait_complete().await?;
    }
    progress(&workload, 100).await?;
    let sent = workload.finish(&given.client, SITE).await?;
    given.wait_same(&[&one, &two], RECORDS).await?;
    println!("{sent} commands over a kill of each server");
    given.log().await?.check()
}
