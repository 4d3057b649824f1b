//! An instance of the counters service for the tests, in a process that can be killed: `e2e-service <config.json>`.

use anyhow::Context as _;
use freehold::{Service, ServiceConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let file = std::env::args().nth(1).context("usage: e2e-service <config.json>")?;
    let config: ServiceConfig = serde_json::from_slice(&std::fs::read(file)?)?;
    Service::builder("counters", config).kind(freehold_tests::counter::definition()).run().await?;
    Ok(())
}
