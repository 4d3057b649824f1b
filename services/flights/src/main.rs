//! The `flights` command.

mod command;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use command::printer::Printer;
use command::{check, demo, load, serve};

/// A command makes many small values on one thread and drops them on another: measured, this allocator takes a seventh off the service's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A service for flights, each owned by the site of its origin airport.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run an instance of the service until SIGINT or SIGTERM.
    Serve(serve::Options),
    /// Send a file of flights to the services of their home sites, and compare the result with the file.
    Load(load::Options),
    /// Run three sites on this machine, load the flights, kill an instance midway, and prove that nothing differs.
    Demo(demo::Options),
    /// Play a file of flights through the rules in memory, without NATS, and count what it holds.
    Check(check::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { command } = Arguments::parse();
    // A service tells what it does; the other commands have a progress bar, which must not be torn.
    let level = if matches!(command, Task::Serve(_)) { "info" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(command, Printer))
}

async fn run(command: Task, printer: Printer) -> anyhow::Result<ExitCode> {
    match command {
        Task::Serve(options) => serve::run(options).await.map(|()| ExitCode::SUCCESS),
        Task::Load(options) => load::run(options, printer).await.map(exit_code),
        Task::Demo(options) => demo::run(options, printer).await.map(exit_code),
        Task::Check(options) => check::run(&options, printer).map(|()| ExitCode::SUCCESS),
    }
}

fn exit_code(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
