//! `flights demo`: three sites on this machine, real flights, an instance killed midway, and the proof that nothing differs.
//!
//! ```text
//! Deployment: hub, sites ewr jfk lga (nats-servers), instances (this program again, `serve`)
//!     ▲ kill, restart
//! Killer ◀─ commands so far ─ Loader ─▶ Verifier at each site, Copies (digests of all instances) ─▶ Report
//! ```
//!
//! Whatever happens, all that was started ends with it.

mod copies;
mod deployment;
mod hints;
mod instance;
mod killer;
mod options;
mod report;

pub(crate) use options::Options;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flights::data::{self, Tally};
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use copies::Copies;
use deployment::Deployment;
use killer::Killer;
use report::{Report, SiteVerified};

use super::load::{Loader, Meter, Sites, Verifier, milliseconds, progress_bar, wait_shown};
use super::printer::Printer;

/// How long all copies have to become identical once the last command is answered.
const COPIES_DEADLINE: Duration = Duration::from_secs(60);

/// Runs the demonstration; false where something did not hold.
pub(crate) async fn run(options: Options, printer: Printer) -> anyhow::Result<bool> {
    tokio::select! {
        done = run_to_the_end(&options, printer) => done,
        () = interrupted() => {
            printer.step("interrupted: everything that was started ends");
            Ok(false)
        }
    }
}

async fn run_to_the_end(options: &Options, printer: Printer) -> anyhow::Result<bool> {
    let started = Instant::now();
    let tally = data::check(options.input.rows()?)?;
    let sites: Vec<_> = tally.flights.keys().cloned().collect();
    let mut deployment = Deployment::start(options, &sites, printer).await?;
    let proven = prove(options, &tally, &deployment, printer).await;
    let report = match proven {
        Ok(report) => report,
        Err(error) => {
            deployment.keep_files(printer);
            return Err(error);
        }
    };
    if options.json {
        printer.json(&report)?;
    } else {
        printer.text(&report);
    }
    printer.step(format!("{:.1} s from start to verdict", started.elapsed().as_secs_f64()));
    if !report.holds() {
        deployment.keep_files(printer);
    }
    if options.keep {
        printer.text(hints::what_to_try(&deployment, &options.input));
        interrupted().await;
        printer.step("stopping");
    }
    deployment.stop().await?;
    Ok(report.holds())
}

/// Loads, kills, compares.
async fn prove(options: &Options, tally: &Tally, deployment: &Deployment, printer: Printer) -> anyhow::Result<Report> {
    let clients = Sites::connect(&deployment.urls()?, tally.flights.keys()).await?;
    let copies = Copies { clients: &clients, tally };
    let meter = Arc::new(Meter::default());
    // Held for as long as the load: nobody stops it but the end of the demonstration.
    let (_stop, stopped) = watch::channel(false);
    let loader = Loader { sites: clients.clone(), pace: options.pace.clone(), meter: Arc::clone(&meter), stopped };
    let (over, load_is_over) = watch::channel(false);
    let bar = progress_bar("load", tally.commands());
    let killer = Killer { deployment, clients: &clients, meter: &meter, load_is_over, bar: &bar, printer };
    let loading = async {
        let ended = wait_shown(&bar, || meter.commands(), loader.run(options.input.rows()?)).await?;
        over.send_replace(true);
        let last_answer = meter.last_answer();
        let lag = copies.wait_identical(&deployment.running_instances(), last_answer, COPIES_DEADLINE).await?;
        anyhow::Ok((ended, lag))
    };
    let (loaded, kills) = tokio::join!(loading, killer.run(options.kills, tally.commands()));
    let ((ended, lag), kills) = (loaded?, kills?);

    printer.step("comparing every flight at every site with the data");
    let verifier = Verifier::new(options.pace.clone());
    let bar = progress_bar("verify", tally.flights() * tally.flights.len() as u64);
    let at_each_site = clients.iter().map(|(site, client)| {
        let verifier = &verifier;
        async move {
            let verified = verifier.run(options.input.rows()?, |_| Some(client)).await;
            let verified = verified.with_context(|| format!("reading the flights at {site}"))?;
            anyhow::Ok(SiteVerified { site: site.clone(), verified })
        }
    });
    let verified = wait_shown(&bar, || verifier.checked(), try_join_all(at_each_site)).await?;
    // Those that were killed have come back, and count too.
    let instances = deployment.running_instances();
    let identical = copies.wait_identical(&instances, Instant::now(), COPIES_DEADLINE).await?.is_some();
    Ok(Report {
        load: meter.figures(ended),
        commands_in_the_data: tally.commands(),
        kills_asked: options.kills,
        kills,
        copy_lag_ms: lag.map(milliseconds),
        verified,
        instances_compared: instances.len(),
        copies_identical: identical,
    })
}

/// SIGINT or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(error) => {
                tracing::error!(%error, "SIGTERM cannot be heard");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        heard = tokio::signal::ctrl_c() => {
            if let Err(error) = heard {
                tracing::error!(%error, "SIGINT cannot be heard");
            }
        }
    }
}
