//! What identifies a flight, and the site that an id belongs to.

use std::fmt;
use std::str::FromStr;

use freehold::prelude::{RecordId, SiteName};
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::code::{Airport, Carrier};

/// Why a text is not a flight's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a flight's id: origin, day, carrier and number, like EWR-20130101-UA1545")]
pub struct FlightIdError;

/// The number that a carrier gives to a flight: 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u16", into = "u16")]
#[schemars(extend("minimum" = 1, "maximum" = 9999))]
pub struct FlightNumber(u16);

impl FlightNumber {
    /// The number itself.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for FlightNumber {
    type Error = FlightIdError;

    fn try_from(number: u16) -> Result<Self, FlightIdError> {
        (1..=9999).contains(&number).then_some(Self(number)).ok_or(FlightIdError)
    }
}

impl From<FlightNumber> for u16 {
    fn from(number: FlightNumber) -> u16 {
        number.0
    }
}

/// A flight's id, `EWR-20130101-UA1545`: origin, scheduled day at the origin, carrier and number. One spelling only:
/// the number has no leading zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlightId {
    /// Where the flight starts. Its site is the flight's home.
    pub origin: Airport,
    /// The day on which it is scheduled to start, at the origin.
    pub date: Date,
    /// Who flies it.
    pub carrier: Carrier,
    /// The carrier's number for it.
    pub number: FlightNumber,
}

impl FlightId {
    /// The id as the toolkit's type.
    pub fn record_id(&self) -> RecordId {
        match self.to_string().parse() {
            Ok(id) => id,
            Err(error) => unreachable!("a flight's id is short and never empty: {error}"),
        }
    }

    /// The site where the flight is created: the origin airport in small letters.
    pub fn home(&self) -> SiteName {
        match self.origin.as_str().to_ascii_lowercase().parse() {
            Ok(site) => site,
            Err(error) => unreachable!("an airport in small letters is a site name: {error}"),
        }
    }
}

/// The home rule of the kind `flight`: the origin airport's site; nothing for what is no flight's id.
pub fn home(id: &RecordId) -> Option<SiteName> {
    id.as_str().parse::<FlightId>().ok().map(|id| id.home())
}

impl FromStr for FlightId {
    type Err = FlightIdError;

    fn from_str(text: &str) -> Result<Self, FlightIdError> {
        let mut parts = text.split('-');
        let (Some(origin), Some(date), Some(flight), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FlightIdError);
        };
        let (carrier, number) = flight.split_at_checked(2).ok_or(FlightIdError)?;
        let id = Self {
            origin: origin.parse().map_err(|_| FlightIdError)?,
            date: read_date(date).ok_or(FlightIdError)?,
            carrier: carrier.parse().map_err(|_| FlightIdError)?,
            number: read_number(number)?,
        };
        Ok(id)
    }
}

impl fmt::Display for FlightId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, date, carrier, number } = self;
        let (year, month, day) = (date.year(), date.month(), date.day());
        write!(formatter, "{origin}-{year:04}{month:02}{day:02}-{carrier}{}", number.0)
    }
}

fn read_date(text: &str) -> Option<Date> {
    if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Date::new(text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?).ok()
}

fn read_number(text: &str) -> Result<FlightNumber, FlightIdError> {
    if text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FlightIdError);
    }
    text.parse::<u16>().map_err(|_| FlightIdError)?.try_into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_says_what_it_is_made_of() {
        let id: FlightId = "EWR-20130101-UA1545".parse().unwrap();
        assert_eq!(id.origin.as_str(), "EWR");
        assert_eq!(id.date, Date::constant(2013, 1, 1));
        assert_eq!(id.carrier.as_str(), "UA");
        assert_eq!(id.number.get(), 1545);
        assert_eq!(id.record_id().as_str(), "EWR-20130101-UA1545");
        assert_eq!(id.record_id().token().as_str(), "EWR-20130101-UA1545", "the id needs no escaping");
        assert!("LGA-20120229-9E3".parse::<FlightId>().is_ok(), "digits in the carrier, a leap day");
    }

    #[test]
    fn the_home_is_the_origin_and_other_ids_have_none() {
        let home_of = |id: &str| home(&id.parse().unwrap()).map(|site| site.to_string());
        assert_eq!(home_of("EWR-20130101-UA1545").as_deref(), Some("ewr"));
        assert_eq!(home_of("JFK-20131231-B6839").as_deref(), Some("jfk"));
        for bad in [
            "EWR",
            "EWR-20130101",
            "EWR-20130101-",
            "EWR-20130101-U",
            "EWR-20130101-UA",
            "EWR-20130101-UA0",
            "EWR-20130101-UA01",
            "EWR-20130101-UA10000",
            "EWR-20130101-UA+1",
            "EWR-20130101-UA1545-",
            "EWR-20130101-é1",
            "EWR-20130101-aé",
            "EWR-20130229-UA1",
            "EWR-2013011-UA1",
            "EWR-+2013101-UA1",
            "ewr-20130101-UA1",
            "EWRX-20130101-UA1",
            " EWR-20130101-UA1",
        ] {
            assert_eq!(home_of(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_an_id_has_one_spelling(text in "[A-Z]{3}-20[0-9]{2}[01][0-9][0-3][0-9]-[A-Z0-9]{2}[0-9]{0,5}") {
            if let Ok(id) = text.parse::<FlightId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
