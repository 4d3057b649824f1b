//! `schedule`: a flight comes into being.

use freehold::prelude::{Command, DecisionContext, Rejection, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::code::{Airport, TailNumber};
use crate::flight::{Flight, FlightStatus};
use crate::flight_id::FlightId;
use crate::local_time::{LocalTime, WIDEST_ZONE_GAP};
use crate::quantity::Miles;
use crate::reply::FlightReply;

/// Plans a flight. Origin, carrier and number are in its id and are not said again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Where it goes.
    pub destination: Airport,
    /// When it should leave, by the origin's clock. The day is the one in the id.
    pub departure: LocalTime,
    /// When it should arrive, by the destination's clock.
    pub arrival: LocalTime,
    /// How far the airports are apart.
    pub distance_miles: Miles,
    /// The aircraft, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_number: Option<TailNumber>,
}

/// Why a flight is not scheduled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(untagged)] // The code is told beside it: see `freehold_core::rejected`.
pub enum ScheduleRejected {
    /// The id does not say origin, day, carrier and number.
    #[error("the id does not name a flight: it must look like EWR-20130101-UA1545")]
    MalformedId,
    /// The departure is not on the day that the id names.
    #[error("the flight would depart at {departure}, which is not the day in its id")]
    OtherDay {
        /// The departure asked for.
        departure: LocalTime,
    },
    /// It would land where it starts.
    #[error("the flight's destination {destination} is its origin")]
    DestinationIsOrigin {
        /// The destination asked for.
        destination: Airport,
    },
    /// It would arrive before it departs, whatever the time zones.
    #[error("the flight would arrive at {arrival} and depart at {departure}: no two time zones are that far apart")]
    ArrivalBeforeDeparture {
        /// The departure asked for.
        departure: LocalTime,
        /// The arrival asked for.
        arrival: LocalTime,
    },
    /// The flight exists.
    #[error("the flight is scheduled already")]
    AlreadyScheduled {
        /// How far it has come.
        status: FlightStatus,
    },
}

impl Rejection for ScheduleRejected {
    fn code(&self) -> &'static str {
        match self {
            Self::MalformedId => "malformed_id",
            Self::OtherDay { .. } => "other_day",
            Self::DestinationIsOrigin { .. } => "destination_is_origin",
            Self::ArrivalBeforeDeparture { .. } => "arrival_before_departure",
            Self::AlreadyScheduled { .. } => "already_scheduled",
        }
    }
}

impl Command for Schedule {
    const NAME: &'static str = "schedule";
    type Record = Flight;
    type Reply = FlightReply;
    type Rejection = ScheduleRejected;

    fn decide(self, record: Option<Flight>, context: &DecisionContext<'_>) -> Verdict<Self> {
        if let Some(flight) = record {
            return Verdict::reject(ScheduleRejected::AlreadyScheduled { status: flight.status });
        }
        let Ok(FlightId { origin, date, carrier, number }) = context.id.as_str().parse() else {
            return Verdict::reject(ScheduleRejected::MalformedId);
        };
        let Self { destination, departure, arrival, distance_miles, tail_number } = self;
        if departure.date() != date {
            return Verdict::reject(ScheduleRejected::OtherDay { departure });
        }
        if destination == origin {
            return Verdict::reject(ScheduleRejected::DestinationIsOrigin { destination });
        }
        if departure.since(arrival) >= WIDEST_ZONE_GAP {
            return Verdict::reject(ScheduleRejected::ArrivalBeforeDeparture { departure, arrival });
        }
        let flight = Flight {
            status: FlightStatus::Scheduled,
            carrier,
            number,
            origin,
            destination,
            tail_number,
            distance_miles,
            scheduled_departure: departure,
            scheduled_arrival: arrival,
            departure: None,
            arrival: None,
        };
        Verdict::accept(flight, FlightReply::new(FlightStatus::Scheduled))
    }
}

#[cfg(test)]
mod tests {
    use freehold::core::{given, given_nothing};

    use super::*;
    use crate::flight::fixture::{ID, arrived, cancelled, departed, scheduled, time};

    fn schedule() -> Schedule {
        Schedule {
            destination: "IAH".parse().unwrap(),
            departure: time("2013-01-01T05:15"),
            arrival: time("2013-01-01T08:19"),
            distance_miles: Miles(1400),
            tail_number: Some("N14228".parse().unwrap()),
        }
    }

    #[test]
    fn a_new_flight_is_scheduled() {
        given_nothing().with_id(ID).when(schedule()).then(scheduled());
    }

    #[test]
    fn the_reply_tells_the_status() {
        let (_, reply) = given_nothing().with_id(ID).when(schedule()).verdict().accepted().unwrap();
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"status":"scheduled"}"#);
    }

    #[test]
    fn the_aircraft_may_be_unknown() {
        let command = Schedule { tail_number: None, ..schedule() };
        given_nothing().with_id(ID).when(command).then(Flight { tail_number: None, ..scheduled() });
    }

    #[test]
    fn a_flight_to_the_west_may_arrive_before_it_departed_by_the_clock() {
        let arrival = time("2012-12-31T03:16");
        let command = Schedule { arrival, ..schedule() };
        given_nothing().with_id(ID).when(command).then(Flight { scheduled_arrival: arrival, ..scheduled() });
    }

    #[test]
    fn a_flight_is_scheduled_once_in_its_life() {
        for flight in [scheduled(), departed(), arrived(), cancelled()] {
            let status = flight.status;
            given(flight).with_id(ID).when(schedule()).then_rejected(ScheduleRejected::AlreadyScheduled { status });
        }
    }

    #[test]
    fn the_id_must_name_a_flight() {
        for id in ["EWR", "ewr-1", "EWR-20130101-UA", "EWR-20130101-UA1545 "] {
            given_nothing().with_id(id).when(schedule()).then_rejected(ScheduleRejected::MalformedId);
        }
    }

    #[test]
    fn the_day_must_be_the_one_in_the_id() {
        let departure = time("2013-01-02T05:15");
        let command = Schedule { departure, ..schedule() };
        given_nothing().with_id(ID).when(command).then_rejected(ScheduleRejected::OtherDay { departure });
    }

    #[test]
    fn the_destination_is_another_airport_than_the_origin_in_the_id() {
        let destination: Airport = "EWR".parse().unwrap();
        let command = Schedule { destination: destination.clone(), ..schedule() };
        given_nothing().with_id(ID).when(command).then_rejected(ScheduleRejected::DestinationIsOrigin { destination });
    }

    #[test]
    fn nobody_arrives_before_departing() {
        let (departure, arrival) = (schedule().departure, time("2012-12-31T03:15"));
        let command = Schedule { arrival, ..schedule() };
        given_nothing()
            .with_id(ID)
            .when(command)
            .then_rejected(ScheduleRejected::ArrivalBeforeDeparture { departure, arrival });
    }
}
