//! The demonstration, in small.

use std::process::Stdio;

use anyhow::Result;
use tokio::process::Command;

use crate::given::{Data, FLIGHTS, report};

#[tokio::test]
async fn every_promise_of_the_demonstration_holds() -> Result<()> {
    let data = Data::of_first(200)?;
    let mut command = Command::new(FLIGHTS);
    command.args(["demo", "--json", "--in-flight", "32", "--data"]).arg(data.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn()?;
    let (report, success) = report(child).await?;
    assert_eq!(report["breaches"], serde_json::json!([]), "{report:#}");
    assert_eq!((report["verdict"].as_str(), success), (Some("held"), true));
    assert_eq!(report["load"]["commands"], report["commands_in_the_data"]);
    assert_eq!(
        (report["kills"][0]["instance"].as_str(), report["kills"][0]["groups"].as_u64()),
        (Some("ewr-1"), Some(32))
    );
    assert_eq!(report["instances_compared"], 6);
    for site in 0..3 {
        assert_eq!(report["verified"][site]["flights"], 200);
        assert_eq!(report["verified"][site]["versions"], report["commands_in_the_data"]);
    }
    Ok(())
}
