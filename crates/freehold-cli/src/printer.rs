//! Everything that goes to stdout goes through here: whole lines, and an error where nobody reads any more.

use std::io::{self, Write as _};

use comfy_table::{LineStyle, Table, presets};
use serde::Serialize;

/// Writes a line.
pub(crate) fn line(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Writes a table.
pub(crate) fn table(table: &Table) -> io::Result<()> {
    let text = table.to_string();
    for row in text.lines() {
        line(row.trim_end())?;
    }
    Ok(())
}

/// An empty table with these columns.
pub(crate) fn table_of(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header(columns.iter().copied());
    table
}

/// Writes a line for the person at the terminal, to stderr.
pub(crate) fn note(text: impl AsRef<str>) {
    // Where stderr is closed nobody reads notes.
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}
