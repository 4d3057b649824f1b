//! A command of the load.

use freehold::core::Json;
use freehold::prelude::{Command, CommandId};
use serde::Serialize;

use crate::arrive::Arrive;
use crate::cancel::Cancel;
use crate::depart::Depart;
use crate::flight_id::FlightId;
use crate::schedule::Schedule;

/// One thing that happened to a flight. The same row always gives the same commands, byte for byte and with the same
/// ids, so that a load that is started again sends repeats and no new commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum FlightCommand {
    /// It was planned.
    Schedule(Schedule),
    /// It left.
    Depart(Depart),
    /// It arrived.
    Arrive(Arrive),
    /// It was cancelled.
    Cancel(Cancel),
}

impl FlightCommand {
    /// The command's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Schedule(_) => Schedule::NAME,
            Self::Depart(_) => Depart::NAME,
            Self::Arrive(_) => Arrive::NAME,
            Self::Cancel(_) => Cancel::NAME,
        }
    }

    /// The command's id, `<flight>/<name>`: each of them happens to a flight at most once.
    pub fn command_id(&self, flight: &FlightId) -> CommandId {
        match CommandId::from_caller(&format!("{flight}/{}", self.name())) {
            Ok(id) => id,
            Err(error) => unreachable!("a flight's id and a command's name are short and plain: {error}"),
        }
    }

    /// The command's fields alone, as the rule reads them.
    pub fn body(&self) -> Result<Json, serde_json::Error> {
        Json::from_value(self)
    }

    /// The request that asks for the command: the flight's id and the command's fields.
    pub fn request(&self, flight: &FlightId) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            id: String,
            #[serde(flatten)]
            command: &'a FlightCommand,
        }
        serde_json::to_vec(&Request { id: flight.to_string(), command: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::fixture::time;

    #[test]
    fn requests_and_ids_are_always_the_same() {
        let flight: FlightId = "EWR-20130101-UA1545".parse().unwrap();
        let depart = FlightCommand::Depart(Depart { at: time("2013-01-01T05:17") });
        assert_eq!(depart.command_id(&flight).as_str(), "EWR-20130101-UA1545/depart");
        assert_eq!(depart.request(&flight).unwrap(), br#"{"id":"EWR-20130101-UA1545","at":"2013-01-01T05:17"}"#);
        assert_eq!(depart.body().unwrap().as_str(), r#"{"at":"2013-01-01T05:17"}"#);
        let cancel = FlightCommand::Cancel(Cancel {});
        assert_eq!(cancel.command_id(&flight).as_str(), "EWR-20130101-UA1545/cancel");
        assert_eq!(cancel.request(&flight).unwrap(), br#"{"id":"EWR-20130101-UA1545"}"#);
        assert_eq!(cancel.body().unwrap().as_str(), "{}");
    }
}
