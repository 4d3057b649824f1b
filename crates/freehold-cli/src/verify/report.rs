//! What `verify` found, and how it is printed.

use serde::Serialize;

use freehold_core::{GroupNumber, InstanceName, KindName, RecordId, SiteName, StreamSequence};

use super::compare::Summary;
use crate::failure::Verdict;
use crate::printer;

/// Everything that was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// One entry a kind, origin and instance.
    pub(super) copies: Vec<CopyReport>,
    /// Records that differ, at most as many as asked for.
    pub(super) differences: Vec<DifferenceReport>,
    /// All of them.
    pub(super) differences_total: usize,
    /// What a sound stream does not have, and that no copy takes.
    pub(super) anomalies: Vec<String>,
    pub(super) anomalies_total: usize,
    /// Places that were asked for and could not be reached.
    pub(super) unreachable: Vec<String>,
}

/// One instance's copy of one origin's records.
#[derive(Debug, Serialize)]
pub(super) struct CopyReport {
    pub(super) kind: KindName,
    pub(super) origin: SiteName,
    pub(super) site: SiteName,
    pub(super) instance: InstanceName,
    /// How far the copy had applied the stream.
    pub(super) applied: StreamSequence,
    /// How far the stream reached; nothing where it could not be read.
    pub(super) stream: Option<StreamSequence>,
    /// Records in the copy, deleted ones included.
    pub(super) records: u64,
    pub(super) standing: StandingReport,
    /// Groups that differ.
    pub(super) groups: Vec<GroupNumber>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StandingReport {
    Equal,
    Differs,
    /// It did not come far enough in time.
    Behind,
    /// It has more than the stream.
    Ahead,
}

/// One record that a copy has otherwise than its reference: the stream, or another copy where that could not be read.
#[derive(Debug, Serialize)]
pub(super) struct DifferenceReport {
    pub(super) kind: KindName,
    pub(super) origin: SiteName,
    pub(super) group: GroupNumber,
    /// Nothing where the digests differ although all records are equal: the digest itself is wrong.
    pub(super) id: Option<RecordId>,
    pub(super) reference: String,
    pub(super) expected: Option<Summary>,
    pub(super) place: String,
    pub(super) found: Option<Summary>,
}

impl Report {
    /// Whether anything differs.
    pub(super) fn differs(&self) -> bool {
        self.copies.iter().any(|copy| copy.standing != StandingReport::Equal)
            || self.differences_total > 0
            || self.anomalies_total > 0
    }

    /// A difference is certain; that nothing differs is only certain where every place was reached.
    pub(super) fn verdict(&self) -> Verdict {
        match (self.differs(), self.unreachable.is_empty()) {
            (true, _) => Verdict::No,
            (false, true) => Verdict::Yes,
            (false, false) => Verdict::Unknown,
        }
    }

    /// Prints one line of JSON.
    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Printed<'a> {
            verdict: &'static str,
            #[serde(flatten)]
            report: &'a Report,
        }
        Ok(printer::json(&Printed { verdict: self.verdict_text(), report: self })?)
    }

    /// Prints tables and a verdict.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut table = printer::table_of(&[
            "kind",
            "records of",
            "copy at",
            "instance",
            "records",
            "applied",
            "stream",
            "verdict",
        ]);
        for copy in &self.copies {
            let verdict = match copy.standing {
                StandingReport::Equal => "equal".to_owned(),
                StandingReport::Differs => format!("DIFFERS in {} groups", copy.groups.len()),
                StandingReport::Behind => "BEHIND: did not settle in time".to_owned(),
                StandingReport::Ahead => "AHEAD: the stream has lost its tail".to_owned(),
            };
            table.add_row([
                copy.kind.to_string(),
                copy.origin.to_string(),
                copy.site.to_string(),
                copy.instance.to_string(),
                copy.records.to_string(),
                copy.applied.to_string(),
                copy.stream.map_or_else(|| "unreachable".to_owned(), |end| end.to_string()),
                verdict,
            ]);
        }
        printer::table(&table)?;
        if self.differences_total > 0 {
            let mut table = printer::table_of(&["kind", "record", "group", "place", "version", "hash"]);
            for difference in &self.differences {
                let id = difference.id.as_ref().map_or("(only the digest)", RecordId::as_str);
                for (place, summary) in
                    [(&difference.reference, difference.expected), (&difference.place, difference.found)]
                {
                    let (version, hash) = match summary {
                        Some(summary) => (summary.version.to_string(), summary.hash.to_string()),
                        None => ("none".to_owned(), String::new()),
                    };
                    let group = difference.group.to_string();
                    table.add_row([difference.kind.as_str(), id, &group, place, &version, &hash]);
                }
            }
            printer::table(&table)?;
            if self.differences.len() < self.differences_total {
                let (shown, total) = (self.differences.len(), self.differences_total);
                printer::line(format!("{shown} of {total} differences are shown; --limit shows more"))?;
            }
        }
        for anomaly in &self.anomalies {
            printer::line(format!("anomaly: {anomaly}"))?;
        }
        for place in &self.unreachable {
            printer::line(format!("cannot be reached: {place}"))?;
        }
        printer::line(self.verdict_line())?;
        Ok(())
    }

    fn verdict_text(&self) -> &'static str {
        match self.verdict() {
            Verdict::Yes => "equal",
            Verdict::No => "different",
            Verdict::Unknown => "unknown",
        }
    }

    fn verdict_line(&self) -> String {
        match self.verdict() {
            Verdict::Yes => "equal: every copy has exactly what the streams have".to_owned(),
            Verdict::No => {
                let copies = self.copies.iter().filter(|copy| copy.standing != StandingReport::Equal).count();
                let (records, anomalies) = (self.differences_total, self.anomalies_total);
                format!("DIFFERENT: {copies} copies, {records} differences of records, {anomalies} anomalies")
            }
            Verdict::Unknown => "unknown: nothing differs, but not every place could be reached".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_more_than_an_unreachable_place() {
        let check = |differences_total, unreachable: &[&str], expected| {
            let unreachable = unreachable.iter().map(ToString::to_string).collect();
            let report = Report { differences_total, unreachable, ..Report::default() };
            assert_eq!(report.verdict(), expected);
        };
        check(0, &[], Verdict::Yes);
        check(1, &[], Verdict::No);
        check(0, &["lga"], Verdict::Unknown);
        check(1, &["lga"], Verdict::No);
    }
}
