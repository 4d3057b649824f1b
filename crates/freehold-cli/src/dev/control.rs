//! Cutting and healing links of a running `freehold dev` from another terminal: one line over a socket in its directory.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use freehold_core::SiteName;
use freehold_sandbox::Sandbox;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::printer;

/// The socket's name in the directory of the deployment.
const SOCKET: &str = "control.sock";
/// The longest order that is read.
const MAX_ORDER_BYTES: u64 = 256;
/// How long an order may take to arrive, and its answer.
const PATIENCE: Duration = Duration::from_secs(30);
const DONE: &str = "done";

/// What is to happen to a site's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing passes any more.
    Cut(SiteName),
    /// Everything passes again.
    Heal(SiteName),
}

impl Order {
    fn line(&self) -> String {
        match self {
            Self::Cut(site) => format!("cut {site}\n"),
            Self::Heal(site) => format!("heal {site}\n"),
        }
    }

    fn read(line: &str) -> anyhow::Result<Self> {
        let (what, site) = line.trim().split_once(' ').context("an order is `cut SITE` or `heal SITE`")?;
        match what {
            "cut" => Ok(Self::Cut(site.parse()?)),
            "heal" => Ok(Self::Heal(site.parse()?)),
            _ => bail!("{what:?} is neither `cut` nor `heal`"),
        }
    }

    async fn carry_out(&self, sandbox: &Sandbox) -> anyhow::Result<()> {
        match self {
            Self::Cut(site) => sandbox.cut(site.as_str()).await?,
            Self::Heal(site) => {
                sandbox.heal(site.as_str())?;
                sandbox.wait_linked(site.as_str()).await?;
            }
        }
        Ok(())
    }
}

/// Gives an order to the `freehold dev` that runs on a directory, and waits until it is carried out.
pub(super) async fn give(data: &Path, order: &Order) -> anyhow::Result<()> {
    let path = data.join(SOCKET);
    let none = || format!("no `freehold dev` runs on {} (looked for {})", data.display(), path.display());
    let mut stream = UnixStream::connect(&path).await.with_context(none)?;
    let answered = async {
        stream.write_all(order.line().as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PATIENCE, answered).await.context("it does not answer")??;
    match answer.trim() {
        DONE => Ok(()),
        refused => bail!("{refused}"),
    }
}

/// The running side.
pub(super) struct Control {
    listener: UnixListener,
}

impl Control {
    /// Listens in a directory; what an earlier run left there is taken away.
    pub(super) fn listen(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} is in the way", path.display()));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(&path).with_context(|| format!("no socket can be made at {}", path.display()))?;
        Ok(Self { listener })
    }

    /// Carries out one order after the other, and tells who gave it. Never returns.
    pub(super) async fn serve(&self, sandbox: &Sandbox) {
        loop {
            self.next(sandbox).await;
        }
    }

    /// What goes wrong with one connection ends that one only.
    async fn next(&self, sandbox: &Sandbox) {
        let answered = async {
            let (mut stream, _) = self.listener.accept().await?;
            let (reading, mut writing) = stream.split();
            let mut line = String::new();
            let obeyed = async {
                timeout(PATIENCE, BufReader::new(reading.take(MAX_ORDER_BYTES)).read_line(&mut line)).await??;
                let order = Order::read(&line)?;
                order.carry_out(sandbox).await?;
                anyhow::Ok(order)
            };
            let answer = match obeyed.await {
                Ok(order) => {
                    printer::note(format!("{} the link", order.line().trim()));
                    DONE.to_owned()
                }
                Err(error) => format!("{error:#}"),
            };
            writing.write_all(answer.as_bytes()).await?;
            anyhow::Ok(())
        };
        if let Err(error) = answered.await {
            printer::note(format!("an order was lost: {error:#}"));
        }
    }
}
