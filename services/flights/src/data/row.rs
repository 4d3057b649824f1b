//! One row of the data set: what was planned for a flight and what came of it.

use csv::StringRecord;
use freehold::prelude::SiteName;
use jiff::civil::Date;

use super::command::FlightCommand;
use super::error::RowError;
use crate::arrive::Arrive;
use crate::cancel::Cancel;
use crate::code::{Airport, TailNumber};
use crate::depart::Depart;
use crate::flight::{Arrival, Departure, Flight, FlightStatus};
use crate::flight_id::{FlightId, FlightNumber};
use crate::local_time::LocalTime;
use crate::quantity::{Miles, Minutes};
use crate::schedule::Schedule;

/// When something happened, said twice by the data: as a clock and as a delay. Both were compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// The airport's clock.
    pub at: LocalTime,
    /// The delay column.
    pub delay_minutes: Minutes,
}

/// An arrival at the destination that was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    /// When.
    pub movement: Movement,
    /// Minutes in the air.
    pub air_minutes: Minutes,
}

/// One flight of the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightRow {
    /// Its id.
    pub id: FlightId,
    /// Where it goes.
    pub destination: Airport,
    /// The aircraft, where the data knows it.
    pub tail_number: Option<TailNumber>,
    /// How far the airports are apart.
    pub distance_miles: Miles,
    /// When it should leave, by the origin's clock.
    pub scheduled_departure: LocalTime,
    /// When it should arrive, by the destination's clock. The data has no day for it: it is the first time after the
    /// departure that the clock shows so (the longest planned flight takes 6:40 by the clocks).
    pub scheduled_arrival: LocalTime,
    /// How it left; nothing where it was cancelled.
    pub departure: Option<Movement>,
    /// How it arrived; nothing where it was cancelled or diverted.
    pub landing: Option<Landing>,
}

impl FlightRow {
    /// The site that owns the flight.
    pub fn home(&self) -> SiteName {
        self.id.home()
    }

    /// What happened to the flight, in order: `schedule`, then `depart` and `arrive` as far as it came, or `cancel`. A
    /// diverted flight departs and never arrives at its destination.
    pub fn commands(&self) -> Vec<FlightCommand> {
        let mut commands = vec![FlightCommand::Schedule(Schedule {
            destination: self.destination.clone(),
            departure: self.scheduled_departure,
            arrival: self.scheduled_arrival,
            distance_miles: self.distance_miles,
            tail_number: self.tail_number.clone(),
        })];
        match &self.departure {
            Some(departure) => commands.push(FlightCommand::Depart(Depart { at: departure.at })),
            None => commands.push(FlightCommand::Cancel(Cancel {})),
        }
        if let Some(Landing { movement, air_minutes }) = &self.landing {
            commands.push(FlightCommand::Arrive(Arrive { at: movement.at, air_minutes: *air_minutes }));
        }
        commands
    }

    /// The record that the commands must end in, taken from the row alone and not from the rules.
    pub fn expected(&self) -> Flight {
        let status = match (&self.departure, &self.landing) {
            (None, _) => FlightStatus::Cancelled,
            (Some(_), None) => FlightStatus::Departed,
            (Some(_), Some(_)) => FlightStatus::Arrived,
        };
        let departure = self
            .departure
            .as_ref()
            .map(|Movement { at, delay_minutes }| Departure { at: *at, delay_minutes: *delay_minutes });
        let arrival = self.landing.as_ref().map(|Landing { movement: Movement { at, delay_minutes }, air_minutes }| {
            Arrival { at: *at, delay_minutes: *delay_minutes, air_minutes: *air_minutes }
        });
        Flight {
            status,
            carrier: self.id.carrier.clone(),
            number: self.id.number,
            origin: self.id.origin.clone(),
            destination: self.destination.clone(),
            tail_number: self.tail_number.clone(),
            distance_miles: self.distance_miles,
            scheduled_departure: self.scheduled_departure,
            scheduled_arrival: self.scheduled_arrival,
            departure,
            arrival,
        }
    }
}

