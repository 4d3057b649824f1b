//! `freehold dev`: a hub, sites and instances of the records service as child processes, until it is interrupted.
//!
//! ```text
//!  freehold dev ─┬─ hub (nats-server)
//!                ├─ ewr (nats-server) ◀── ewr-1, ewr-2 (this program again, as `freehold records`)
//!                └─ jfk …
//! ```
//!
//! Instances have the same names at each start, so that each finds its copy again. Children are in process groups of their
//! own: Ctrl-C reaches this process alone, which ends instances before servers. Nothing that ends is started again unless
//! `--restart` asks for it.

mod control;
mod deployment;
mod instances;
mod summary;

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::DevArguments;
use crate::context::Context;
use crate::dev::control::{Control, Order};
use crate::dev::deployment::Deployment;
use crate::failure::Verdict;
use crate::printer;

/// How often children are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) async fn run(context: &Context, arguments: DevArguments) -> anyhow::Result<Verdict> {
    if let Some(order) = order(&arguments) {
        control::give(&arguments.data, &order).await?;
        return Ok(Verdict::Yes);
    }
    let mut stop = std::pin::pin!(stop_signal()?);
    let starting = Deployment::start(&context.settings, &arguments);
    let deployment = tokio::select! {
        // Dropping a start that is under way kills what it has started.
        () = &mut stop => return Ok(Verdict::Yes),
        started = starting => started?,
    };
    // A path that is too long for a socket is no reason not to run.
    let control = Control::listen(&deployment.data).map_err(|error| {
        printer::note(format!("links cannot be cut from another terminal: {error:#}"));
    });
    if context.json {
        printer::json(&summary::ready(&deployment))?;
    } else {
        summary::print(&deployment)?;
    }
    tokio::select! {
        () = &mut stop => {}
        () = serve(control.as_ref().ok(), &deployment) => {}
        () = deployment.look_after(arguments.restart, WATCH_INTERVAL) => {}
    }
    drop(control);
    printer::note("stopping … (once more to end everything at once)");
    let mut stop_at_once = std::pin::pin!(stop_signal()?);
    tokio::select! {
        // Dropping the deployment kills what is left of it. Nothing that was answered is lost by that.
        () = &mut stop_at_once => Ok(Verdict::Yes),
        stopped = deployment.stop() => stopped.map(|()| Verdict::Yes),
    }
}

/// Carries out orders from other terminals. Never returns.
async fn serve(control: Option<&Control>, deployment: &Deployment) {
    match control {
        Some(control) => control.serve(&deployment.sandbox).await,
        None => std::future::pending().await,
    }
}

/// What a running deployment is told to do, if this is no start.
fn order(arguments: &DevArguments) -> Option<Order> {
    let cut = arguments.cut.clone().map(Order::Cut);
    cut.or_else(|| arguments.heal.clone().map(Order::Heal))
}

/// Returns when the process is to end: Ctrl-C, SIGTERM, or its terminal is gone.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("signals cannot be heard");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}
