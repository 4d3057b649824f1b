//! Why a file of flights cannot be read.

/// A file of flights cannot be read any further.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the flights file cannot be read")]
pub struct Error {
    /// The line on which the row starts; the first is 1.
    pub line: u64,
    /// What is wrong there.
    #[source]
    pub reason: RowError,
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The file cannot be read, or the row is not CSV of the header's columns.
    #[error("not a row of the table")]
    NotCsv(#[source] csv::Error),
    /// The header lacks a column.
    #[error("the header has no column {column}")]
    MissingColumn {
        /// The column's name in the data set.
        column: &'static str,
    },
    /// A value is not what its column holds.
    #[error("column {column}: {value:?} is not {expected}")]
    Value {
        /// The column's name in the data set.
        column: &'static str,
        /// The beginning of the value.
        value: String,
        /// What the column holds.
        expected: &'static str,
    },
    /// A clock and a delay that belong together do not fit.
    #[error("column {column}: {clock} is not the scheduled time and a delay of {delay_minutes} minutes")]
    ClockAndDelay {
        /// The clock's column.
        column: &'static str,
        /// The clock, hours and minutes.
        clock: String,
        /// The delay of the other column.
        delay_minutes: i64,
    },
    /// A column has no value that the row's other values ask for.
    #[error("column {column} is empty, although {reason}")]
    Incomplete {
        /// The column's name in the data set.
        column: &'static str,
        /// Why it has to have a value.
        reason: &'static str,
    },
}
