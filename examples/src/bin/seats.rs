//! A whole service: seats that one passenger at a time has. Which site a seat belongs to is the start of its id.
//!
//! ```sh
//! nats-server -js &
//! FREEHOLD_SITE=ewr FREEHOLD_INSTANCE=one cargo run --package freehold-examples --bin seats
//! nats req freehold.seat.book '{"id":"ewr-12A","passenger":"Ada"}'
//! nats req freehold.seat.get '{"id":"ewr-12A"}'
//! ```

use freehold::prelude::{Command, DecisionContext, Kind, Never, Record, Rejection, Service, ServiceConfig, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A seat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seat {
    /// Who has it.
    pub passenger: Option<String>,
}

impl Record for Seat {
    const KIND: &'static str = "seat";
}

/// Takes a seat.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// For whom.
    pub passenger: String,
}

/// Somebody else has the seat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{passenger} has this seat")]
pub struct Taken {
    passenger: String,
}

impl Rejection for Taken {
    fn code(&self) -> &'static str {
        "taken"
    }
}

impl Command for Book {
    const NAME: &'static str = "book";
    type Record = Seat;
    type Reply = Seat;
    type Rejection = Taken;

    fn decide(self, seat: Option<Seat>, _: &DecisionContext<'_>) -> Verdict<Self> {
        match seat.and_then(|seat| seat.passenger) {
            Some(passenger) if passenger != self.passenger => Verdict::reject(Taken { passenger }),
            _ => {
                let seat = Seat { passenger: Some(self.passenger) };
                Verdict::accept(seat.clone(), seat)
            }
        }
    }
}

/// Gives a seat back.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {}

impl Command for Release {
    const NAME: &'static str = "release";
    type Record = Seat;
    type Reply = Seat;
    type Rejection = Never;

    fn decide(self, _: Option<Seat>, _: &DecisionContext<'_>) -> Verdict<Self> {
        Verdict::accept(Seat::default(), Seat::default())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = ServiceConfig::from_environment()?;
    Service::builder("seats", config).kind(Kind::<Seat>::new().command::<Book>().command::<Release>()).run().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use freehold::core::{given, given_nothing};

    use super::*;

    fn seat_of(passenger: &str) -> Seat {
        Seat { passenger: Some(passenger.to_owned()) }
    }

    #[test]
    fn a_free_seat_is_booked() {
        given_nothing().when(Book { passenger: "Ada".to_owned() }).then(seat_of("Ada"));
    }

    #[test]
    fn a_taken_seat_is_not() {
        let taken = Taken { passenger: "Ada".to_owned() };
        given(seat_of("Ada")).when(Book { passenger: "Bo".to_owned() }).then_rejected(taken);
    }
}
