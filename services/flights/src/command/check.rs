//! `flights check`: a file against the rules, without NATS.

use std::fmt::Write;

use clap::Args;
use flights::data;

use super::input::Input;
use super::printer::Printer;

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    input: Input,
}

/// Plays the file through the rules and prints what it holds.
pub(crate) fn run(options: &Options, printer: Printer) -> anyhow::Result<()> {
    let tally = data::check(options.input.rows()?)?;
    let (flights, commands) = (tally.flights(), tally.commands());
    let mut text = format!("{flights} flights, {commands} commands, {} never arrived", tally.never_arrived);
    for (site, count) in &tally.flights {
        write!(text, "\n  {site:<10}{count:>10}")?;
    }
    for (name, count) in &tally.commands {
        write!(text, "\n  {name:<10}{count:>10}")?;
    }
    printer.text(text);
    Ok(())
}
