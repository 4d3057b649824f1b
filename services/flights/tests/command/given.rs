//! What the tests start from: a small file of flights, and one site with one instance of the service.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use flights::data::{FlightRows, SAMPLE};
use freehold::{Client, ConnectOptions, SendOptions};
use freehold_sandbox::{Process, ProcessOptions, Sandbox, wait_until};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The built command.
pub(crate) const FLIGHTS: &str = env!("CARGO_BIN_EXE_flights");
/// How long a debug build may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A file with the sample's first flights.
pub(crate) struct Data {
    directory: TempDir,
}

impl Data {
    pub(crate) fn of_first(rows: usize) -> Result<Self> {
        let directory = TempDir::new()?;
        let text: Vec<&str> = SAMPLE.lines().take(rows + 1).collect();
        std::fs::write(directory.path().join("flights.csv"), text.join("\n") + "\n")?;
        Ok(Self { directory })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("flights.csv")
    }
}

/// The services of all sites that the data has flights of.
pub(crate) struct Service {
    pub(crate) urls: Vec<String>,
    instances: Vec<Process>,
    sandbox: Sandbox,
}

impl Service {
    /// Starts the sites of the data with one instance each.
    pub(crate) async fn start() -> Result<Self> {
        let sites = ["ewr", "jfk", "lga"];
        let mut builder = Sandbox::builder();
        for site in sites {
            builder = builder.site(site);
        }
        let sandbox = builder.start().await?;
        let mut service = Self { urls: Vec::new(), instances: Vec::new(), sandbox };
        for site in sites {
            let url = service.sandbox.site(site).url();
            let directory = service.sandbox.data_dir().join(format!("{site}-1"));
            std::fs::create_dir_all(&directory)?;
            let options = ProcessOptions::new(site, FLIGHTS, directory.join("instance.log"))
                .args(["serve", "--site", site, "--sites", "ewr,jfk,lga", "--instance", "one", "--nats-url", &url])
                .args(["--data-dir", "."])
                .current_dir(&directory);
            service.instances.push(Process::start(options)?);
            service.urls.push(format!("{site}={url}"));
        }
        for instance in &service.instances {
            instance.wait_for_line("\"ready\":", PATIENCE).await?;
        }
        Ok(service)
    }

    /// Waits until a load has reached the sample's flight at this place.
    pub(crate) async fn wait_for_flight(&self, place: usize) -> Result<()> {
        let row = FlightRows::new(SAMPLE.as_bytes())?.nth(place).context("the sample is longer")??;
        let url = self.sandbox.site(row.home().as_str()).url();
        let client = Client::connect(&ConnectOptions::to(url), "test").await?;
        let (kind, body) = ("flight".parse()?, format!(r#"{{"id":"{}"}}"#, row.id));
        let is_there = || async {
            let answer = client.request(&kind, "get", body.clone().into(), &SendOptions::default()).await;
            answer.is_ok_and(|answer| answer.result.is_ok())
        };
        Ok(wait_until(&format!("flight {}", row.id), PATIENCE, is_there).await?)
    }

    /// Starts a load that reports in JSON.
    pub(crate) fn load(&self, data: &Path, more: &[&str]) -> Result<Child> {
        let mut command = Command::new(FLIGHTS);
        command.arg("load").arg("--data").arg(data).arg("--json").args(more);
        for url in &self.urls {
            command.args(["--url", url]);
        }
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn()?)
    }

    pub(crate) async fn stop(self) -> Result<()> {
        for instance in &self.instances {
            instance.stop().await?;
        }
        Ok(self.sandbox.stop().await?)
    }
}

/// The report of a command that has one, and whether it exited with 0.
pub(crate) async fn report(child: Child) -> Result<(Value, bool)> {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await??;
    let text = String::from_utf8(output.stdout)?;
    let report = serde_json::from_str(&text).with_context(|| format!("the report {text:?}"))?;
    Ok((report, output.status.success()))
}
