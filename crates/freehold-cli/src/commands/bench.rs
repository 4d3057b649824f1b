//! `freehold bench`: what Freehold costs, beside the floor.

use std::time::Duration;

use anyhow::Context as _;
use freehold_bench::{Asked, FloorOptions, Loop, Options, Profile, Report, Workload, serve_floor};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::arguments::BenchArguments;
use crate::context::Context;
use crate::failure::Verdict;
use crate::printer;

/// How often the progress is drawn.
const TICK: Duration = Duration::from_millis(100);
const COLUMNS: [&str; 10] =
    ["run", "per second", "floor", "ratio", "p50 ms", "p99 ms", "p99.9 ms", "service µs", "server µs", "client µs"];

/// One line of the results.
#[derive(Serialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    report: Report,
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
    let runs = if arguments.all { all(&options.asked) } else { vec![options.asked.clone()] };
    let mut table = printer::table_of(&COLUMNS);
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(TICK);
    for asked in runs {
        let name = name(&asked);
        let options = Options { asked, ..options.clone() };
        let report = freehold_bench::run(&options, |what| progress.set_message(format!("{name}, {what}"))).await;
        let report = report.with_context(|| name.clone())?;
        if context.json {
            printer::json(&Named { name, report })?;
        } else {
            table.add_row(row(&name, &report));
        }
    }
    progress.finish_and_clear();
    if !context.json {
        printer::table(&table)?;
    }
    Ok(Verdict::Yes)
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
            records: arguments.records,
            record_bytes: arguments.record_bytes,
        },
        time: Duration::from_secs(arguments.seconds),
        rounds: arguments.rounds,
    })
}

/// Every workload, then one command at a time, two instances, and how the servers store.
fn all(asked: &Asked) -> Vec<Asked> {
    vec![
        asked.clone(),
        Asked { workload: Workload::Zipfian, ..asked.clone() },
        Asked { workload: Workload::Hot, ..asked.clone() },
        Asked { workload: Workload::Reads, ..asked.clone() },
        Asked { pace: Loop::Closed { in_flight: 1 }, ..asked.clone() },
        Asked { instances: 2, ..asked.clone() },
        Asked { profile: Profile::SyncAlways, ..asked.clone() },
        Asked { profile: Profile::Cluster, ..asked.clone() },
    ]
}

/// What a run is, in a few words.
fn name(asked: &Asked) -> String {
    let workload = match asked.workload {
        Workload::Uniform => "uniform",
        Workload::Zipfian => "zipfian",
        Workload::Hot => "one hot record",
        Workload::Reads => "95 % reads",
    };
    let pace = match asked.pace {
        Loop::Closed { in_flight } => format!("{in_flight} in flight"),
        Loop::Open { rate } => format!("{rate}/s"),
    };
    let mut name = format!("{workload}, {pace}");
    match asked.profile {
        Profile::Default => {}
        Profile::SyncAlways => name.push_str(", sync always"),
        Profile::Cluster => name.push_str(", three servers"),
    }
    if asked.instances > 1 {
        name.push_str(&format!(", {} instances", asked.instances));
    }
    name
}

fn row(name: &str, report: &Report) -> Vec<String> {
    let milliseconds = |microseconds: u64| format!("{:.2}", Duration::from_micros(microseconds).as_secs_f64() * 1e3);
    let Report { freehold, floor, ratio, .. } = report;
    vec![
        name.to_owned(),
        format!("{:.0}", freehold.per_second),
        format!("{:.0}", floor.per_second),
        format!("{ratio:.2}"),
        milliseconds(freehold.latency.p50),
        milliseconds(freehold.latency.p99),
        milliseconds(freehold.latency.p99_9),
        format!("{:.0}", freehold.cpu.service),
        format!("{:.0}", freehold.cpu.server),
        format!("{:.0}", freehold.cpu.client),
    ]
}
