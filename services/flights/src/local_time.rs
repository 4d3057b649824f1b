//! Times as the wall clock of an airport shows them.
//!
//! The data set has no time zone of the destination, so none is invented here: times of one airport can be subtracted,
//! times of two airports are apart by an unknown gap that [`WIDEST_ZONE_GAP`] bounds.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use serde::{Deserialize, Serialize};

use crate::quantity::Minutes;

/// The most that two wall clocks on Earth can be apart: UTC−12 to UTC+14.
pub(crate) const WIDEST_ZONE_GAP: Minutes = Minutes(26 * 60);

/// Why a text is not a local time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a local time: a real day and minute, written like 2013-01-01T05:17")]
pub struct LocalTimeError;

/// A day and a minute of the wall clock at an airport, written `2013-01-01T05:17`. It has one spelling, so that times
/// that are equal are equal as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LocalTime(DateTime);

impl LocalTime {
    /// A minute of a day.
    pub fn new(date: Date, hour: i8, minute: i8) -> Result<Self, LocalTimeError> {
        let written_with_four_digits = (0..=9999).contains(&date.year());
        match Time::new(hour, minute, 0, 0) {
            Ok(time) if written_with_four_digits => Ok(Self(DateTime::from_parts(date, time))),
            _ => Err(LocalTimeError),
        }
    }

    /// The day.
    pub fn date(self) -> Date {
        self.0.date()
    }

    /// Minutes from an earlier time on the same clock; less than 0 where the other is later.
    pub fn since(self, earlier: Self) -> Minutes {
        Minutes(self.0.duration_since(earlier.0).as_mins())
    }

    /// The time that many minutes later; nothing beyond the year 9999.
    pub fn plus(self, minutes: Minutes) -> Option<Self> {
        let seconds = minutes.0.checked_mul(60)?;
        let moved = self.0.checked_add(SignedDuration::from_secs(seconds)).ok()?;
        (0..=9999).contains(&moved.year()).then_some(Self(moved))
    }
}

impl FromStr for LocalTime {
    type Err = LocalTimeError;

    fn from_str(text: &str) -> Result<Self, LocalTimeError> {
        let layout = b"dddd-dd-ddTdd:dd";
        let fits = text.len() == layout.len()
            && text.bytes().zip(layout).all(|(byte, place)| match place {
                b'd' => byte.is_ascii_digit(),
                fixed => byte == *fixed,
            });
        if !fits {
            return Err(LocalTimeError);
        }
        let number = |from: usize, to: usize| text[from..to].parse::<i16>().map_err(|_| LocalTimeError);
        let two_digits = |from: usize| text[from..from + 2].parse::<i8>().map_err(|_| LocalTimeError);
        let date = Date::new(number(0, 4)?, two_digits(5)?, two_digits(8)?).map_err(|_| LocalTimeError)?;
        Self::new(date, two_digits(11)?, two_digits(14)?)
    }
}

impl TryFrom<String> for LocalTime {
    type Error = LocalTimeError;

    fn try_from(text: String) -> Result<Self, LocalTimeError> {
        text.parse()
    }
}

impl From<LocalTime> for String {
    fn from(time: LocalTime) -> String {
        time.to_string()
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DateParts { year, month, day } = DateParts::of(self.0.date());
        write!(formatter, "{year:04}-{month:02}-{day:02}T{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

impl fmt::Debug for LocalTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl schemars::JsonSchema for LocalTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LocalTime".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}$",
            "description": "Wall clock at the airport, such as 2013-01-01T05:17",
        })
    }
}

/// The numbers of a date, for printing.
struct DateParts {
    year: i16,
    month: i8,
    day: i8,
}

impl DateParts {
    fn of(date: Date) -> Self {
        Self { year: date.year(), month: date.month(), day: date.day() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_spelling() {
        for good in ["2013-01-01T05:17", "0000-01-01T00:00", "9999-12-31T23:59", "2012-02-29T12:00"] {
            assert_eq!(good.parse::<LocalTime>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "2013-01-01",
            "2013-01-01T24:00",
            "2013-01-01T05:60",
            "2013-02-29T05:17",
            "2013-13-01T05:17",
            "2013-01-01 05:17",
            "2013-01-01T05:17Z",
            "2013-01-01T05:17:00",
            "2013-1-1T5:17",
            "+013-01-01T05:17",
            "2013-01-01T05:1é",
        ] {
            assert_eq!(bad.parse::<LocalTime>(), Err(LocalTimeError), "{bad:?}");
        }
    }

    #[test]
    fn minutes_are_counted_over_midnight_and_years() {
        let late: LocalTime = "2013-12-31T23:50".parse().unwrap();
        let early: LocalTime = "2014-01-01T00:05".parse().unwrap();
        assert_eq!(early.since(late), Minutes(15));
        assert_eq!(late.since(early), Minutes(-15));
        assert_eq!(late.plus(Minutes(15)), Some(early));
        assert_eq!(early.plus(Minutes(-15)), Some(late));
        let last: LocalTime = "9999-12-31T23:59".parse().unwrap();
        assert_eq!(last.plus(Minutes(1)), None);
        assert_eq!(last.plus(Minutes(i64::MAX)), None);
        let first: LocalTime = "0000-01-01T00:00".parse().unwrap();
        assert_eq!(first.plus(Minutes(-1)), None, "a year below 0 has no spelling");
    }
}
