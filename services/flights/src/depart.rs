//! `depart`: a flight leaves its gate.

use freehold::prelude::{Command, DecisionContext, Rejection, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flight::{Departure, Flight, FlightStatus};
use crate::local_time::LocalTime;
use crate::reply::FlightReply;

/// Says that a flight left. The delay follows from the schedule and is not said again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Depart {
    /// When, by the origin's clock.
    pub at: LocalTime,
}

/// Why a departure is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)] // The code is told beside it: see `freehold_core::rejected`.
pub enum DepartRejected {
    /// There is no such flight.
    #[error("the flight is not scheduled")]
    NotScheduled,
    /// It was cancelled.
    #[error("the flight is cancelled")]
    Cancelled,
    /// It left before.
    #[error("the flight has departed already")]
    AlreadyDeparted {
        /// How it left.
        departure: Option<Departure>,
    },
}

impl Rejection for DepartRejected {
    fn code(&self) -> &'static str {
        match self {
            Self::NotScheduled => "not_scheduled",
            Self::Cancelled => "cancelled",
            Self::AlreadyDeparted { .. } => "already_departed",
        }
    }
}

impl Command for Depart {
    const NAME: &'static str = "depart";
    type Record = Flight;
    type Reply = FlightReply;
    type Rejection = DepartRejected;

    fn decide(self, record: Option<Flight>, _: &DecisionContext<'_>) -> Verdict<Self> {
        let Some(flight) = record else {
            return Verdict::reject(DepartRejected::NotScheduled);
        };
        match flight.status {
            FlightStatus::Scheduled => {}
            FlightStatus::Cancelled => return Verdict::reject(DepartRejected::Cancelled),
            FlightStatus::Departed | FlightStatus::Arrived => {
                return Verdict::reject(DepartRejected::AlreadyDeparted { departure: flight.departure });
            }
        }
        let delay_minutes = self.at.since(flight.scheduled_departure);
        let status = FlightStatus::Departed;
        let departure = Some(Departure { at: self.at, delay_minutes });
        Verdict::accept(Flight { status, departure, ..flight }, FlightReply::delayed(status, delay_minutes))
    }
}

#[cfg(test)]
mod tests {
    use freehold::core::{given, given_nothing};

    use super::*;
    use crate::flight::fixture::{ID, arrived, cancelled, departed, scheduled, time};
    use crate::quantity::Minutes;

    fn depart() -> Depart {
        Depart { at: time("2013-01-01T05:17") }
    }

    #[test]
    fn a_scheduled_flight_departs() {
        given(scheduled()).with_id(ID).when(depart()).then(departed());
    }

    #[test]
    fn the_reply_tells_the_delay() {
        let (_, reply) = given(scheduled()).when(depart()).verdict().accepted().unwrap();
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"status":"departed","delay_minutes":2}"#);
    }

    #[test]
    fn an_early_departure_has_a_delay_below_zero() {
        let at = time("2012-12-31T23:59");
        let departure = Some(Departure { at, delay_minutes: Minutes(-316) });
        given(scheduled()).when(Depart { at }).then(Flight { departure, ..departed() });
    }

    #[test]
    fn nothing_departs_that_is_not_scheduled() {
        given_nothing().with_id(ID).when(depart()).then_rejected(DepartRejected::NotScheduled);
    }

    #[test]
    fn a_cancelled_flight_does_not_depart() {
        given(cancelled()).when(depart()).then_rejected(DepartRejected::Cancelled);
    }

    #[test]
    fn a_flight_departs_once() {
        for flight in [departed(), arrived()] {
            let departure = departed().departure;
            given(flight).when(depart()).then_rejected(DepartRejected::AlreadyDeparted { departure });
        }
    }
}
