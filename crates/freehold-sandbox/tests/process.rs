//! Child processes: their logs, their signals, their end.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use freehold_sandbox::{Process, ProcessError, ProcessOptions, wait_until};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(5);

fn shell(directory: &TempDir, script: &str) -> Result<Process, ProcessError> {
    Process::start(ProcessOptions::new("child", "sh", directory.path().join("child.log")).args(["-c", script]))
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_line_of_the_log_is_waited_for() -> Result<()> {
    let directory = TempDir::new()?;
    let options = ProcessOptions::new("child", "sh", directory.path().join("deep/child.log"))
        .args(["-c", "echo starting; echo \"ready on $PORT\" >&2; pwd; exec sleep 60"])
        .env("PORT", "4222")
        .current_dir("/");
    let process = Process::start(options)?;

    assert_eq!(process.wait_for_line("ready", SOON).await?, "ready on 4222");
    assert_eq!(process.wait_for_line("/", SOON).await?, "/");
    assert!(process.is_running());
    Ok(())
}

#[tokio::test]
async fn a_line_that_does_not_come_is_an_error_with_the_log() -> Result<()> {
    let directory = TempDir::new()?;
    let process = shell(&directory, "echo working; exec sleep 60")?;
    process.wait_for_line("working", SOON).await?;
    let error = process.wait_for_line("ready", Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(&error, ProcessError::LineNotSeen(unseen) if unseen.log_tail == "working"), "{error}");

    let process = shell(&directory, "echo broken; exit 3")?;
    let error = process.wait_for_line("ready", SOON).await.unwrap_err();
    let ProcessError::ExitedEarly(exited) = &error else { panic!("{error}") };
    assert_eq!((exited.status.code(), exited.log_tail.as_str()), (Some(3), "broken"), "not the log of the run before");
    Ok(())
}

#[tokio::test]
async fn only_the_current_run_is_searched_after_a_restart() -> Result<()> {
    let directory = TempDir::new()?;
    let process = shell(&directory, "echo run $$; exec sleep 60")?;
    let first = process.wait_for_line("run", SOON).await?;
    process.restart().await?;
    let second = process.wait_for_line("run", SOON).await?;
    assert_ne!(first, second);
    assert_eq!(second, format!("run {}", process.pid()));
    assert_eq!(std::fs::read_to_string(process.log_path())?, format!("{first}\n{second}\n"), "both are kept");
    Ok(())
}

#[tokio::test]
async fn stop_is_gentle_first_and_then_kills() -> Result<()> {
    let directory = TempDir::new()?;
    let gentle = shell(&directory, "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done")?;
    gentle.wait_for_line("up", SOON).await?;
    gentle.stop().await?;
    assert_eq!(gentle.exit_status().and_then(|status| status.code()), Some(7));

    let stubborn = shell(&directory, "trap '' TERM; echo up; while :; do sleep 0.01; done")?;
    stubborn.wait_for_line("up", SOON).await?;
    stubborn.stop_within(Duration::from_millis(50)).await?;
    assert_eq!(stubborn.exit_status().and_then(|status| status.signal()), Some(9));
    stubborn.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_paused_child_does_nothing_and_can_be_stopped() -> Result<()> {
    let directory = TempDir::new()?;
    let process = shell(&directory, "trap 'exit 7' TERM; echo up; while :; do echo tick; sleep 0.01; done")?;
    process.wait_for_line("tick", SOON).await?;
    process.pause().await?;
    let length = || std::fs::metadata(process.log_path()).map(|file| file.len());
    let paused_at = length()?;
    let grows = wait_until("growth", Duration::from_millis(100), || async { length().unwrap() > paused_at }).await;
    assert!(grows.is_err());
    assert!(process.is_running());
    process.resume()?;
    wait_until("growth", SOON, || async { length().unwrap() > paused_at }).await?;

    process.pause().await?;
    process.stop().await?;
    assert_eq!(process.exit_status().and_then(|status| status.code()), Some(7));
    assert!(matches!(process.pause().await, Err(ProcessError::ExitedEarly(_))));
    Ok(())
}

#[tokio::test]
async fn a_dropped_process_is_gone_at_once_even_if_it_is_paused() -> Result<()> {
    let directory = TempDir::new()?;
    let process = shell(&directory, "exec sleep 60")?;
    process.pause().await?;
    let pid = process.pid();
    drop(process);
    assert!(!exists(pid));
    Ok(())
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() -> Result<()> {
    let directory = TempDir::new()?;
    let error = Process::start(ProcessOptions::new("child", "/nowhere/program", directory.path().join("log")));
    assert_eq!(error.unwrap_err().to_string(), "cannot start child (/nowhere/program)");
    Ok(())
}
