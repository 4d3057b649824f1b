//! A site with the real services: `records` in processes of its own, `flights` within the test.

use std::time::Duration;

use anyhow::{Context as _, Result};
use freehold::{RunningService, Service, ServiceConfig};
use freehold_sandbox::{Process, ProcessOptions, Sandbox};
use tempfile::TempDir;

const RECORDS: &str = env!("CARGO_BIN_EXE_e2e-records");
const READY: Duration = Duration::from_secs(30);

pub(crate) struct Services {
    pub(crate) sandbox: Sandbox,
    records: Vec<Process>,
    flights: RunningService,
    _data: TempDir,
}

impl Services {
    /// Starts them, `records` with so many instances.
    pub(crate) async fn start(instances: usize) -> Result<Self> {
        let sandbox = Sandbox::builder().site("ewr").start().await?;
        let data = tempfile::tempdir()?;
        let url = sandbox.site("ewr").url();
        let mut records = Vec::new();
        for number in 0..instances {
            let name = format!("records-{number}");
            let options = ProcessOptions::new(&name, RECORDS, data.path().join(format!("{name}.log")))
                .args(["--site", "ewr", "--kind", "customer", "--nats-url", &url, "--instance", &name, "--data-dir"])
                .arg(data.path().join(&name))
                .current_dir(data.path());
            let process = Process::start(options)?;
            process.wait_for_line("\"ready\"", READY).await.context("records did not start")?;
            records.push(process);
        }
        let config = ServiceConfig::new("ewr".parse()?, "flights".parse()?, &url, data.path().join("flights"));
        let flights = Service::builder("flights", config).kind(flights::kind_definition()).build()?.start().await?;
        Ok(Self { sandbox, records, flights, _data: data })
    }

    pub(crate) fn url(&self) -> String {
        self.sandbox.site("ewr").url()
    }

    pub(crate) async fn stop(self) -> Result<()> {
        for process in &self.records {
            process.stop().await?;
        }
        self.flights.stop().await;
        Ok(self.sandbox.stop().await?)
    }
}
