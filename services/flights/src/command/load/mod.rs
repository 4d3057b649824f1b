//! `flights load`: a file's flights, sent to the services of their home sites as the commands that happened to them.
//!
//! ```text
//! rows ─▶ Loader ── many flights at a time, the commands of each in order ──▶ Sites ──▶ services
//!            └─▶ Meter (counts, latencies) ─▶ progress bar, report        rows ─▶ Verifier ── get ──▶ services
//! ```
//!
//! The file is a stream: what is in memory is the flights in flight. Every command has the id that the data gives it, so a
//! load that is started again sends repeats, which change nothing.

mod latency;
mod loader;
mod meter;
mod options;
mod progress;
mod report;
mod sites;
mod verifier;

pub(crate) use latency::milliseconds;
pub(crate) use loader::{Loader, flight_kind};
pub(crate) use meter::Meter;
pub(crate) use options::{Options, Pace};
pub(crate) use progress::{progress_bar, wait_shown};
pub(crate) use report::LoadFigures;
pub(crate) use sites::{SiteUrl, Sites};
pub(crate) use verifier::{Verified, Verifier};

use std::sync::Arc;

use flights::data;
use tokio::sync::watch;

use super::printer::Printer;
use loader::Ended;
use report::Report;

/// Loads, verifies, reports; false where anything differs.
pub(crate) async fn run(options: Options, printer: Printer) -> anyhow::Result<bool> {
    let tally = data::check(options.input.rows()?)?;
    let sites = Sites::connect(&options.urls, tally.flights.keys()).await?;
    let (stop, stopped) = watch::channel(false);
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.send_replace(true);
            // The second one does not wait.
            let _ = tokio::signal::ctrl_c().await;
            std::process::exit(130);
        }
    });
    let meter = Arc::new(Meter::default());
    let loader = Loader { sites: sites.clone(), pace: options.pace.clone(), meter: Arc::clone(&meter), stopped };
    let bar = progress_bar("load", tally.commands());
    let ended = wait_shown(&bar, || meter.commands(), loader.run(options.input.rows()?)).await?;
    let mut verified = Vec::new();
    if options.verifies() && ended == Ended::AtTheEnd {
        let verifier = Verifier::new(options.pace.clone());
        let bar = progress_bar("verify", tally.flights());
        let verifying = verifier.run(options.input.rows()?, |home| sites.client(home));
        verified.push(wait_shown(&bar, || verifier.checked(), verifying).await?);
    }
    interrupt.abort();
    let report = Report::new(meter.figures(ended), verified);
    if options.json {
        printer.json(&report)?;
    } else {
        printer.text(&report);
    }
    Ok(report.holds())
}
