//! The examples of the page, run by the interpreters that strangers use.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::document::{examples, page};
use crate::packages;
use crate::services::Services;

/// How long the examples of one language may take, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Each part of the contract has an example in each language.
const LEAST_BLOCKS: usize = 8;

/// Runs a command and expects that it ends well.
async fn ends_well(command: &mut Command) -> Result<()> {
    let said = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let said = said.with_context(|| format!("{command:?} took too long"))?;
    let said = said.with_context(|| format!("{command:?} cannot be run: it is needed for this test"))?;
    let (out, errors) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    ensure!(said.status.success() && out.contains("all examples ran"), "{command:?}: {}\n{out}{errors}", said.status);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_examples_of_the_page_run_and_hold() -> Result<()> {
    let packages = packages::python("requirements.txt").await?;
    let (text, blocks) = examples(&page()?, "python");
    ensure!(blocks >= LEAST_BLOCKS, "{blocks} examples");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("examples.py");
    std::fs::write(&file, text)?;
    let services = Services::start(1).await?;
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("wire/run.py");
    let mut python = Command::new("python3");
    python.arg(runner).arg(&file).arg("docs/wire.md").env("PYTHONPATH", packages).env("NATS_URL", services.url());
    // The interpreter shows the line that failed where the page is.
    python.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    ends_well(&mut python).await?;
    services.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_examples_of_the_page_run_and_hold() -> Result<()> {
    let node = packages::Node::find().await?;
    let packages = packages::javascript(&node).await?;
    let (text, blocks) = examples(&page()?, "javascript");
    ensure!(blocks >= LEAST_BLOCKS, "{blocks} examples");
    // Beside the packages: that is where Node looks for them.
    let directory = tempfile::tempdir_in(&packages)?;
    let file = directory.path().join("wire.md.mjs");
    std::fs::write(&file, format!("{text}console.log(\"all examples ran\");\n"))?;
    let services = Services::start(1).await?;
    ends_well(Command::new(node.program).arg(&file).env("NATS_URL", services.url())).await?;
    services.stop().await
}
