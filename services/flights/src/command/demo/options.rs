//! What `flights demo` is told.

use std::num::NonZeroU8;
use std::path::PathBuf;

use clap::Args;

use crate::command::input::Input;
use crate::command::load::Pace;

/// What to load, on what, and with how many kills.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Instances of the service at each site.
    #[arg(long, default_value = "2", value_name = "N")]
    pub(crate) instances: NonZeroU8,
    /// How often an instance is killed with SIGKILL, spread over the load; each one is started again.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) kills: u32,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// Keep everything in this directory, and go on with what is there. Without it, a temporary directory is used.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The client port of the first site; the others and the hub get those behind it. Without it, free ports are picked.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Leave everything running in the end, until Ctrl-C, and tell what to try.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print the report as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
