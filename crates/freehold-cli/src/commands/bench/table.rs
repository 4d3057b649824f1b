//! What was measured, as a person reads it.

use std::time::Duration;

use comfy_table::Table;
use freehold_bench::{Milliseconds, Report};

use super::measurement::Found;
use super::suite::Suite;
use crate::printer;

const LOADS: [&str; 13] = [
    "run",
    "per second",
    "floor",
    "ratio",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "floor p50",
    "floor p99",
    "service µs",
    "server µs",
    "client µs",
    "MB resident",
];
const OTHERS: [&str; 3] = ["run", "figure", "value"];

/// A table for each suite.
#[derive(Default)]
pub(crate) struct Tables(Vec<(Suite, Table)>);

impl Tables {
    pub(crate) fn add(&mut self, suite: Suite, name: &str, found: &Found) {
        if self.0.last().is_none_or(|(last, _)| *last != suite) {
            let columns: &[&str] = if matches!(found, Found::Load(_)) { &LOADS } else { &OTHERS };
            self.0.push((suite, printer::table_of(columns)));
        }
        let Some((_, table)) = self.0.last_mut() else { return };
        match found {
            Found::Load(report) => {
                table.add_row(load_row(name, report));
            }
            other => {
                for (figure, value) in figures(other) {
                    table.add_row([name, figure, &value]);
                }
            }
        }
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        Ok(self.0.iter().try_for_each(|(_, table)| printer::table(table))?)
    }
}

fn load_row(name: &str, report: &Report) -> Vec<String> {
    let milliseconds = |microseconds: u64| format!("{:.2}", Duration::from_micros(microseconds).as_secs_f64() * 1e3);
    let Report { freehold, floor, ratio, .. } = report;
    let optional = |value: Option<f64>, decimals: usize| value.map(|it| format!("{it:.decimals$}")).unwrap_or_default();
    vec![
        name.to_owned(),
        format!("{:.0}", freehold.per_second),
        optional(floor.as_ref().map(|floor| floor.per_second), 0),
        optional(*ratio, 2),
        milliseconds(freehold.latency.p50),
        milliseconds(freehold.latency.p99),
        milliseconds(freehold.latency.p99_9),
        floor.as_ref().map(|floor| milliseconds(floor.latency.p50)).unwrap_or_default(),
        floor.as_ref().map(|floor| milliseconds(floor.latency.p99)).unwrap_or_default(),
        format!("{:.0}", freehold.cpu.service),
        format!("{:.0}", freehold.cpu.server),
        format!("{:.0}", freehold.cpu.client),
        megabytes(freehold.memory_bytes),
    ]
}

fn figures(found: &Found) -> Vec<(&'static str, String)> {
    let seconds = |seconds: f64| format!("{seconds:.2} s");
    let rate = |rate: f64| format!("{rate:.0}/s");
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    match found {
        Found::Load(_) => Vec::new(),
        Found::Failover(report) => vec![
            ("first command applied", quantiles(&report.first_ms)),
            ("all its groups served", quantiles(&report.all_ms)),
        ],
        Found::Beside(found) => vec![
            ("reads alone", rate(found.alone_per_second)),
            ("reads beside commands", rate(found.beside_per_second)),
            ("kept", percent(found.kept)),
            ("commands", rate(found.commands_per_second)),
            ("of all cores, commands alone", percent(found.commands_share)),
        ],
        Found::Listing(found) => vec![
            ("records", rate(found.per_second)),
            ("a page of 1,000", quantiles(&found.page_ms)),
            ("MB resident before", megabytes(found.memory_before_bytes)),
            ("MB resident at most", megabytes(found.memory_most_bytes)),
        ],
        Found::Lag(lag) => vec![
            ("meanwhile", rate(lag.per_second)),
            ("readable behind the answer", quantiles(&lag.behind_answer_ms)),
            ("readable after sending", quantiles(&lag.from_sending_ms)),
        ],
        Found::CatchUp(found) => vec![
            ("linked after", seconds(found.linked_seconds)),
            ("equal after", seconds(found.equal_seconds)),
            ("updates", rate(found.per_second)),
        ],
        Found::Join(join) => vec![
            ("another instance", seconds(join.instance_seconds)),
            ("another site", seconds(join.site_seconds)),
            ("commands meanwhile", rate(join.meanwhile_per_second)),
            ("MB resident", megabytes(join.memory_bytes)),
        ],
        Found::Idle(idle) => vec![
            ("service", format!("{:.2} % of a core", idle.service_cores * 100.0)),
            ("server", format!("{:.2} % of a core", idle.server_cores * 100.0)),
            ("MB resident", megabytes(idle.memory_bytes)),
        ],
    }
}

fn quantiles(times: &Milliseconds) -> String {
    let Milliseconds { p50, p99, max } = times;
    format!("p50 {p50:.1} ms, p99 {p99:.1} ms, at most {max:.1} ms")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}
