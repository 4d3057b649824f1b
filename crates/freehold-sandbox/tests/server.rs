//! One nats-server: start, kill, restart, pause, and what it says when it cannot start.

mod support;

use std::time::Duration;

use anyhow::Result;
use freehold_sandbox::{JetStreamOptions, Process, ProcessOptions, Server, ServerError, ServerOptions, wait_until};
use support::{binary, create_stream, jetstream, publish, stored};
use tempfile::TempDir;

fn options(directory: &TempDir) -> ServerOptions {
    let mut options = ServerOptions::new("ewr", directory.path().join("ewr"));
    options.jetstream = Some(JetStreamOptions::in_domain("ewr"));
    options
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_port_and_its_data() -> Result<()> {
    let directory = TempDir::new()?;
    let server = Server::start(&binary().await?, options(&directory)).await?;
    let url = server.url();
    let context = jetstream(&url).await?;
    create_stream(&context, "KEPT", "kept.>", 1).await?;
    for _ in 0..10 {
        publish(&context, "kept.a").await?;
    }

    for round in 1..=3 {
        server.kill().await?;
        assert!(!server.is_running());
        server.restart().await?;
        assert_eq!(server.url(), url);
        let context = jetstream(&url).await?;
        assert_eq!(stored(&context, "KEPT").await?, 10, "after kill {round}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_dropped_leaves_its_data_to_the_next_one() -> Result<()> {
    let directory = TempDir::new()?;
    let binary = binary().await?;
    let server = Server::start(&binary, options(&directory)).await?;
    let context = jetstream(&server.url()).await?;
    create_stream(&context, "KEPT", "kept.>", 1).await?;
    publish(&context, "kept.a").await?;
    drop(server);

    let server = Server::start(&binary, options(&directory)).await?;
    assert_eq!(stored(&jetstream(&server.url()).await?, "KEPT").await?, 1);
    server.stop().await?;
    assert!(server.process().exit_status().is_some_and(|status| status.success()), "an orderly stop");
    Ok(())
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_is_resumed() -> Result<()> {
    let directory = TempDir::new()?;
    let server = Server::start(&binary().await?, options(&directory)).await?;
    let context = jetstream(&server.url()).await?;
    create_stream(&context, "KEPT", "kept.>", 1).await?;

    server.pause().await?;
    assert!(server.is_running());
    assert!(!server.is_healthy().await);
    let unanswered = tokio::time::timeout(Duration::from_millis(200), publish(&context, "kept.a")).await;
    assert!(unanswered.is_err());

    server.resume()?;
    publish(&context, "kept.b").await?;
    assert_eq!(stored(&context, "KEPT").await?, 2, "the first publish was waiting at the server");
    Ok(())
}

#[tokio::test]
async fn a_server_that_dies_at_its_start_shows_its_log() -> Result<()> {
    let directory = TempDir::new()?;
    let mut options = options(&directory);
    options.extra_config = "no_such_option: {".to_owned();
    let error = Server::start(&binary().await?, options).await.unwrap_err();
    let ServerError::ExitedEarly(exited) = &error else { panic!("{error}") };
    assert!(exited.log_tail.contains("Parse error"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_directory_belongs_to_one_server() -> Result<()> {
    let directory = TempDir::new()?;
    let binary = binary().await?;
    let server = Server::start(&binary, options(&directory)).await?;
    let error = Server::start(&binary, options(&directory)).await.unwrap_err();
    let ServerError::DirectoryInUse(in_use) = &error else { panic!("{error}") };
    assert_eq!(in_use.pid, server.pid().to_string());
    Ok(())
}

#[tokio::test]
async fn a_named_port_is_used_and_a_taken_one_is_refused() -> Result<()> {
    let directory = TempDir::new()?;
    let binary = binary().await?;
    let first = Server::start(&binary, options(&directory)).await?;

    let mut second = ServerOptions::new("jfk", directory.path().join("jfk"));
    second.port = Some(first.port());
    let error = Server::start(&binary, second.clone()).await.unwrap_err();
    assert!(matches!(&error, ServerError::PortTaken(taken) if taken.port == first.port()), "{error}");

    first.stop().await?;
    let server = Server::start(&binary, second).await?;
    assert_eq!(server.url(), first.url());
    Ok(())
}

/// A ports file that a killed server left behind names ports which nobody listens on any more, and process ids come
/// round again: it must not be taken for the new server's.
#[tokio::test]
async fn stale_ports_files_are_removed() -> Result<()> {
    let directory = TempDir::new()?;
    let ports = directory.path().join("ewr/ports");
    std::fs::create_dir_all(&ports)?;
    let stale = ports.join("nats-server_1.ports");
    std::fs::write(&stale, r#"{"nats":["nats://127.0.0.1:1"],"monitoring":["http://127.0.0.1:1"]}"#)?;
    let server = Server::start(&binary().await?, options(&directory)).await?;
    assert!(!stale.exists());
    server.kill().await?;
    server.restart().await?;
    assert_eq!(std::fs::read_dir(&ports)?.count(), 1);
    Ok(())
}

/// Freehold's own services are started the same way: a program that is waited for by a line of its log.
#[tokio::test]
async fn a_server_is_a_process_like_any_other() -> Result<()> {
    let directory = TempDir::new()?;
    let options = ProcessOptions::new("plain", binary().await?.path(), directory.path().join("plain.log")).args([
        "--addr",
        "127.0.0.1",
        "--port",
        "-1",
    ]);
    let process = Process::start(options)?;
    process.wait_for_line("Server is ready", Duration::from_secs(10)).await?;
    process.stop().await?;
    Ok(())
}

/// A parent that is killed cannot stop its servers. One that is left over must not meet a second one on the same store:
/// it still has the directory's lock, because the lock file is its stdin.
#[tokio::test]
async fn a_server_that_outlived_its_parent_still_has_its_directory() -> Result<()> {
    /// Tells this test that it is the parent to be killed.
    const ROLE: &str = "FREEHOLD_TEST_PARENT_DIRECTORY";
    if let Some(path) = std::env::var_os(ROLE) {
        let _server = Server::start(&binary().await?, ServerOptions::new("ewr", path)).await?;
        eprintln!("the server is up");
        std::future::pending::<()>().await;
    }

    let directory = TempDir::new()?;
    let path = directory.path().join("ewr");
    let this_test = ProcessOptions::new("parent", std::env::current_exe()?, directory.path().join("parent.log"))
        .args(["--exact", "a_server_that_outlived_its_parent_still_has_its_directory", "--nocapture"])
        .env(ROLE, &path);
    let parent = Process::start(this_test)?;
    parent.wait_for_line("the server is up", Duration::from_secs(10)).await?;
    parent.kill().await?;

    let binary = binary().await?;
    let error = Server::start(&binary, ServerOptions::new("ewr", &path)).await.unwrap_err();
    let ServerError::DirectoryInUse(in_use) = &error else { panic!("{error}") };
    let left_over = nix::unistd::Pid::from_raw(in_use.pid.parse()?);
    nix::sys::signal::kill(left_over, nix::sys::signal::Signal::SIGKILL)?;

    wait_until("the lock to be free", Duration::from_secs(5), || async {
        Server::start(&binary, ServerOptions::new("ewr", &path)).await.is_ok()
    })
    .await?;
    Ok(())
}
