//! What the demonstration found, for a person and for a program.

use std::fmt;

use comfy_table::Table;
use freehold::prelude::SiteName;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::killer::Kill;
use crate::command::load::{LoadFigures, Verified};

/// All findings. What holds follows from them.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) load: LoadFigures,
    pub(super) commands_in_the_data: u64,
    pub(super) kills_asked: u32,
    pub(super) kills: Vec<Kill>,
    /// From the last answer of the load until the running instances of all sites had identical copies; nothing where they never
    /// had.
    pub(super) copy_lag_ms: Option<f64>,
    pub(super) verified: Vec<SiteVerified>,
    pub(super) instances_compared: usize,
    pub(super) copies_identical: bool,
}

/// The comparison with the data at one site.
#[derive(Debug, serde::Serialize)]
pub(super) struct SiteVerified {
    pub(super) site: SiteName,
    #[serde(flatten)]
    pub(super) verified: Verified,
}

impl Report {
    /// Whether all is as promised.
    pub(super) fn holds(&self) -> bool {
        self.breaches().is_empty()
    }

    /// What is not as promised.
    fn breaches(&self) -> Vec<String> {
        let mut breaches = Vec::new();
        let LoadFigures { commands, failed, complete, .. } = &self.load;
        if !complete || *failed > 0 || *commands != self.commands_in_the_data {
            let all = self.commands_in_the_data;
            breaches.push(format!("{commands} of {all} commands were answered, {failed} failed"));
        }
        for SiteVerified { site, verified } in &self.verified {
            let Verified { differences, versions, .. } = verified;
            if *differences > 0 {
                breaches.push(format!("{differences} flights at {site} are not as the data says"));
            }
            if *versions != self.commands_in_the_data {
                let all = self.commands_in_the_data;
                breaches.push(format!(
                    "the flights at {site} have {versions} versions, not one for each of {all} commands"
                ));
            }
        }
        if self.copy_lag_ms.is_none() || !self.copies_identical {
            breaches.push("the copies are not identical".to_owned());
        }
        if (self.kills.len() as u32) < self.kills_asked {
            breaches.push(format!("the load left time for {} of {} kills", self.kills.len(), self.kills_asked));
        }
        breaches
    }

    fn verdict(&self) -> &'static str {
        if self.holds() { "held" } else { "broken" }
    }

    /// The highest of the kills' medians, and the worst group of all.
    fn failover_ms(&self) -> Option<(f64, f64)> {
        let highest = |value: fn(&Kill) -> f64| self.kills.iter().map(value).reduce(f64::max);
        highest(|kill| kill.median_ms).zip(highest(|kill| kill.worst_ms))
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Report", 9)?;
        fields.serialize_field("verdict", self.verdict())?;
        fields.serialize_field("breaches", &self.breaches())?;
        fields.serialize_field("commands_in_the_data", &self.commands_in_the_data)?;
        fields.serialize_field("load", &self.load)?;
        fields.serialize_field("kills", &self.kills)?;
        fields.serialize_field("copy_lag_ms", &self.copy_lag_ms)?;
        fields.serialize_field("verified", &self.verified)?;
        fields.serialize_field("instances_compared", &self.instances_compared)?;
        fields.serialize_field("copies_identical", &self.copies_identical)?;
        fields.end()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
        table.add_rows(self.load.rows());
        table.add_row(["kills (SIGKILL)".to_owned(), self.kills.len().to_string()]);
        if let Some((median, worst)) = self.failover_ms() {
            let text = format!("{median:.0} ms median, {worst:.0} ms worst group");
            table.add_row(["failover".to_owned(), text]);
        }
        let lag =
            self.copy_lag_ms.map_or("never equal".to_owned(), |lag| format!("{lag:.0} ms behind the last answer"));
        table.add_row(["copy lag".to_owned(), lag]);
        for SiteVerified { site, verified: Verified { flights, versions, differences, .. } } in &self.verified {
            let text = format!("{flights} flights in {versions} versions, {differences} differ from the data");
            table.add_row([format!("at {site}"), text]);
        }
        let identical = if self.copies_identical { "identical" } else { "NOT identical" };
        table.add_row([format!("copies of {} instances", self.instances_compared), identical.to_owned()]);
        table.add_row(["verdict", self.verdict()]);
        write!(formatter, "{table}")?;
        for breach in self.breaches() {
            write!(formatter, "\nbroken: {breach}")?;
        }
        for failure in &self.load.failures {
            write!(formatter, "\nfailed: {failure}")?;
        }
        for SiteVerified { site, verified } in &self.verified {
            for difference in &verified.first {
                write!(formatter, "\nat {site}: {difference}")?;
            }
        }
        Ok(())
    }
}
