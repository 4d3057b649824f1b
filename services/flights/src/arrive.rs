//! `arrive`: a flight reaches its destination.

use freehold::prelude::{Command, DecisionContext, Rejection, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flight::{Arrival, Departure, Flight, FlightStatus};
use crate::local_time::{LocalTime, WIDEST_ZONE_GAP};
use crate::quantity::Minutes;
use crate::reply::FlightReply;

/// Says that a flight arrived. The delay follows from the schedule and is not said again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arrive {
    /// When, by the destination's clock.
    pub at: LocalTime,
    /// Minutes between take-off and landing.
    pub air_minutes: Minutes,
}

/// Why an arrival is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)] // The code is told beside it: see `freehold_core::rejected`.
pub enum ArriveRejected {
    /// There is no such flight.
    #[error("the flight is not scheduled")]
    NotScheduled,
    /// It was cancelled.
    #[error("the flight is cancelled")]
    Cancelled,
    /// It is still at its gate.
    #[error("the flight has not departed")]
    NotDeparted,
    /// It arrived before.
    #[error("the flight has arrived already")]
    AlreadyArrived {
        /// How it arrived.
        arrival: Option<Arrival>,
    },
    /// It was not in the air.
    #[error("the flight was in the air for {air_minutes}: it must be at least one minute")]
    NeverInTheAir {
        /// The time in the air that the caller says.
        air_minutes: Minutes,
    },
    /// Between departure and arrival there is less time than it says to have been in the air, whatever the time zones.
    #[error(
        "the flight departed at {departed_at}: it cannot have arrived at {arrived_at} after {air_minutes} in the air"
    )]
    TooSoon {
        /// When it left, by the origin's clock.
        departed_at: LocalTime,
        /// When it arrived, by the destination's clock.
        arrived_at: LocalTime,
        /// The time in the air that the caller says.
        air_minutes: Minutes,
    },
}

impl Rejection for ArriveRejected {
    fn code(&self) -> &'static str {
        match self {
            Self::NotScheduled => "not_scheduled",
            Self::Cancelled => "cancelled",
            Self::NotDeparted => "not_departed",
            Self::AlreadyArrived { .. } => "already_arrived",
            Self::NeverInTheAir { .. } => "never_in_the_air",
            Self::TooSoon { .. } => "too_soon",
        }
    }
}

impl Command for Arrive {
    const NAME: &'static str = "arrive";
    type Record = Flight;
    type Reply = FlightReply;
    type Rejection = ArriveRejected;

    fn decide(self, record: Option<Flight>, _: &DecisionContext<'_>) -> Verdict<Self> {
        let Some(flight) = record else {
            return Verdict::reject(ArriveRejected::NotScheduled);
        };
        let departed_at = match (flight.status, &flight.departure) {
            (FlightStatus::Cancelled, _) => return Verdict::reject(ArriveRejected::Cancelled),
            (FlightStatus::Arrived, _) => {
                return Verdict::reject(ArriveRejected::AlreadyArrived { arrival: flight.arrival });
            }
            (FlightStatus::Departed, Some(Departure { at, .. })) => *at,
            (FlightStatus::Scheduled | FlightStatus::Departed, _) => {
                return Verdict::reject(ArriveRejected::NotDeparted);
            }
        };
        let Self { at: arrived_at, air_minutes } = self;
        if air_minutes < Minutes(1) {
            return Verdict::reject(ArriveRejected::NeverInTheAir { air_minutes });
        }
        let most_elapsed = Minutes(arrived_at.since(departed_at).0 + WIDEST_ZONE_GAP.0);
        if most_elapsed < air_minutes {
            return Verdict::reject(ArriveRejected::TooSoon { departed_at, arrived_at, air_minutes });
        }
        let delay_minutes = arrived_at.since(flight.scheduled_arrival);
        let status = FlightStatus::Arrived;
        let arrival = Some(Arrival { at: arrived_at, delay_minutes, air_minutes });
        Verdict::accept(Flight { status, arrival, ..flight }, FlightReply::delayed(status, delay_minutes))
    }
}

#[cfg(test)]
mod tests {
    use freehold::core::{given, given_nothing};

    use super::*;
    use crate::flight::fixture::{ID, arrived, cancelled, departed, scheduled, time};

    fn arrive() -> Arrive {
        Arrive { at: time("2013-01-01T08:30"), air_minutes: Minutes(227) }
    }

    #[test]
    fn a_departed_flight_arrives() {
        given(departed()).with_id(ID).when(arrive()).then(arrived());
    }

    #[test]
    fn the_reply_tells_the_delay() {
        let (_, reply) = given(departed()).when(arrive()).verdict().accepted().unwrap();
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"status":"arrived","delay_minutes":11}"#);
    }

    #[test]
    fn nothing_arrives_that_is_not_scheduled() {
        given_nothing().with_id(ID).when(arrive()).then_rejected(ArriveRejected::NotScheduled);
    }

    #[test]
    fn a_cancelled_flight_does_not_arrive() {
        given(cancelled()).when(arrive()).then_rejected(ArriveRejected::Cancelled);
    }

    #[test]
    fn nothing_arrives_that_has_not_departed() {
        given(scheduled()).when(arrive()).then_rejected(ArriveRejected::NotDeparted);
    }

    #[test]
    fn a_departure_without_its_time_counts_as_none() {
        given(Flight { departure: None, ..departed() }).when(arrive()).then_rejected(ArriveRejected::NotDeparted);
    }

    #[test]
    fn a_flight_arrives_once() {
        let arrival = arrived().arrival;
        given(arrived()).when(arrive()).then_rejected(ArriveRejected::AlreadyArrived { arrival });
    }

    #[test]
    fn a_flight_was_in_the_air() {
        for air_minutes in [Minutes(0), Minutes(-1), Minutes(i64::MIN)] {
            let command = Arrive { air_minutes, ..arrive() };
            given(departed()).when(command).then_rejected(ArriveRejected::NeverInTheAir { air_minutes });
        }
    }

    #[test]
    fn nothing_arrives_sooner_than_it_can_have_flown_in_any_time_zones() {
        let departed_at = time("2013-01-01T05:17");
        // 26 hours between the clocks, 227 minutes in the air: the earliest clock time is 2012-12-31T07:04.
        let first = time("2012-12-31T07:04");
        let delay_minutes = first.since(scheduled().scheduled_arrival);
        let arrival = Some(Arrival { at: first, delay_minutes, air_minutes: Minutes(227) });
        given(departed()).when(Arrive { at: first, ..arrive() }).then(Flight { arrival, ..arrived() });

        for (arrived_at, air_minutes) in [
            (time("2012-12-31T07:03"), Minutes(227)),
            (time("2012-01-01T08:30"), Minutes(1)),
            (time("2013-01-01T08:30"), Minutes(i64::MAX)),
        ] {
            given(departed()).when(Arrive { at: arrived_at, air_minutes }).then_rejected(ArriveRejected::TooSoon {
                departed_at,
                arrived_at,
                air_minutes,
            });
        }
    }
}
