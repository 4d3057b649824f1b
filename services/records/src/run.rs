//! The `records` command, also for programs that embed it: its errors are for a person, so they are `anyhow`'s.

use std::ffi::OsString;
use std::io::{IsTerminal, stderr};

use anyhow::Context;
use clap::Parser;
use freehold::Service;
use tracing_subscriber::EnvFilter;

use crate::options::Options;

/// Runs the command as a process of its own: reads its arguments (the first one is the program's name), traces to stderr
/// as `RUST_LOG` says, and serves until SIGINT or SIGTERM.
pub fn main_with(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> anyhow::Result<()> {
    let options = Options::parse_from(arguments);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(run(options))
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let config = options.instance.service_config()?;
    let mut service = Service::builder("records", config);
    for kind in options.kinds()? {
        service = service.kind(kind);
    }
    Ok(service.run().await?)
}
