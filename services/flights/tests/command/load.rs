//! Loads that are cut short and started again.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::given::{Data, Service, report};

/// Rows of the file: more than a load gets through between its 250th flight and the signal.
const FLIGHTS: usize = 600;

/// A load sends each command under an id that the data gives it: whatever the end of the one before left undone is done once.
#[tokio::test]
async fn loads_that_are_interrupted_and_killed_end_without_a_difference() -> Result<()> {
    let data = Data::of_first(FLIGHTS)?;
    let service = Service::start().await?;

    // Few at a time, so that each load is somewhere in the middle when it is cut short.
    for (signal, place) in [(Signal::SIGINT, 50), (Signal::SIGKILL, 150), (Signal::SIGINT, 250)] {
        let mut child = service.load(&data.path(), &["--in-flight", "4"])?;
        service.wait_for_flight(place).await?;
        let pid = child.id().expect("it was not waited for");
        kill(Pid::from_raw(pid.try_into()?), signal)?;
        if signal == Signal::SIGINT {
            let (report, success) = report(child).await?;
            assert_eq!((report["verdict"].as_str(), success), (Some("stopped"), false), "{report:#}");
            assert!(report["load"]["flights"].as_u64() < Some(FLIGHTS as u64), "{report:#}");
        } else {
            child.wait().await?;
        }
    }

    let mut commands = Vec::new();
    for _ in 0..2 {
        let (report, success) = report(service.load(&data.path(), &[])?).await?;
        assert_eq!((report["verdict"].as_str(), success), (Some("verified"), true), "{report:#}");
        let verified = &report["verified"][0];
        assert_eq!((&verified["flights"], &verified["differences"]), (&json!(FLIGHTS), &json!(0)));
        // One version a command, however often it was sent.
        assert_eq!(verified["versions"], report["load"]["commands"]);
        commands.push(report["load"]["commands"].clone());
    }
    assert_eq!(commands[0], commands[1]);
    service.stop().await
}

#[tokio::test]
async fn a_site_without_a_url_is_named() -> Result<()> {
    let output = tokio::process::Command::new(crate::given::FLIGHTS)
        .args(["load", "--url", "lhr=nats://127.0.0.1:1"])
        .output()
        .await?;
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr)?.contains("flights of site ewr"));
    Ok(())
}
