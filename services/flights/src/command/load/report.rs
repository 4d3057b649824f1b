//! What a load did, for a person and for a program.

use std::fmt;

use comfy_table::Table;
use serde::Serialize;

use super::latency::Quantiles;
use super::verifier::Verified;

/// The figures of the sending.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LoadFigures {
    /// Whether the file was sent to its end.
    pub(crate) complete: bool,
    /// Flights all of whose commands were answered.
    pub(crate) flights: u64,
    /// Commands that were answered.
    pub(crate) commands: u64,
    /// Those of them that the rules rejected because the flight is past them: a load before did them.
    pub(crate) done_before: u64,
    /// Tries beyond the first ones.
    pub(crate) retried: u64,
    /// Commands that were refused or given up.
    pub(crate) failed: u64,
    /// The first of them.
    pub(crate) failures: Vec<String>,
    /// From the start to the last answer.
    pub(crate) seconds: f64,
    pub(crate) commands_per_second: f64,
    /// From the first try of a command to its answer.
    pub(crate) latency: Option<Quantiles>,
}

/// What `flights load` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    load: LoadFigures,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verified: Vec<Verified>,
    verdict: &'static str,
}

impl Report {
    pub(crate) fn new(load: LoadFigures, verified: Vec<Verified>) -> Self {
        let differs = load.failed > 0 || verified.iter().any(|verified| verified.differences > 0);
        let verdict = match (differs, load.complete, verified.is_empty()) {
            (true, ..) => "differs",
            (false, false, _) => "stopped",
            (false, true, true) => "loaded",
            (false, true, false) => "verified",
        };
        Self { load, verified, verdict }
    }

    /// Whether the file was loaded and nothing differs from it.
    pub(crate) fn holds(&self) -> bool {
        matches!(self.verdict, "loaded" | "verified")
    }
}

impl LoadFigures {
    /// The figures as rows of a table.
    pub(crate) fn rows(&self) -> Vec<[String; 2]> {
        let Self { flights, commands, done_before, retried, failed, seconds, commands_per_second, .. } = self;
        let mut rows = vec![
            ["flights".to_owned(), flights.to_string()],
            ["commands".to_owned(), format!("{commands} in {seconds:.1} s")],
            ["commands/s".to_owned(), format!("{commands_per_second:.0}")],
        ];
        if let Some(Quantiles { p50_ms, p99_ms, max_ms }) = self.latency {
            rows.push(["latency p50, p99, max".to_owned(), format!("{p50_ms:.1} ms, {p99_ms:.1} ms, {max_ms:.1} ms")]);
        }
        rows.push(["tried again".to_owned(), retried.to_string()]);
        if *done_before > 0 {
            rows.push(["done by a load before".to_owned(), done_before.to_string()]);
        }
        if *failed > 0 {
            rows.push(["failed".to_owned(), failed.to_string()]);
        }
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
        table.add_rows(self.load.rows());
        for Verified { flights, versions, differences, .. } in &self.verified {
            let text = format!("{flights} flights in {versions} versions, {differences} differ");
            table.add_row(["compared with the data".to_owned(), text]);
        }
        table.add_row(["verdict", self.verdict]);
        write!(formatter, "{table}")?;
        for failure in &self.load.failures {
            write!(formatter, "\nfailed: {failure}")?;
        }
        for difference in self.verified.iter().flat_map(|verified| &verified.first) {
            write!(
                formatter,
                "\n{}: found {}\n  the data says {}",
                difference.flight, difference.found, difference.expected
            )?;
        }
        if !self.load.complete {
            write!(formatter, "\nStopped before the end: the same command goes on where it stopped.")?;
        }
        Ok(())
    }
}
