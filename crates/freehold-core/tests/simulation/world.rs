//! A site: two logs, some instances, a member list, and everything that is on the wire between them.
//!
//! The world does one small thing at a time, in an order that the random run or a scenario chooses. What happens to a
//! message on its way is its [`Fate`]: drawn from the seed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use freehold_core::{
    CommandMessage, DeadLetter, Effect, Event, GroupCount, MembersRevision, PublishFailure, RecordId, ReleaseReason,
    Retention,
};

use crate::brief::{brief, brief_effect};
use crate::chance::Chance;
use crate::command_log::CommandLog;
use crate::instance::{CopyLeft, Instance, Request, Sent, Waiting};
use crate::oracle::Oracle;
use crate::records_log::RecordsLog;
use crate::rules::{Rules, silence_poison};

/// The first moment of every world, in log time.
pub(crate) const START: u64 = 1_000_000;
/// How the server refuses what it can never take.
pub(crate) const TOO_LARGE: &str = "more than the server takes";
/// How a request is refused while the command log is above its mark.
pub(crate) const FULL: &str = "the command log is full";
/// A connection that says nothing for this long is closed by the server: nothing that was written on it arrives later
/// than this, save what the fence refuses.
pub(crate) const CONNECTION_ENDS_MS: u64 = 5_000;
/// The most messages that an applier commits at once.
const MAX_APPLIED_AT_ONCE: usize = 200;

/// The fixed facts of a world.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) batched: bool,
    pub(crate) history: u64,
    pub(crate) groups: u16,
    pub(crate) instances: usize,
    pub(crate) outcomes_ms: u64,
    pub(crate) audit_window_ms: u64,
    pub(crate) duplicate_window_ms: u64,
    pub(crate) max_payload_bytes: usize,
    /// Requests are refused while the command log keeps so many commands.
    pub(crate) command_mark: usize,
    /// Room above the mark, for what decisions emit.
    pub(crate) command_headroom: usize,
    pub(crate) rules: Vec<Rules>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            batched: false,
            history: 8,
            groups: 1,
            instances: 2,
            outcomes_ms: 60_000,
            audit_window_ms: 2_000,
            duplicate_window_ms: 3_000,
            max_payload_bytes: 1 << 20,
            command_mark: 100_000,
            command_headroom: 100_000,
            rules: Vec::new(),
        }
    }
}

impl Setup {
    pub(crate) fn retention(&self) -> Retention {
        Retention { outcomes_ms: self.outcomes_ms, history: self.history }
    }
}

/// What happens to a request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives and is answered.
    Arrives,
    /// It arrives, its answer does not.
    AnswerLost,
    Lost,
    /// It arrives when nobody waits for it any more: see [`World::limbo`].
    Delayed,
}

/// Answers of one flush on R1, as they come in.
pub(crate) struct Gathering {
    pub(crate) to: Waiting,
    pub(crate) open: usize,
    pub(crate) stored: Vec<(usize, u64)>,
    pub(crate) failure: Option<PublishFailure>,
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) now: u64,
    pub(crate) records: RecordsLog,
    pub(crate) commands: CommandLog,
    pub(crate) instances: Vec<Instance>,
    pub(crate) list: Vec<Option<usize>>,
    pub(crate) revision: u64,
    /// Requests that are somewhere in the network, with the time from when.
    pub(crate) limbo: Vec<(Sent, u64)>,
    pub(crate) oracle: Oracle,
    pub(crate) chance: Option<Chance>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) emitted: Vec<CommandMessage>,
    pub(crate) purged: usize,
    pub(crate) releases: Vec<ReleaseReason>,
    /// Some copy could not know all outcomes, or the command log lost commands: `outcome_unknown` is an honest answer.
    pub(crate) forgetful: bool,
    pub(crate) rewinds: u32,
    pub(crate) crashes: u32,
    pub(crate) flushes: BTreeMap<u64, Gathering>,
    last_flush: u64,
    /// Messages of the records log that the oracle has seen.
    pub(crate) observed: usize,
    /// Whether what is decided goes by itself. Off where a scenario purges step by step.
    pub(crate) audits: bool,
    /// The first thing that must not be.
    pub(crate) broken: Option<String>,
    pub(crate) trace: Option<Vec<String>>,
}

