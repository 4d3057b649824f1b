//! The record. Stored and sent: the names of its fields are append-only.

use freehold::prelude::Record;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::code::{Airport, Carrier, TailNumber};
use crate::flight_id::FlightNumber;
use crate::local_time::LocalTime;
use crate::quantity::{Miles, Minutes};

/// How far a flight has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlightStatus {
    /// Planned, still at the gate.
    Scheduled,
    /// In the air. Flights that were diverted end here.
    Departed,
    /// At its destination.
    Arrived,
    /// It will never depart.
    Cancelled,
}

/// How a flight left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Departure {
    /// When, by the origin's clock.
    pub at: LocalTime,
    /// Minutes behind the schedule; less than 0 where it was early.
    pub delay_minutes: Minutes,
}

/// How a flight arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Arrival {
    /// When, by the destination's clock.
    pub at: LocalTime,
    /// Minutes behind the schedule; less than 0 where it was early.
    pub delay_minutes: Minutes,
    /// Minutes between take-off and landing.
    pub air_minutes: Minutes,
}

/// One flight of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flight {
    /// How far it has come.
    pub status: FlightStatus,
    /// Who flies it.
    pub carrier: Carrier,
    /// The carrier's number for it.
    pub number: FlightNumber,
    /// Where it starts.
    pub origin: Airport,
    /// Where it goes.
    pub destination: Airport,
    /// The aircraft, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_number: Option<TailNumber>,
    /// How far the airports are apart.
    pub distance_miles: Miles,
    /// When it should leave, by the origin's clock.
    pub scheduled_departure: LocalTime,
    /// When it should arrive, by the destination's clock.
    pub scheduled_arrival: LocalTime,
    /// How it left; there from `departed` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub departure: Option<Departure>,
    /// How it arrived; there when it is `arrived`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
}

impl Record for Flight {
    const KIND: &'static str = "flight";
}

#[cfg(test)]
pub(crate) mod fixture {
    //! One flight in each of its states, for the tests of the commands.

    use super::*;

    /// The id of the flight below.
    pub(crate) const ID: &str = "EWR-20130101-UA1545";

    pub(crate) fn time(text: &str) -> LocalTime {
        text.parse().unwrap()
    }

    pub(crate) fn scheduled() -> Flight {
        Flight {
            status: FlightStatus::Scheduled,
            carrier: "UA".parse().unwrap(),
            number: 1545.try_into().unwrap(),
            origin: "EWR".parse().unwrap(),
            destination: "IAH".parse().unwrap(),
            tail_number: Some("N14228".parse().unwrap()),
            distance_miles: Miles(1400),
            scheduled_departure: time("2013-01-01T05:15"),
            scheduled_arrival: time("2013-01-01T08:19"),
            departure: None,
            arrival: None,
        }
    }

    pub(crate) fn departed() -> Flight {
        let departure = Departure { at: time("2013-01-01T05:17"), delay_minutes: Minutes(2) };
        Flight { status: FlightStatus::Departed, departure: Some(departure), ..scheduled() }
    }

    pub(crate) fn arrived() -> Flight {
        let arrival = Arrival { at: time("2013-01-01T08:30"), delay_minutes: Minutes(11), air_minutes: Minutes(227) };
        Flight { status: FlightStatus::Arrived, arrival: Some(arrival), ..departed() }
    }

    pub(crate) fn cancelled() -> Flight {
        Flight { status: FlightStatus::Cancelled, ..scheduled() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_frozen() {
        let stored = concat!(
            r#"{"status":"arrived","carrier":"UA","number":1545,"origin":"EWR","destination":"IAH","#,
            r#""tail_number":"N14228","distance_miles":1400,"scheduled_departure":"2013-01-01T05:15","#,
            r#""scheduled_arrival":"2013-01-01T08:19","departure":{"at":"2013-01-01T05:17","delay_minutes":2},"#,
            r#""arrival":{"at":"2013-01-01T08:30","delay_minutes":11,"air_minutes":227}}"#,
        );
        assert_eq!(serde_json::to_string(&fixture::arrived()).unwrap(), stored);
        assert_eq!(serde_json::from_str::<Flight>(stored).unwrap(), fixture::arrived());
        for flight in [fixture::scheduled(), fixture::departed(), fixture::cancelled()] {
            let text = serde_json::to_string(&flight).unwrap();
            assert_eq!(serde_json::from_str::<Flight>(&text).unwrap(), flight);
        }
    }
}
