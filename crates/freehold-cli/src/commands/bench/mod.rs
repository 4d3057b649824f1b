//! `freehold bench`: what Freehold costs, beside the floor.

mod measurement;
mod suite;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use freehold_bench::{Asked, FloorOptions, Loop, Options, draw, serve_floor};
use indicatif::ProgressBar;

pub(crate) use self::suite::Suite;

use self::measurement::{Found, Measurement};
use self::table::Tables;
use crate::arguments::BenchArguments;
use crate::context::Context;
use crate::failure::Verdict;
use crate::printer;

/// How often the progress is drawn.
const TICK: Duration = Duration::from_millis(100);

/// One line of the results.
#[derive(serde::Serialize)]
struct Line<'a> {
    suite: Suite,
    name: &'a str,
    #[serde(flatten)]
    found: &'a Found,
}

pub(crate) async fn run(context: &Context, arguments: BenchArguments) -> anyhow::Result<Verdict> {
    if let Some(floor) = &arguments.serve_floor {
        let floor: FloorOptions = serde_json::from_str(floor).context("--serve-floor")?;
        serve_floor(floor).await?;
        return Ok(Verdict::Yes);
    }
    if cfg!(debug_assertions) {
        printer::note("this is a debug build: its figures say nothing");
    }
    let options = options(&arguments)?;
    let suites = if arguments.all { Suite::ALL.to_vec() } else { arguments.suites.clone() };
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(TICK);
    let mut tables = Tables::default();
    let mut measured = Vec::new();
    let mut measure = async |suite: Suite, measurement: Measurement| -> anyhow::Result<Found> {
        let name = measurement.name();
        let found = measurement.run(&options, |what| progress.set_message(format!("{name}: {what}"))).await;
        let found = found.with_context(|| name.clone())?;
        if context.json {
            printer::json(&Line { suite, name: &name, found: &found })?;
        } else {
            tables.add(suite, &name, &found);
        }
        measured.push((suite, found.clone()));
        Ok(found)
    };
    let ended = async {
        if suites.is_empty() {
            measure(Suite::Load, Measurement::load(options.asked.clone())).await?;
        }
        for suite in suites {
            for measurement in suite.measurements(&options.asked, &arguments) {
                let found = measure(suite, measurement.clone()).await?;
                if let Some(follow_up) = measurement.follow_up(&found) {
                    measure(suite, follow_up).await?;
                }
            }
        }
        anyhow::Ok(())
    };
    let ended = ended.await;
    progress.finish_and_clear();
    if !context.json {
        tables.print()?;
    }
    if let Some(directory) = &arguments.plots {
        plot(directory, &measured)?;
    }
    // What was measured before something failed is shown.
    ended.map(|()| Verdict::Yes)
}

fn options(arguments: &BenchArguments) -> anyhow::Result<Options> {
    let pace = match arguments.rate {
        Some(rate) => Loop::Open { rate: f64::from(rate) },
        None => Loop::Closed { in_flight: usize::from(arguments.in_flight) },
    };
    Ok(Options {
        program: std::env::current_exe().context("this program cannot be found")?,
        asked: Asked {
            workload: arguments.workload,
            pace,
            profile: arguments.profile,
            instances: arguments.instances,
            groups: arguments.groups,
            records: arguments.records,
            record_bytes: arguments.record_bytes,
        },
        time: Duration::from_secs(arguments.seconds),
        rounds: arguments.rounds,
        floor: true,
    })
}

/// Draws how figures grow.
fn plot(directory: &Path, measured: &[(Suite, Found)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for (name, series) in Suite::ALL.into_iter().flat_map(|suite| suite.series(measured)) {
        draw(&series, &directory.join(format!("{name}.svg")))?;
    }
    Ok(())
}
