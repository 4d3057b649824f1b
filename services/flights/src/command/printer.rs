//! The only place of the command that writes to stdout, and what it tells on stderr.

use std::fmt::Display;

use serde::Serialize;

/// Writes results. Progress and complaints go to stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer;

#[allow(clippy::print_stdout, reason = "stdout is where a command's result belongs")]
impl Printer {
    /// One or more lines for a person.
    pub(crate) fn text(self, text: impl Display) {
        println!("{text}");
    }

    /// One line on stderr about what is being done.
    pub(crate) fn step(self, text: impl Display) {
        eprintln!("{text}");
    }

    /// One line of JSON for a program.
    pub(crate) fn json(self, value: &impl Serialize) -> serde_json::Result<()> {
        println!("{}", serde_json::to_string(value)?);
        Ok(())
    }
}
