//! The `flights` command.

use std::fs::File;
use std::io::{BufReader, Read, Write, stdout};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use flights::data::{FlightRows, SAMPLE, check};

/// A service for flights, each owned by the site of its origin airport.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Play a file of flights through the rules in memory, without NATS, and count what it holds.
    Check {
        /// A CSV file with the columns of nycflights13; without it the bundled sample.
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    let Arguments { command: Task::Check { data } } = Arguments::parse();
    let input: Box<dyn Read> = match &data {
        Some(path) => Box::new(BufReader::new(File::open(path).with_context(|| path.display().to_string())?)),
        None => Box::new(SAMPLE.as_bytes()),
    };
    let tally = check(FlightRows::new(input)?)?;
    let mut out = stdout().lock();
    writeln!(out, "{} flights, {} commands, {} never arrived", tally.flights(), tally.commands(), tally.never_arrived)?;
    for (site, count) in &tally.flights {
        writeln!(out, "  {site:<10}{count:>10}")?;
    }
    for (name, count) in &tally.commands {
        writeln!(out, "  {name:<10}{count:>10}")?;
    }
    Ok(())
}