/// Where the columns of the data set stand in a file. Others may be there too.
#[derive(Debug)]
pub(super) struct Columns {
    year: Column,
    month: Column,
    day: Column,
    departure: Column,
    scheduled_departure: Column,
    departure_delay: Column,
    arrival: Column,
    scheduled_arrival: Column,
    arrival_delay: Column,
    carrier: Column,
    number: Column,
    tail_number: Column,
    origin: Column,
    destination: Column,
    air: Column,
    distance: Column,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    name: &'static str,
    index: usize,
}

impl Columns {
    pub(super) fn of_header(header: &StringRecord) -> Result<Self, RowError> {
        let find = |name: &'static str| match header.iter().position(|title| title == name) {
            Some(index) => Ok(Column { name, index }),
            None => Err(RowError::MissingColumn { column: name }),
        };
        Ok(Self {
            year: find("year")?,
            month: find("month")?,
            day: find("day")?,
            departure: find("dep_time")?,
            scheduled_departure: find("sched_dep_time")?,
            departure_delay: find("dep_delay")?,
            arrival: find("arr_time")?,
            scheduled_arrival: find("sched_arr_time")?,
            arrival_delay: find("arr_delay")?,
            carrier: find("carrier")?,
            number: find("flight")?,
            tail_number: find("tailnum")?,
            origin: find("origin")?,
            destination: find("dest")?,
            air: find("air_time")?,
            distance: find("distance")?,
        })
    }

    /// Reads a row that has as many fields as the header.
    pub(super) fn read(&self, row: &StringRecord) -> Result<FlightRow, RowError> {
        let date = self.date(row)?;
        let number: u16 = value(row, self.number, "a flight number from 1 to 9999")?;
        let id = FlightId {
            origin: value(row, self.origin, AIRPORT)?,
            date,
            carrier: value(row, self.carrier, "a carrier: two of A-Z and 0-9")?,
            number: FlightNumber::try_from(number)
                .map_err(|_| unfit(row, self.number, "a flight number from 1 to 9999"))?,
        };
        let scheduled_departure = self.scheduled(row, self.scheduled_departure, date)?;
        let mut scheduled_arrival = self.scheduled(row, self.scheduled_arrival, date)?;
        if scheduled_arrival < scheduled_departure {
            scheduled_arrival = scheduled_arrival.plus(DAY).ok_or_else(|| unfit(row, self.year, YEAR))?;
        }
        let departure = match optional(row, self.departure) {
            None => None,
            Some(_) => {
                if optional(row, self.departure_delay).is_none() {
                    return Err(incomplete(self.departure_delay, "the flight departed"));
                }
                Some(movement(row, self.departure, self.departure_delay, scheduled_departure)?)
            }
        };
        let landing = self.landing(row, scheduled_arrival)?;
        if landing.is_some() && departure.is_none() {
            return Err(incomplete(self.departure, "the flight arrived"));
        }
        let tail_number = match optional(row, self.tail_number) {
            None => None,
            Some(_) => Some(value(row, self.tail_number, "a tail number: 2 to 10 of A-Z, 0-9 and -")?),
        };
        Ok(FlightRow {
            id,
            destination: value(row, self.destination, AIRPORT)?,
            tail_number,
            distance_miles: Miles(value(row, self.distance, "a number of miles")?),
            scheduled_departure,
            scheduled_arrival,
            departure,
            landing,
        })
    }

    fn date(&self, row: &StringRecord) -> Result<Date, RowError> {
        let year = value(row, self.year, YEAR)?;
        if !(0..=9999).contains(&year) {
            return Err(unfit(row, self.year, YEAR));
        }
        Date::new(year, value(row, self.month, "a month")?, value(row, self.day, "a day of a month")?)
            .map_err(|_| unfit(row, self.day, "a day of that month"))
    }

    fn scheduled(&self, row: &StringRecord, column: Column, date: Date) -> Result<LocalTime, RowError> {
        let midnight = LocalTime::new(date, 0, 0).map_err(|_| unfit(row, self.year, YEAR))?;
        midnight.plus(clock(row, column)?).ok_or_else(|| unfit(row, self.year, YEAR))
    }

    /// The arrival at the planned destination. A row of a diverted flight may have an arrival time too, of wherever and
    /// whenever its journey ended; but it has neither delay nor air time.
    fn landing(&self, row: &StringRecord, scheduled_arrival: LocalTime) -> Result<Option<Landing>, RowError> {
        match (optional(row, self.arrival_delay), optional(row, self.air)) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(incomplete(self.air, "the flight arrived")),
            (None, Some(_)) => Err(incomplete(self.arrival_delay, "the flight arrived")),
            (Some(_), Some(_)) => Ok(Some(Landing {
                movement: movement(row, self.arrival, self.arrival_delay, scheduled_arrival)?,
                air_minutes: Minutes(value(row, self.air, MINUTES)?),
            })),
        }
    }
}

