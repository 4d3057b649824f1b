//! An instance of the counters service for the tests, in a process that can be killed: `e2e-service <config.json>`.
//! `E2E_RULES=strict` in its environment makes it a later release, with other rules.
//! `E2E_GROUPS` sets the group count of the kind.

use anyhow::Context as _;
use freehold::{Service, ServiceConfig};
use freehold_core::GroupCount;
use freehold_tests::counter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let file = std::env::args().nth(1).context("usage: e2e-service <config.json>")?;
    let config: ServiceConfig = serde_json::from_slice(&std::fs::read(file)?)?;
    let strict = std::env::var("E2E_RULES").is_ok_and(|rules| rules == "strict");
    let mut definition = if strict { counter::strict_definition() } else { counter::definition() };
    if let Ok(groups) = std::env::var("E2E_GROUPS") {
        definition.settings.groups = GroupCount::new(groups.parse().context("E2E_GROUPS")?)?;
    }
    Service::builder("counters", config).kind(definition).run().await?;
    Ok(())
}
