//! One thing that is measured.

use std::time::Duration;

use freehold_bench::{
    Asked, Beside, BesideOptions, CatchUp, Failover, FailoverOptions, FailoverReport, Idle, Join, Lag, LagOf,
    LagOptions, Listing, Loop, Options, Profile, Report, Workload,
};

/// How long a service is watched doing nothing.
const IDLE: Duration = Duration::from_secs(10);
/// Commands, reads or both: what latency is told at is this part of what was possible.
const MODERATE_SHARE: f64 = 0.5;

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) enum Measurement {
    /// Freehold under a load, beside the floor or alone.
    Load {
        asked: Asked,
        floor: bool,
        /// Once.
        brief: bool,
        /// Then, at half of the rate.
        then_moderate: bool,
    },
    Failover(Failover, u16),
    /// Reads beside so many commands each second.
    Beside(u32),
    /// Of so many records.
    Listing(u64),
    /// While so many others go on each second.
    Lag(LagOf, u32),
    /// After so many missed updates.
    CatchUp(u64),
    /// With so many records.
    Join(u64),
    Idle(u16),
}

/// What it showed.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum Found {
    Load(Box<Report>),
    Failover(FailoverReport),
    Beside(Beside),
    Listing(Listing),
    Lag(Lag),
    CatchUp(CatchUp),
    Join(Join),
    Idle(Idle),
}

impl Measurement {
    pub(crate) fn load(asked: Asked) -> Self {
        // With more sites than one there is nothing to compare it with.
        let floor = !matches!(asked.workload, Workload::Forwarded | Workload::Confirmed);
        Self::Load { asked, floor, brief: false, then_moderate: false }
    }

    /// Freehold alone, once.
    pub(crate) fn alone(asked: Asked) -> Self {
        Self::Load { asked, floor: false, brief: true, then_moderate: false }
    }

    /// Then, at half of the rate that it showed.
    pub(crate) fn then_moderate(self) -> Self {
        match self {
            Self::Load { asked, floor, brief, .. } => Self::Load { asked, floor, brief, then_moderate: true },
            other => other,
        }
    }

    pub(crate) fn follow_up(&self, found: &Found) -> Option<Self> {
        match (self, found) {
            (Self::Load { asked, floor, then_moderate: true, .. }, Found::Load(report)) => {
                let rate = (report.freehold.per_second * MODERATE_SHARE).round();
                let asked = Asked { pace: Loop::Open { rate }, ..asked.clone() };
                Some(Self::Load { asked, floor: *floor, brief: true, then_moderate: false })
            }
            _ => None,
        }
    }

    /// What it is, in a few words.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Load { asked, .. } => name_of(asked),
            Self::Failover(failover, times) => {
                let what = match failover {
                    Failover::Kill => "killed",
                    Failover::Hang => "hangs",
                    Failover::Stop => "stopped",
                };
                format!("an instance of two {what}, {times} times")
            }
            Self::Beside(rate) => format!("reads beside {rate} commands/s"),
            Self::Listing(records) => format!("listing {records} records"),
            Self::Lag(LagOf::Commands, rate) => format!("update to another site at {rate} commands/s"),
            Self::Lag(LagOf::Updates, rate) => format!("update to another site at {rate} updates/s"),
            Self::CatchUp(missed) => format!("{missed} updates missed"),
            Self::Join(records) => format!("joining with {records} records"),
            Self::Idle(groups) => format!("no requests, {groups} groups"),
        }
    }

    pub(crate) async fn run(&self, options: &Options, progress: impl FnMut(&str)) -> anyhow::Result<Found> {
        let program = options.program.clone();
        Ok(match self {
            Self::Load { asked, floor, brief, .. } => {
                let rounds = if *brief { 1 } else { options.rounds };
                let options = Options { asked: asked.clone(), floor: *floor, rounds, ..options.clone() };
                Found::Load(Box::new(freehold_bench::run(&options, progress).await?))
            }
            Self::Failover(failover, times) => {
                let options = FailoverOptions { program, failover: *failover, times: *times };
                Found::Failover(freehold_bench::failover(&options, progress).await?)
            }
            Self::Beside(rate) => {
                let options = BesideOptions { program, rate: f64::from(*rate), time: options.time };
                Found::Beside(freehold_bench::reads_beside(&options, progress).await?)
            }
            Self::Listing(records) => Found::Listing(freehold_bench::listing(program, *records, progress).await?),
            Self::Lag(of, rate) => {
                let (of, rate) = (*of, f64::from(*rate));
                let options = LagOptions { program, of, rate, time: options.time };
                Found::Lag(freehold_bench::lag(&options, progress).await?)
            }
            Self::CatchUp(missed) => Found::CatchUp(freehold_bench::catch_up(program, *missed, progress).await?),
            Self::Join(records) => Found::Join(freehold_bench::join(program, *records, progress).await?),
            Self::Idle(groups) => Found::Idle(freehold_bench::idle(program, *groups, IDLE).await?),
        })
    }
}

fn name_of(asked: &Asked) -> String {
    let workload = match asked.workload {
        Workload::Uniform => "uniform",
        Workload::Zipfian => "zipfian",
        Workload::Hot => "one hot record",
        Workload::Reads => "95 % reads",
        Workload::Gets => "reads alone",
        Workload::Forwarded => "sent at another site",
        Workload::Confirmed => "sites=1",
    };
    let pace = match asked.pace {
        Loop::Closed { in_flight } => format!("{in_flight} in flight"),
        Loop::Open { rate } => format!("{rate}/s"),
    };
    let mut name = format!("{workload}, {pace}");
    match asked.profile {
        Profile::Default => {}
        Profile::SyncAlways => name.push_str(", sync always"),
        Profile::Cluster => name.push_str(", three servers"),
    }
    let mut differs = |is: u64, usual: u64, what: &str| {
        if is != usual {
            name.push_str(&format!(", {is} {what}"));
        }
    };
    differs(asked.instances.into(), 1, "instances");
    differs(asked.groups.into(), 64, "groups");
    differs(asked.records, 10_000, "records");
    differs(asked.record_bytes as u64, 200, "bytes");
    name
}
