//! The `freehold` command: sites to play with, provisioning, requests, and the proof that copies are equal.
//!
//! One command a file in `commands/`; what is more than one file stands beside it (`dev/`, `verify/`). Results go to stdout
//! through `printer`, progress and errors to stderr. No command changes a copy, and only `provision`, `restore`,
//! `dev` and `stranded --forget` change streams: everything else asks the services.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done; for `verify`: all copies are equal |
//! | 1 | a negative answer (`not_found`, `rejected`, …); for `verify`: something differs |
//! | 2 | wrong usage or configuration, or it could not be done; for `verify`: a place that was asked for cannot be reached |

mod arguments;
mod commands;
mod context;
mod dev;
mod discovery;
mod failure;
mod json_text;
mod printer;
mod settings;
mod verify;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Task};
use crate::context::Context;
use crate::failure::Verdict;

/// Runs the command with the process's own arguments.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // The embedded service reads its own arguments: it has a `--config` of its own, and everything behind it is its.
    if arguments.nth(1).is_some_and(|first| first == "records") {
        let own = std::iter::once("freehold records".into()).chain(arguments);
        return failure::exit_code(records::main_with(own).map(|()| Verdict::Yes));
    }
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    failure::exit_code(run(arguments))
}

fn run(arguments: Arguments) -> anyhow::Result<Verdict> {
    let context = Context::new(&arguments.global)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.task {
            Task::Dev(arguments) => dev::run(&context, arguments).await,
            Task::Records { .. } => anyhow::bail!("`records` must be the first argument"),
            Task::Provision(arguments) => commands::provision::run(&context, arguments).await,
            Task::Status => commands::status::run(&context).await,
            Task::Get(arguments) => commands::get::run(&context, arguments).await,
            Task::List(arguments) => commands::list::run(&context, arguments).await,
            Task::History(arguments) => commands::history::run(&context, arguments).await,
            Task::Send(arguments) => commands::send::run(&context, arguments).await,
            Task::Rehome(arguments) => commands::rehome::run(&context, arguments).await,
            Task::Takeover(arguments) => commands::takeover::run(&context, arguments).await,
            Task::Stranded(arguments) => commands::stranded::run(&context, arguments).await,
            Task::Restore(arguments) => commands::restore::run(&context, arguments).await,
            Task::Doctor(arguments) => commands::doctor::run(&context, arguments).await,
            Task::Bench(arguments) => commands::bench::run(&context, arguments).await,
            Task::Verify(arguments) => verify::run(&context, arguments).await,
        }
    })
}
