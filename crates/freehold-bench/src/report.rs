//! What was measured, as a person or a program reads it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Asked;
use crate::load::Measured;
use crate::place::Cpu;

/// What one turn showed.
pub(crate) struct Turn {
    pub(crate) measured: Measured,
    pub(crate) cpu: Cpu,
    /// What the measured part has added to the disk, of server and service.
    pub(crate) disk_bytes: u64,
    /// Of the instance that has the most.
    pub(crate) memory_bytes: u64,
}

/// Freehold beside the floor.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked of whom.
    #[serde(flatten)]
    pub asked: Asked,
    /// The round of Freehold with the median rate.
    pub freehold: Figures,
    /// The round of the floor with the median rate, where it had a turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Figures>,
    /// Freehold's rate as a part of the floor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// All rates of Freehold, round by round.
    pub rounds: Vec<f64>,
    /// All rates of the floor, round by round.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub floor_rounds: Vec<f64>,
}

/// What a service without requests uses.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// Groups that it holds.
    pub groups: u16,
    /// Part of a core that the service uses.
    pub service_cores: f64,
    /// Part of a core that its server uses.
    pub server_cores: f64,
    /// Resident memory of the service.
    pub memory_bytes: u64,
}

/// Times over several tries, in milliseconds.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Milliseconds {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Milliseconds {
    /// The quantiles of times; there is at least one.
    pub(crate) fn of(mut times: Vec<Duration>) -> Result<Self> {
        times.sort();
        let last = times.len().checked_sub(1).context("nothing was measured")?;
        let at = |share: f64| times[(share * last as f64).ceil() as usize].as_secs_f64() * 1e3;
        Ok(Self { p50: at(0.5), p99: at(0.99), max: at(1.0) })
    }
}

/// What one service showed.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Requests answered in a second.
    pub per_second: f64,
    /// From sending, or from when it was due, to the answer.
    pub latency: LatencyMicroseconds,
    /// For each request.
    pub cpu: CpuMicroseconds,
    /// What a request adds to the disk, in bytes, of server and service together; they reserve and give back in large pieces.
    pub disk_bytes: f64,
    /// Resident memory of the instance that has the most, in bytes, at the end.
    pub memory_bytes: u64,
}

/// In microseconds.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct LatencyMicroseconds {
    pub p50: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
}

/// CPU time for each request, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct CpuMicroseconds {
    /// The process that sends.
    pub client: f64,
    /// All instances of the service.
    pub service: f64,
    /// All nats-servers.
    pub server: f64,
}

impl Report {
    pub(crate) fn new(asked: Asked, freehold: &[Turn], floor: &[Turn]) -> Result<Self> {
        let figures = |turns: &[Turn]| turns.iter().map(Figures::of).collect::<Vec<_>>();
        let rates = |figures: &[Figures]| figures.iter().map(|figures| figures.per_second).collect();
        let (freehold, floor) = (figures(freehold), figures(floor));
        let (rounds, floor_rounds) = (rates(&freehold), rates(&floor));
        let freehold = median(freehold).context("nothing was measured")?;
        let floor = median(floor);
        let ratio = floor.as_ref().map(|floor| freehold.per_second / floor.per_second);
        Ok(Self { asked, freehold, floor, ratio, rounds, floor_rounds })
    }
}

impl LatencyMicroseconds {
    fn of(times: &Histogram<u64>) -> Self {
        let at = |share: f64| times.value_at_quantile(share);
        Self { p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max: times.max() }
    }
}

impl Figures {
    fn of(turn: &Turn) -> Self {
        let requests = turn.measured.requests as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / requests;
        Self {
            per_second: turn.measured.per_second(),
            latency: LatencyMicroseconds::of(&turn.measured.times),
            cpu: CpuMicroseconds {
                client: each(turn.cpu.client),
                service: each(turn.cpu.service),
                server: each(turn.cpu.server),
            },
            disk_bytes: turn.disk_bytes as f64 / requests,
            memory_bytes: turn.memory_bytes,
        }
    }
}

/// The one with the median rate.
fn median(mut figures: Vec<Figures>) -> Option<Figures> {
    figures.sort_by(|left, right| left.per_second.total_cmp(&right.per_second));
    let middle = figures.len() / 2;
    figures.into_iter().nth(middle)
}
