//! A command log that is full: requests are refused as `busy`, nothing of theirs is kept, nothing that was accepted is lost, and
//! the service takes requests again when decided commands have left the log.

use std::time::Duration;

use anyhow::{Result, ensure};
use freehold_sandbox::{Sandbox, wait_until};
use serde_json::json;

use crate::place::Place;

const LOG_BYTES: i64 = 65_536;
const PATIENCE: Duration = Duration::from_secs(30);

/// More than the log holds.
const BURST: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_command_log_is_busy_loses_nothing_and_goes_on() -> Result<()> {
    let place = Place::start_with(Sandbox::builder(), |config| {
        config.max_command_log_bytes = LOG_BYTES;
        config.audit_window_ms = 1_000;
    })
    .await?;
    let ballast = "x".repeat(4_000);
    let create = |id: String| {
        let body = json!({ "id": id, "record": { "ballast": ballast } }).to_string();
        let place = &place;
        async move { anyhow::Ok((id, place.ask("thing.create", body).await?)) }
    };
    let (mut applied, mut refused) = (0, 0);
    for round in 0..2 {
        // All at once: the log is full long before it may let go of what is decided.
        let burst = (0..BURST).map(|number| create(format!("ewr-{round}-{number}")));
        for (id, answer) in futures::future::try_join_all(burst).await? {
            let read = place.ask("thing.get", json!({ "id": id }).to_string()).await?;
            if answer.code().is_none() {
                ensure!(answer.accepted()?["version"] == 1 && read.accepted()?["version"] == 1, "{id}");
                applied += 1;
            } else {
                ensure!(answer.refused("busy", 429)?.contains("nothing was kept"), "{answer:?}");
                read.refused("not_found", 404)?;
                refused += 1;
            }
        }
        let space = || async {
            let asked = create(format!("ewr-space-{round}")).await;
            asked.is_ok_and(|(_, answer)| answer.code().is_none_or(|code| code == "rejected"))
        };
        wait_until("the log takes commands again", PATIENCE, space).await?;
    }
    println!("{applied} commands applied and {refused} refused through a log of {LOG_BYTES} bytes");
    ensure!(applied > 0 && refused > 0, "{applied} applied, {refused} refused");
    // What was refused can be sent again.
    let again = || async {
        let asked = create("ewr-again".to_owned()).await;
        asked.is_ok_and(|(_, answer)| answer.code().is_none())
    };
    wait_until("a refused command is taken", PATIENCE, again).await?;
    place.goes_on().await?;
    place.stop().await
}
