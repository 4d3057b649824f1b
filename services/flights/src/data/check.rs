//! Plays a file of flights through the rules, in memory and without NATS.

use std::collections::BTreeMap;
use std::io::Read;

use freehold::core::{CommandName, Decision, Json, KindDefinition, RecordChange, RecordVersion, Refusal};
use freehold::prelude::{DecisionContext, LogTime, SiteName};

use super::error::Error;
use super::reader::FlightRows;
use super::row::FlightRow;
use crate::flight::{Flight, FlightStatus};

/// What a file of flights holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Flights by their home.
    pub flights: BTreeMap<SiteName, u64>,
    /// Commands by name.
    pub commands: BTreeMap<&'static str, u64>,
    /// Flights that left and did not arrive where they should: diverted.
    pub never_arrived: u64,
}

impl Tally {
    /// All flights.
    pub fn flights(&self) -> u64 {
        self.flights.values().sum()
    }

    /// All commands.
    pub fn commands(&self) -> u64 {
        self.commands.values().sum()
    }
}

/// Why a file of flights cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The file cannot be read.
    #[error("the flights cannot be read")]
    Read(#[source] Error),
    /// A command of the file cannot be printed as JSON.
    #[error("a command of flight {flight} cannot be written")]
    Write {
        /// The flight.
        flight: String,
        /// Why.
        #[source]
        error: serde_json::Error,
    },
    /// The rules do not take a command that the data asks for.
    #[error("flight {flight}: {command} was refused: {}", refusal.message)]
    Refused {
        /// The flight.
        flight: String,
        /// The command.
        command: &'static str,
        /// The rule's answer.
        refusal: Refusal,
    },
    /// The commands end in another state than the data says.
    #[error("flight {flight}: the commands make {actual:?}, the data says {expected:?}")]
    Differs {
        /// The flight.
        flight: String,
        /// What the commands make; nothing where no record is left.
        actual: Option<Json>,
        /// What the data says.
        expected: Box<Flight>,
    },
}

/// Reads a file to its end, decides every flight's commands with the service's own rules and compares the record that
/// they make with the data.
pub fn check<R: Read>(rows: FlightRows<R>) -> Result<Tally, CheckError> {
    let kind = crate::kind_definition();
    let mut tally = Tally::default();
    for row in rows {
        let row = row.map_err(CheckError::Read)?;
        let actual = play(&kind, &row, &mut tally)?;
        let expected = row.expected();
        if actual.as_ref().and_then(|record| record.read::<Flight>().ok()).as_ref() != Some(&expected) {
            return Err(CheckError::Differs { flight: row.id.to_string(), actual, expected: Box::new(expected) });
        }
        tally.never_arrived += u64::from(expected.status == FlightStatus::Departed);
        *tally.flights.entry(row.home()).or_default() += 1;
    }
    Ok(tally)
}

/// Decides a flight's commands one after the other; the record that they make.
fn play(kind: &KindDefinition, row: &FlightRow, tally: &mut Tally) -> Result<Option<Json>, CheckError> {
    let (id, site) = (row.id.record_id(), row.home());
    let mut record: Option<Json> = None;
    let mut version = RecordVersion::default();
    for command in row.commands() {
        let flight = || row.id.to_string();
        let body = command.body().map_err(|error| CheckError::Write { flight: flight(), error })?;
        let name: CommandName = match command.name().parse() {
            Ok(name) => name,
            Err(error) => unreachable!("a command's NAME is fixed in the program: {error}"),
        };
        let command_id = command.command_id(&row.id);
        let context = DecisionContext::new(&id, &command_id, LogTime::default(), version, &site);
        match kind.commands[&name].decide(&body, record.as_ref(), &context) {
            Decision::Accepted { change: RecordChange::Becomes(changed), .. } => {
                record = Some(changed);
                version = version.next();
            }
            Decision::Accepted { change: RecordChange::Deleted, .. } => record = None,
            Decision::Accepted { change: RecordChange::Unchanged | RecordChange::Moves(_), .. } => {}
            Decision::Refused(refusal) => {
                return Err(CheckError::Refused { flight: flight(), command: command.name(), refusal });
            }
        }
        *tally.commands.entry(command.name()).or_default() += 1;
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::data::SAMPLE;

    #[test]
    fn the_sample_plays_through_the_rules_and_ends_as_the_data_says() {
        let tally = check(FlightRows::new(SAMPLE.as_bytes()).unwrap()).unwrap();
        let flights: Vec<_> = tally.flights.iter().map(|(site, count)| (site.as_str(), *count)).collect();
        assert_eq!(flights, [("ewr", 991), ("jfk", 936), ("lga", 772)]);
        assert_eq!(tally.flights(), 2_699);
        let commands: Vec<_> = tally.commands.iter().map(|(name, count)| (*name, *count)).collect();
        assert_eq!(commands, [("arrive", 2_659), ("cancel", 22), ("depart", 2_677), ("schedule", 2_699)]);
        assert_eq!(tally.commands(), 8_057);
        assert_eq!(tally.never_arrived, 18);
    }

    #[test]
    fn every_flight_of_the_sample_has_an_id_of_its_own() {
        let rows = FlightRows::new(SAMPLE.as_bytes()).unwrap();
        let ids: BTreeSet<String> = rows.map(|row| row.unwrap().id.to_string()).collect();
        assert_eq!(ids.len(), 2_699);
    }

    #[test]
    fn what_the_rules_do_not_take_is_found() {
        let (header, first) = SAMPLE.split_once('\n').unwrap();
        let row = first.lines().next().unwrap();
        assert!(row.contains(",EWR,IAH,"));
        let circular = format!("{header}\n{}\n", row.replace(",IAH,", ",EWR,"));
        match check(FlightRows::new(circular.as_bytes()).unwrap()).unwrap_err() {
            CheckError::Refused { flight, command: "schedule", refusal } => {
                assert_eq!(flight, "EWR-20130101-UA1545");
                assert!(refusal.details.unwrap().as_str().contains("destination_is_origin"));
            }
            other => panic!("{other:?}"),
        }
    }
}