const AIRPORT: &str = "an airport: three letters A-Z";
const MINUTES: &str = "a number of minutes";
const CLOCK: &str = "a clock's hours and minutes from 0 to 2400";
const YEAR: &str = "a year from 0 to 9999 in which the flight ends";
const DAY: Minutes = Minutes(24 * 60);
/// The longest beginning of a bad value that an error shows.
const MAX_SHOWN_CHARS: usize = 40;

fn text(row: &StringRecord, column: Column) -> &str {
    row.get(column.index).unwrap_or_default()
}

/// The data set writes `NA` for what is not known.
fn optional(row: &StringRecord, column: Column) -> Option<&str> {
    Some(text(row, column)).filter(|text| !matches!(*text, "" | "NA"))
}

fn value<T: std::str::FromStr>(row: &StringRecord, column: Column, expected: &'static str) -> Result<T, RowError> {
    text(row, column).parse().map_err(|_| unfit(row, column, expected))
}

/// Minutes since midnight. The data set writes midnight as 2400 where a day ends with it.
fn clock(row: &StringRecord, column: Column) -> Result<Minutes, RowError> {
    let hours_and_minutes: i64 = value(row, column, CLOCK)?;
    let (hours, minutes) = (hours_and_minutes / 100, hours_and_minutes % 100);
    if !(0..=2400).contains(&hours_and_minutes) || minutes > 59 {
        return Err(unfit(row, column, CLOCK));
    }
    Ok(Minutes(hours * 60 + minutes))
}

fn movement(row: &StringRecord, at: Column, delay: Column, scheduled: LocalTime) -> Result<Movement, RowError> {
    let delay_minutes = Minutes(value(row, delay, MINUTES)?);
    let clock = clock(row, at)?;
    let disagree =
        || RowError::ClockAndDelay { column: at.name, clock: text(row, at).to_owned(), delay_minutes: delay_minutes.0 };
    // The clock has no day, the delay says which: both must then tell the same minute.
    let day = scheduled.plus(delay_minutes).ok_or_else(disagree)?.date();
    let at = LocalTime::new(day, 0, 0).ok().and_then(|day| day.plus(Minutes(clock.0 % DAY.0))).ok_or_else(disagree)?;
    if at.since(scheduled) != delay_minutes {
        return Err(disagree());
    }
    Ok(Movement { at, delay_minutes })
}

fn unfit(row: &StringRecord, column: Column, expected: &'static str) -> RowError {
    let value = text(row, column).chars().take(MAX_SHOWN_CHARS).collect();
    RowError::Value { column: column.name, value, expected }
}

fn incomplete(column: Column, reason: &'static str) -> RowError {
    RowError::Incomplete { column: column.name, reason }
}
