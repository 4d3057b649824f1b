//! More requests at a time than an instance takes: the rest are `busy` at once, and nothing of them is kept.

use anyhow::{Result, ensure};
use freehold_sandbox::Sandbox;
use futures::future::try_join_all;

use crate::place::Place;

const AT_A_TIME: usize = 4;
const REQUESTS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_an_instance_takes_are_busy_and_nothing_is_kept() -> Result<()> {
    let place = Place::start_with(Sandbox::builder(), |config| config.max_requests = AT_A_TIME).await?;
    let add = |_| place.ask("counter.add", r#"{"id":"ewr-1","amount":1,"slow_ms":5}"#);
    let (mut applied, mut refused) = (0, 0);
    for answer in try_join_all((0..REQUESTS).map(add)).await? {
        if answer.code().is_none() {
            applied += 1;
        } else {
            ensure!(answer.refused("busy", 429)?.contains("nothing was kept"), "{answer:?}");
            refused += 1;
        }
    }
    println!("{applied} of {REQUESTS} requests applied, {refused} refused");
    ensure!(applied >= AT_A_TIME && refused > 0, "{applied} applied, {refused} refused");
    let counter = place.told("counter.get", r#"{"id":"ewr-1"}"#).await?;
    ensure!(counter["record"]["total"] == applied && counter["version"] == applied, "{counter}");
    place.goes_on().await?;
    place.stop().await
}
