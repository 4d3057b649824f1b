//! What Freehold costs, beside what its engines cost without it, measured in one run on one machine.
//!
//! Two services answer the same load in turns, each on a nats-server of its own:
//!
//! * **Freehold**: the `records` service, as anybody runs it, asked by a real client.
//! * **The floor** ([`serve_floor`]): the same NATS and redb operations for each command, of the same number and size, pipelined, and no logic.
//!   Nothing is decided, checked, remembered or recovered there: it is what the engines allow.
//!
//! A closed loop keeps a number of requests in flight and shows what is possible; an open loop sends at a fixed rate, whatever comes
//! back, and measures from when a request was due, so that a pause counts for all that it held up ("coordinated omission").
//!
//! No service uses this crate. It names async-nats and redb itself, since it measures them as they are.

mod floor;
mod load;
mod place;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

pub use floor::{FloorOptions, Sizes, serve_floor};
pub use load::{Loop, Workload};
pub use report::{CpuMicroseconds, Figures, LatencyMicroseconds, Report};

use load::Load;
use place::{Place, Served};

/// How the servers store what they acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// One server, which fsyncs every two minutes, as nats-server does unless told otherwise.
    Default,
    /// One server, which fsyncs before it acknowledges.
    SyncAlways,
    /// Three servers, streams in three copies.
    Cluster,
}

/// What is asked of whom: what a report repeats.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Asked {
    /// What is asked for.
    pub workload: Workload,
    /// How it is asked.
    pub pace: Loop,
    /// How the servers store.
    pub profile: Profile,
    /// Instances of the `records` service.
    pub instances: u16,
    /// Records that there are.
    pub records: u64,
    /// Bytes of a record.
    pub record_bytes: usize,
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `freehold` program, which runs the `records` service and the floor.
    pub program: PathBuf,
    /// What is asked of whom.
    pub asked: Asked,
    /// How long each turn is measured.
    pub time: Duration,
    /// How often both have their turn.
    pub rounds: u16,
}

/// Measures. `progress` is told what is being done.
pub async fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Report> {
    let (mut freehold, mut floor) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        progress(&format!("round {round} of {}: Freehold", options.rounds));
        let place = Place::start(options, Served::Freehold).await?;
        let load = Arc::new(Load::new(&place, &options.asked).await?);
        load.fill().await?;
        freehold.push(place.measure(&load, options).await?);
        let sizes = place.sizes(&load).await?;
        place.stop().await?;
        progress(&format!("round {round} of {}: the floor", options.rounds));
        let place = Place::start(options, Served::Floor(sizes)).await?;
        let load = Arc::new(Load::new(&place, &options.asked).await?);
        floor.push(place.measure(&load, options).await?);
        place.stop().await?;
    }
    Ok(Report::new(options.asked.clone(), freehold, floor))
}