/// Notes what happens, where somebody wants to read it.
macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            trace.push(format!("{:>8} {}", $world.now - $crate::world::START, format!($($text)*)));
        }
    };
}
pub(crate) use note;

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        silence_poison();
        let rules = |index: usize| setup.rules.get(index).copied().unwrap_or(Rules::Old);
        Self {
            now: START,
            records: RecordsLog::new(setup.history),
            commands: CommandLog::new(setup.duplicate_window_ms, setup.command_mark, setup.command_headroom),
            instances: (0..setup.instances).map(|index| Instance::new(index, &setup, rules(index), START)).collect(),
            list: vec![None; usize::from(setup.groups)],
            revision: 0,
            limbo: Vec::new(),
            oracle: Oracle::new(&setup),
            chance: None,
            dead_letters: Vec::new(),
            emitted: Vec::new(),
            purged: 0,
            releases: Vec::new(),
            forgetful: false,
            rewinds: 0,
            crashes: 0,
            flushes: BTreeMap::new(),
            last_flush: 0,
            observed: 0,
            audits: true,
            broken: None,
            trace: None,
            setup,
        }
    }

    pub(crate) fn group_of(&self, id: &RecordId) -> u16 {
        GroupCount::new(self.setup.groups).unwrap().group_of(id).0
    }

    pub(crate) fn break_off(&mut self, why: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let why = why();
            note!(self, "BROKEN: {why}");
            self.broken = Some(why);
        }
    }

    // ── The member list ────────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn assign(&mut self, group: u16, instance: Option<usize>) {
        self.revision += 1;
        self.list[usize::from(group)] = instance;
        note!(self, "list {}: group {group} to {instance:?}", self.revision);
    }

    /// An instance reads the member list; returns whether that told it something.
    pub(crate) fn learn(&mut self, index: usize, group: u16) -> bool {
        let news = (self.revision, self.list[usize::from(group)] == Some(index));
        let seat = &mut self.instances[index].seats[usize::from(group)];
        if !seat.reading && seat.told == Some(news) {
            return false;
        }
        seat.reading = false;
        seat.told = Some(news);
        let event = if news.1 { Event::Assigned(MembersRevision(news.0)) } else { Event::Unassigned };
        self.tell(index, group, event);
        true
    }

    // ── Holders ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Hands an event to a holder and carries its effects out.
    pub(crate) fn tell(&mut self, index: usize, group: u16, event: Event) {
        let instance = &mut self.instances[index];
        if !instance.up {
            return;
        }
        note!(self, "i{index}/{group} <- {}", brief(&event));
        let Ok(effects) = instance.seats[usize::from(group)].holder.handle(event, &instance.copy);
        if instance.aborted.swap(false, Ordering::SeqCst) {
            note!(self, "i{index} aborts");
            self.crash(index, CopyLeft::Committed);
            return;
        }
        for effect in effects {
            self.carry_out(index, group, effect);
        }
    }

    fn carry_out(&mut self, index: usize, group: u16, effect: Effect) {
        note!(self, "i{index}/{group} -> {}", brief_effect(&effect));
        let life = self.instances[index].life;
        let seat = &mut self.instances[index].seats[usize::from(group)];
        let to = Waiting { instance: index, life, group, generation: seat.generation };
        let request = match effect {
            Effect::PublishClaim { expected, claim } => Request::Claim { expected: expected.0, claim },
            Effect::CheckCommandLog { decided, log } => Request::Check { decided, log },
            Effect::Purge { below, decided, log } => Request::Purge { below, decided, log },
            Effect::Emit(emissions) => Request::Emit(emissions),
            Effect::Publish { claim, messages, .. } => return self.publish(to, claim.0, messages),
            Effect::OpenConsumer { after, .. } => {
                seat.consumer = Some(after.0);
                return;
            }
            Effect::Release(reason) => {
                seat.generation += 1;
                seat.consumer = None;
                self.releases.push(reason);
                return;
            }
            Effect::ReadMembers => {
                seat.reading = true;
                return;
            }
            Effect::Stopped => {
                seat.stopped = true;
                return;
            }
        };
        self.instances[index].wire.push_back(Sent { to, request });
    }

    fn publish(&mut self, to: Waiting, claim: u64, messages: Vec<freehold_core::FlushMessage>) {
        self.last_flush += 1;
        let flush = self.last_flush;
        let batch = self.setup.batched;
        let open = if batch { 1 } else { messages.len() };
        if messages.len() > 1000 {
            self.break_off(|| format!("a flush of {} messages", messages.len()));
        }
        self.flushes.insert(flush, Gathering { to, open, stored: Vec::new(), failure: None });
        let wire = &mut self.instances[to.instance].wire;
        if batch {
            wire.push_back(Sent { to, request: Request::Batch { claim, messages, flush } });
        } else {
            let each = messages.into_iter().enumerate();
            wire.extend(
                each.map(|(index, message)| Sent { to, request: Request::Message { claim, message, flush, index } }),
            );
        }
    }

    // ── Copies ─────────────────────────────────────────────────────────────────────────────────────────────────────

    /// An applier reads on and commits; returns whether there was something.
    pub(crate) fn apply(&mut self, index: usize, most: usize) -> bool {
        self.records.expire(self.now);
        let retention = self.setup.retention();
        let instance = &mut self.instances[index];
        if instance.applier_stopped || !instance.up {
            return false;
        }
        // Results that the log dropped since the applier was last at its end may never have been read.
        if self.now - instance.copy.caught_up >= retention.kept_in_log_ms() {
            instance.copy.outcomes_complete_from = self.now - retention.outcomes_ms;
            self.forgetful = true;
        }
        let mut anomalies = Vec::new();
        let mut count = 0;
        while count < most.min(MAX_APPLIED_AT_ONCE) {
            let Some(stored) = self.records.next_after(instance.copy.applied) else {
                instance.copy.caught_up = self.now;
                break;
            };
            anomalies.extend(instance.copy.apply(retention, &stored.message).anomaly);
            count += 1;
        }
        if let Some(anomaly) = anomalies.into_iter().find(|it| !matches!(it, freehold_core::Anomaly::Gap { .. })) {
            self.break_off(|| format!("i{index}: {anomaly}"));
        }
        count > 0
    }

    /// Tells holders that the copy has what they await.
    pub(crate) fn notify(&mut self, index: usize) -> bool {
        let mut told = false;
        for group in 0..self.setup.groups {
            let instance = &self.instances[index];
            let Some(seat) = instance.seats.get(usize::from(group)) else { break };
            if seat.holder.awaits().is_some_and(|awaited| awaited.0 <= instance.copy.applied) {
                told = true;
                self.tell(index, group, Event::CopyAdvanced);
            }
        }
        told
    }

    /// A group's consumer delivers what is there.
    pub(crate) fn deliver(&mut self, index: usize, group: u16, most: usize) -> bool {
        let Some(seat) = self.instances[index].seats.get_mut(usize::from(group)) else { return false };
        let Some(after) = seat.consumer else { return false };
        let commands: Vec<_> = self.commands.behind(group, after).take(most).collect();
        let Some(last) = commands.last() else { return false };
        seat.consumer = Some(last.sequence.0);
        self.tell(index, group, Event::Delivered(commands));
        true
    }
}
