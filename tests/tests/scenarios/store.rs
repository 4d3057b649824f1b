//! The store fails: 24. What the log has acknowledged is not lost with a commit that went wrong.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use freehold::Answer;
use freehold_core::ErrorCode;
use freehold_sandbox::Process;
use freehold_tests::place::InstanceProcess;
use freehold_tests::workload;
use serde_json::{Value, json};

use crate::given::{Given, SITE, SOON, with_id};

/// One record's share in making the copy grow.
const BALLAST_BYTES: usize = 300_000;
/// More than the copy has room for in its file.
const RECORDS: usize = 24;
/// How long one request may go without an answer.
const ASK_AGAIN: Duration = Duration::from_secs(6);
/// The pause before it is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// The file of the copy may not grow any more: the log has acknowledged updates that the store cannot commit.
#[tokio::test(flavor = "multi_thread")]
async fn s24_the_store_commit_fails_after_the_log_acks() -> Result<()> {
    let given = Given::one_site().await?;
    let mut one = given.process_with_file_limits("one").await?;
    let file = given.directory().join(format!("{SITE}-one.redb"));
    for number in 0..RECORDS {
        given.add_is_answered(&format!("{SITE}-{number}"), "before", 1).await?;
    }
    limit_files(one.process(), &std::fs::metadata(&file)?.len().to_string())?;
    for number in 0..RECORDS {
        given.append(&format!("{SITE}-{number}"), "inflate", "grow", &json!({ "bytes": BALLAST_BYTES })).await?;
    }
    one.process().wait_for_line("the copy cannot be written", SOON).await?;
    let log = given.log().await?;
    let ids: Vec<String> = (0..RECORDS).map(|number| format!("{SITE}-{number}")).collect();
    let logged = ids.iter().filter(|id| log.decisions(id, "grow").is_ok_and(|found| !found.is_empty())).count();
    ensure!(logged > 0, "the log has acknowledged nothing");
    // With room again the instance goes on by itself; where its own new start came before the room, a supervisor's comes
    // behind it.
    if one.process().is_running() {
        limit_files(one.process(), "unlimited")?;
    }
    let body = json!({ "bytes": BALLAST_BYTES });
    for id in &ids {
        let answer = tell_supervised(&given, &mut one, id, &body).await?;
        ensure!(answer.version.map(|version| version.0) == Some(2), "{id}: {answer:?}");
        given.add_is_answered(id, "before", 1).await?;
        let counter = workload::read(&given.client, id).await?;
        ensure!((counter.changes, counter.ballast.len()) == (2, BALLAST_BYTES), "{id}: {}", counter.changes);
    }
    println!("{logged} of {RECORDS} updates were in the log when the store failed");
    given.log().await?.check()
}

/// Sends a command until it is answered, and starts the instance again whenever it has ended.
async fn tell_supervised(given: &Given, one: &mut InstanceProcess, id: &str, body: &Value) -> Result<Answer> {
    let body = with_id(id, body);
    let deadline = Instant::now() + SOON;
    loop {
        if !one.process().is_running() {
            one.restart().await?;
        }
        match workload::send_once(&given.client, "inflate", &body, "grow", ASK_AGAIN).await {
            Ok(answer) if !answer.result.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::OutcomeUnknown) => {
                return Ok(answer);
            }
            other => ensure!(Instant::now() < deadline, "{id}: {other:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sets the soft limit of the size of files for a running process.
fn limit_files(process: &Process, bytes: &str) -> Result<()> {
    let pid = process.pid().to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status()?;
    ensure!(done.success(), "prlimit: {done}");
    Ok(())
}
