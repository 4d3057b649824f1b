//! `cancel`: a flight will never depart.

use freehold::prelude::{Command, DecisionContext, Rejection, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flight::{Departure, Flight, FlightStatus};
use crate::reply::FlightReply;

/// Cancels a flight that has not departed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {}

/// Why a flight is not cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)] // The code is told beside it: see `freehold_core::rejected`.
pub enum CancelRejected {
    /// There is no such flight.
    #[error("the flight is not scheduled")]
    NotScheduled,
    /// It is cancelled.
    #[error("the flight is cancelled already")]
    AlreadyCancelled,
    /// It has left.
    #[error("the flight has departed")]
    AlreadyDeparted {
        /// How it left.
        departure: Option<Departure>,
    },
}

impl Rejection for CancelRejected {
    fn code(&self) -> &'static str {
        match self {
            Self::NotScheduled => "not_scheduled",
            Self::AlreadyCancelled => "already_cancelled",
            Self::AlreadyDeparted { .. } => "already_departed",
        }
    }
}

impl Command for Cancel {
    const NAME: &'static str = "cancel";
    type Record = Flight;
    type Reply = FlightReply;
    type Rejection = CancelRejected;

    fn decide(self, record: Option<Flight>, _: &DecisionContext<'_>) -> Verdict<Self> {
        let Some(flight) = record else {
            return Verdict::reject(CancelRejected::NotScheduled);
        };
        match flight.status {
            FlightStatus::Scheduled => {
                let status = FlightStatus::Cancelled;
                Verdict::accept(Flight { status, ..flight }, FlightReply::new(status))
            }
            FlightStatus::Cancelled => Verdict::reject(CancelRejected::AlreadyCancelled),
            FlightStatus::Departed | FlightStatus::Arrived => {
                Verdict::reject(CancelRejected::AlreadyDeparted { departure: flight.departure })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use freehold::core::{given, given_nothing};

    use super::*;
    use crate::flight::fixture::{ID, arrived, cancelled, departed, scheduled};

    #[test]
    fn a_scheduled_flight_is_cancelled() {
        given(scheduled()).with_id(ID).when(Cancel {}).then(cancelled());
    }

    #[test]
    fn the_reply_tells_the_status() {
        let (_, reply) = given(scheduled()).when(Cancel {}).verdict().accepted().unwrap();
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"status":"cancelled"}"#);
    }

    #[test]
    fn nothing_is_cancelled_that_is_not_scheduled() {
        given_nothing().with_id(ID).when(Cancel {}).then_rejected(CancelRejected::NotScheduled);
    }

    #[test]
    fn a_flight_is_cancelled_once() {
        given(cancelled()).when(Cancel {}).then_rejected(CancelRejected::AlreadyCancelled);
    }

    #[test]
    fn a_flight_that_left_is_not_cancelled() {
        for flight in [departed(), arrived()] {
            let departure = departed().departure;
            given(flight).when(Cancel {}).then_rejected(CancelRejected::AlreadyDeparted { departure });
        }
    }
}
