//! What is measured together.

use freehold_bench::{Asked, Failover, Figures, LagOf, Loop, Profile, Series, Workload};

use super::measurement::{Found, Measurement};
use crate::arguments::BenchArguments;

/// What grows, and how far.
const RECORDS: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
const GROUPS: [u16; 5] = [1, 4, 16, 64, 256];
const INSTANCES: [u16; 4] = [1, 2, 4, 8];
const RECORD_BYTES: [usize; 5] = [64, 256, 1_024, 8_192, 65_536];
/// Records of that size are few.
const FEW_RECORDS: u64 = 1_000;
/// Commands each second at which the way to another site is measured, and updates.
const LAG_COMMANDS: [u32; 3] = [500, 2_000, 5_000];
const LAG_UPDATES: [u32; 2] = [5_000, 10_000];
/// Commands each second beside which reads are measured.
const BESIDE_COMMANDS: u32 = 2_000;
const LISTED_RECORDS: u64 = 100_000;
const MISSED: u64 = 100_000;
const JOIN_RECORDS: u64 = 1_000_000;

/// A number of what is asked for.
type Number = fn(&Asked) -> f64;

/// Measurements that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Suite {
    /// Workloads and profiles beside the floor.
    Load,
    /// Reads beside commands, and page by page.
    Reads,
    /// An instance is killed, hangs or is stopped.
    Failover,
    /// Lag, catching up, and joining.
    Copies,
    /// More and more records.
    Records,
    /// More and more groups.
    Groups,
    /// More and more instances.
    Instances,
    /// Larger and larger records.
    Sizes,
    /// No requests at all.
    Idle,
}

impl Suite {
    /// The longest is last.
    pub(crate) const ALL: [Self; 9] = [
        Self::Load,
        Self::Reads,
        Self::Idle,
        Self::Failover,
        Self::Copies,
        Self::Groups,
        Self::Instances,
        Self::Sizes,
        Self::Records,
    ];

    pub(crate) fn measurements(self, asked: &Asked, arguments: &BenchArguments) -> Vec<Measurement> {
        match self {
            Self::Load => load(asked),
            Self::Reads => {
                let records = LISTED_RECORDS.min(arguments.most_records);
                vec![Measurement::Beside(BESIDE_COMMANDS), Measurement::Listing(records)]
            }
            Self::Failover => [(Failover::Kill, 1), (Failover::Hang, 5), (Failover::Stop, 5)]
                .map(|(failover, part)| Measurement::Failover(failover, arguments.failovers.div_ceil(part)))
                .to_vec(),
            Self::Copies => {
                let commands = LAG_COMMANDS.map(|rate| Measurement::Lag(LagOf::Commands, rate));
                let updates = LAG_UPDATES.map(|rate| Measurement::Lag(LagOf::Updates, rate));
                let records = JOIN_RECORDS.min(arguments.most_records);
                let others = [Measurement::CatchUp(MISSED.min(records)), Measurement::Join(records)];
                commands.into_iter().chain(updates).chain(others).collect()
            }
            Self::Records => {
                let records = RECORDS.into_iter().filter(|records| *records <= arguments.most_records);
                records.map(|records| Measurement::alone(Asked { records, ..asked.clone() })).collect()
            }
            Self::Groups => GROUPS.map(|groups| Measurement::alone(Asked { groups, ..asked.clone() })).to_vec(),
            Self::Instances => {
                INSTANCES.map(|instances| Measurement::alone(Asked { instances, ..asked.clone() })).to_vec()
            }
            Self::Sizes => {
                let records = FEW_RECORDS.min(arguments.most_records);
                let sized = |record_bytes| Measurement::alone(Asked { record_bytes, records, ..asked.clone() });
                RECORD_BYTES.map(sized).to_vec()
            }
            Self::Idle => vec![Measurement::Idle(asked.groups)],
        }
    }

    /// What grows from one measurement to the next, in words and as a number.
    fn grows(self) -> Option<(&'static str, Number)> {
        match self {
            Self::Records => Some(("records", |asked| asked.records as f64)),
            Self::Groups => Some(("groups", |asked| asked.groups.into())),
            Self::Instances => Some(("instances", |asked| asked.instances.into())),
            Self::Sizes => Some(("bytes of a record", |asked| asked.record_bytes as f64)),
            Self::Load | Self::Reads | Self::Failover | Self::Copies | Self::Idle => None,
        }
    }

    /// How rate and memory grow over this suite's measurements, with names for files.
    pub(crate) fn series(self, measured: &[(Self, Found)]) -> Vec<(String, Series)> {
        let Some((over, number)) = self.grows() else { return Vec::new() };
        let of_suite = |(suite, found): &(Self, Found)| match found {
            Found::Load(report) if *suite == self => Some((number(&report.asked), report.freehold.clone())),
            _ => None,
        };
        let grown: Vec<(f64, Figures)> = measured.iter().filter_map(of_suite).collect();
        if grown.is_empty() {
            return Vec::new();
        }
        let name = over.split(' ').next().unwrap_or(over);
        let series = |file: &str, figure: &str, y: fn(&Figures) -> f64| {
            let points = grown.iter().map(|(x, figures)| (*x, y(figures))).collect();
            let (title, over, figure) = (format!("{figure} over {over}"), over.to_owned(), figure.to_owned());
            (format!("{name}-{file}"), Series { title, over, figure, points })
        };
        vec![
            series("rate", "commands/s", |figures| figures.per_second),
            series("memory", "MB resident", |figures| figures.memory_bytes as f64 / 1e6),
        ]
    }
}

/// Every workload, then one command at a time, two instances, and how the servers store.
fn load(asked: &Asked) -> Vec<Measurement> {
    let workload = |workload: Workload| Measurement::load(Asked { workload, ..asked.clone() });
    vec![
        Measurement::load(asked.clone()).then_moderate(),
        workload(Workload::Zipfian),
        workload(Workload::Hot),
        workload(Workload::Reads),
        workload(Workload::Gets),
        workload(Workload::Forwarded),
        workload(Workload::Confirmed),
        Measurement::load(Asked { pace: Loop::Closed { in_flight: 1 }, ..asked.clone() }),
        Measurement::load(Asked { instances: 2, ..asked.clone() }),
        Measurement::load(Asked { profile: Profile::SyncAlways, ..asked.clone() }),
        Measurement::load(Asked { profile: Profile::Cluster, ..asked.clone() }),
    ]
}
