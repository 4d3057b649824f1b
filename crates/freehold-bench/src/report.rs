//! What was measured, as a person or a program reads it.

use serde::Serialize;

use crate::Asked;
use crate::place::Turn;

/// Freehold beside the floor.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked of whom.
    #[serde(flatten)]
    pub asked: Asked,
    /// The round of Freehold with the median rate.
    pub freehold: Figures,
    /// The round of the floor with the median rate.
    pub floor: Figures,
    /// Freehold's rate as a part of the floor's.
    pub ratio: f64,
    /// All rates, round by round: Freehold's and the floor's.
    pub rounds: Vec<(f64, f64)>,
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
    pub(crate) fn new(asked: Asked, freehold: Vec<Turn>, floor: Vec<Turn>) -> Self {
        let figures = |turns: &[Turn]| turns.iter().map(Figures::of).collect::<Vec<_>>();
        let (freehold, floor) = (figures(&freehold), figures(&floor));
        let rounds = freehold.iter().zip(&floor).map(|(ours, floor)| (ours.per_second, floor.per_second)).collect();
        let (freehold, floor) = (median(freehold), median(floor));
        Self { asked, ratio: freehold.per_second / floor.per_second, freehold, floor, rounds }
    }
}

impl Figures {
    fn of(turn: &Turn) -> Self {
        let requests = turn.measured.requests as f64;
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / requests;
        let at = |share: f64| turn.measured.times.value_at_quantile(share);
        Self {
            per_second: requests / turn.measured.took.as_secs_f64(),
            latency: LatencyMicroseconds {
                p50: at(0.5),
                p99: at(0.99),
                p99_9: at(0.999),
                max: turn.measured.times.max(),
            },
            cpu: CpuMicroseconds {
                client: each(turn.cpu.client),
                service: each(turn.cpu.service),
                server: each(turn.cpu.server),
            },
            disk_bytes: turn.disk_bytes as f64 / requests,
        }
    }
}

/// The one with the median rate; there is at least one round.
fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|left, right| left.per_second.total_cmp(&right.per_second));
    figures.swap_remove(figures.len() / 2)
}
