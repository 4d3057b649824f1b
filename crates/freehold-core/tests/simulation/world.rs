//! A site: two logs, some instances, a member list, and everything that is on the wire between them.
//!
//! The world does one small thing at a time, in an order that the random run or a scenario chooses. What happens to a
//! message on its way is its [`Fate`]: drawn from the seed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use freehold_core::{
    CommandLogCheck, CommandMessage, DeadLetter, Effect, Emission, EmitFailure, Event, GroupCount, MembersRevision,
    PublishFailure, RecordId, ReleaseReason, Retention, StreamSequence,
};

use crate::command_log::{CommandLog, Entry};
use crate::instance::{CopyLeft, Instance, Request, Sent, Waiting};
use crate::oracle::Oracle;
use crate::random::Chance;
use crate::records_log::{RecordsLog, Refused};
use crate::rules::{Rules, silence_poison};

/// The first moment of every world, in log time.
pub(crate) const START: u64 = 1_000_000;
/// How the server refuses what it can never take.
pub(crate) const TOO_LARGE: &str = "more than the server takes";
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
    pub(crate) max_commands: usize,
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
            max_commands: 100_000,
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
struct Gathering {
    to: Waiting,
    open: usize,
    stored: Vec<(usize, u64)>,
    failure: Option<PublishFailure>,
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
    flushes: BTreeMap<u64, Gathering>,
    last_flush: u64,
    observed: usize,
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
            commands: CommandLog::new(setup.duplicate_window_ms, setup.max_commands),
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
            Effect::Publish { claim, messages } => return self.publish(to, claim.0, messages),
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

    // ── The wire ───────────────────────────────────────────────────────────────────────────────────────────────────

    /// The server, or the network, takes the next request of an instance.
    pub(crate) fn serve(&mut self, index: usize) -> bool {
        let Some(sent) = self.instances[index].wire.pop_front() else {
            return false;
        };
        let fate = self.fate();
        note!(self, "i{index}/{} {} {fate:?}", sent.to.group, brief_request(&sent.request));
        match fate {
            Fate::Arrives => {
                self.arrive(&sent, true);
            }
            Fate::AnswerLost => {
                self.arrive(&sent, false);
                self.unanswered(&sent);
            }
            Fate::Lost => self.unanswered(&sent),
            Fate::Delayed => {
                self.unanswered(&sent);
                self.limbo.push((sent, self.now));
            }
        }
        true
    }

    /// A delayed request arrives after all, unless its connection is long closed.
    pub(crate) fn arrive_late(&mut self, place: usize) {
        let (sent, since) = self.limbo.swap_remove(place);
        if sent.request.is_fenced() || self.now - since < CONNECTION_ENDS_MS {
            note!(self, "i{}/{} {} arrives late", sent.to.instance, sent.to.group, brief_request(&sent.request));
            self.arrive(&sent, false);
        }
    }

    /// Everything that is on its way arrives.
    pub(crate) fn arrive_all_late(&mut self) {
        while !self.limbo.is_empty() {
            self.arrive_late(0);
        }
    }

    fn fate(&mut self) -> Fate {
        self.chance.as_mut().map_or(Fate::Arrives, Chance::fate)
    }

    fn unanswered(&mut self, sent: &Sent) {
        let unknown = || PublishFailure::Unknown("no answer".to_owned());
        match &sent.request {
            Request::Claim { .. } => self.answer(sent.to, Event::Claimed(Err(unknown()))),
            Request::Message { flush, .. } | Request::Batch { flush, .. } => {
                self.gather(*flush, |gathering| gathering.failure = Some(unknown()));
            }
            Request::Check { .. } => self.answer(sent.to, Event::CommandLogChecked(CommandLogCheck::Unknown)),
            Request::Purge { .. } => self.answer(sent.to, Event::Purged(CommandLogCheck::Unknown)),
            Request::Emit(_) => {
                self.answer(sent.to, Event::Emitted(Err(EmitFailure("no answer".to_owned()))));
            }
        }
    }

    /// Carries a request out at the server.
    fn arrive(&mut self, sent: &Sent, answered: bool) {
        let (to, now) = (sent.to, self.now);
        self.records.expire(now);
        let event = match &sent.request {
            Request::Claim { expected, claim } => {
                let stored = self.records.publish_claim(to.group, *expected, claim, now);
                Event::Claimed(stored.map(StreamSequence).map_err(|Refused| PublishFailure::Refused))
            }
            Request::Message { claim, message, flush, index } => {
                let stored = self.records.publish(*claim, message, now);
                if answered {
                    self.gather(*flush, |gathering| match stored {
                        Ok(sequence) => gathering.stored.push((*index, sequence)),
                        Err(Refused) => gathering.failure = Some(PublishFailure::Refused),
                    });
                }
                return self.observe();
            }
            Request::Batch { claim, messages, flush } => {
                let stored = self.records.publish_batch(*claim, messages, now);
                if answered {
                    self.gather(*flush, |gathering| match stored {
                        Ok(sequences) => gathering.stored.extend(sequences.into_iter().enumerate()),
                        Err(Refused) => gathering.failure = Some(PublishFailure::Refused),
                    });
                }
                return self.observe();
            }
            Request::Check { decided, log } => Event::CommandLogChecked(self.commands.check(decided, *log)),
            Request::Purge { below, decided, log } => {
                let check = self.commands.check(decided, *log);
                if check == CommandLogCheck::Matches {
                    self.purge(to.group, below.sequence.0);
                }
                Event::Purged(check)
            }
            Request::Emit(emissions) => Event::Emitted(self.emit(emissions)),
        };
        self.observe();
        if answered {
            self.answer(to, event);
        }
    }

    fn gather(&mut self, flush: u64, take: impl FnOnce(&mut Gathering)) {
        let Some(gathering) = self.flushes.get_mut(&flush) else { return };
        take(gathering);
        gathering.open -= 1;
        if gathering.open > 0 {
            return;
        }
        let Some(Gathering { to, mut stored, failure, .. }) = self.flushes.remove(&flush) else { return };
        stored.sort_unstable();
        let sequences = stored.into_iter().map(|(_, sequence)| StreamSequence(sequence)).collect();
        self.answer(to, Event::Published(failure.map_or(Ok(sequences), Err)));
    }

    fn answer(&mut self, to: Waiting, event: Event) {
        let instance = &mut self.instances[to.instance];
        if instance.up && instance.life == to.life {
            instance.answers.push((to, event));
        }
    }

    /// An instance hears one of its answers.
    pub(crate) fn hear(&mut self, index: usize, place: usize) {
        let (to, event) = self.instances[index].answers.remove(place);
        if self.instances[index].seats[usize::from(to.group)].generation == to.generation {
            self.tell(index, to.group, event);
        }
    }

    fn emit(&mut self, emissions: &[Emission]) -> Result<(), EmitFailure> {
        for emission in emissions {
            match emission {
                Emission::DeadLetter(letter) => {
                    let bytes = serde_json::to_vec(letter).unwrap().len();
                    if bytes >= self.setup.max_payload_bytes {
                        return Err(EmitFailure(format!("a dead letter of {bytes} bytes")));
                    }
                    self.dead_letters.push(letter.clone());
                }
                Emission::Command(command) => {
                    self.emitted.push(command.clone());
                    // Requests are refused before the log is full: what decisions ask for must find room.
                    self.commands.limit += 1;
                    let sent = self.send(command);
                    self.commands.limit -= 1;
                    sent.map_err(|why| EmitFailure(why.to_owned()))?;
                }
            }
        }
        Ok(())
    }

    /// Publishes a command to its group.
    pub(crate) fn send(&mut self, command: &CommandMessage) -> Result<u64, &'static str> {
        self.oracle.sent(command);
        let payload = serde_json::to_vec(command).unwrap();
        let group = self.group_of(&command.id);
        self.log_command(group, payload, Some(command.message_id()))
    }

    /// Puts any bytes into a group's commands.
    pub(crate) fn log_command(
        &mut self,
        group: u16,
        payload: Vec<u8>,
        message_id: Option<freehold_core::Hash>,
    ) -> Result<u64, &'static str> {
        if payload.len() > self.setup.max_payload_bytes {
            return Err(TOO_LARGE);
        }
        let stored = self.commands.publish(group, payload, message_id, self.now);
        stored.map_err(|crate::command_log::Full| "the command log is full")
    }

    fn purge(&mut self, group: u16, below: u64) {
        let purged: Vec<(u64, Entry)> = self.commands.purge(group, below);
        note!(self, "purged group {group} below {below}: {} commands", purged.len());
        self.purged += purged.len();
        for (sequence, entry) in purged {
            if !self.is_decided(sequence, &entry) {
                self.break_off(|| format!("command {sequence} of group {group} was purged undecided"));
            }
        }
    }

    /// Whether the records log has, or ever had, an outcome of a logged command.
    pub(crate) fn is_decided(&self, sequence: u64, entry: &Entry) -> bool {
        let command = entry.read(sequence);
        match &command.message {
            Ok(message) if self.oracle.decided(&message.id, &message.command_id).is_some() => true,
            _ => (0..=self.rewinds).any(|life| {
                let life = freehold_core::CommandLogIncarnation(u64::from(life));
                let id = freehold_core::CommandId::of_unreadable(life, StreamSequence(sequence));
                self.oracle.decided.contains_key(&(None, id))
            }),
        }
    }

    fn observe(&mut self) {
        while let Some(stored) = self.records.shadow.get(self.observed).cloned() {
            self.observed += 1;
            if let Err(why) = self.oracle.observe(&stored.message) {
                self.break_off(|| why);
            }
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

    // ── Faults ─────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The process dies; nothing of what it had written arrives any more.
    pub(crate) fn crash(&mut self, index: usize, left: CopyLeft) {
        note!(self, "i{index} crashes, copy {left:?}");
        self.crashes += 1;
        self.instances[index].crash(left, START);
    }

    pub(crate) fn start(&mut self, index: usize) {
        note!(self, "i{index} starts");
        let setup = self.setup.clone();
        self.instances[index].start(index, &setup);
    }

    pub(crate) fn pause(&mut self, index: usize) {
        note!(self, "i{index} is paused");
        self.instances[index].paused_since = Some(self.now);
    }

    /// A paused process goes on where it was. The server has closed its connection if the pause was long.
    pub(crate) fn resume(&mut self, index: usize) {
        note!(self, "i{index} goes on");
        let since = self.instances[index].paused_since.take().unwrap_or(self.now);
        if self.now - since >= CONNECTION_ENDS_MS {
            self.disconnect(index);
        }
    }

    /// The connection breaks. What was written on it may still arrive, if it is fenced.
    pub(crate) fn disconnect(&mut self, index: usize) {
        note!(self, "i{index} is disconnected");
        let wire = std::mem::take(&mut self.instances[index].wire);
        let now = self.now;
        self.limbo.extend(wire.into_iter().filter(|sent| sent.request.is_fenced()).map(|sent| (sent, now)));
        for group in 0..self.setup.groups {
            self.tell(index, group, Event::Disconnected);
        }
    }

    /// The server dies and comes back without the newest commands: every connection and every consumer is gone.
    pub(crate) fn rewind_commands(&mut self, messages: u64) {
        note!(self, "the command log loses {messages} messages of {}", self.commands.last());
        self.commands.lose_tail(messages);
        self.rewinds += 1;
        self.forgetful = true;
        self.limbo.clear();
        for index in 0..self.instances.len() {
            self.instances[index].wire.clear();
            if self.instances[index].up {
                self.disconnect(index);
            }
        }
    }

    // ── Going on fairly ────────────────────────────────────────────────────────────────────────────────────────────

    /// Lets one instance do all that it can do now; returns whether there was something.
    pub(crate) fn go_on(&mut self, index: usize) -> bool {
        let mut busy = false;
        if !self.instances[index].runs() {
            return false;
        }
        for group in 0..self.setup.groups {
            if self.instances[index].up && !self.instances[index].deaf {
                busy |= self.learn(index, group);
            }
        }
        while self.serve(index) {
            busy = true;
        }
        while !self.instances[index].answers.is_empty() {
            busy = true;
            self.hear(index, 0);
        }
        busy |= self.apply(index, usize::MAX);
        busy |= self.notify(index);
        for group in 0..self.setup.groups {
            busy |= self.deliver(index, group, usize::MAX);
        }
        busy
    }

    /// Goes on until nothing happens any more; returns whether that came to an end.
    pub(crate) fn settle(&mut self, rounds: usize) -> bool {
        for _ in 0..rounds {
            self.now += 1;
            let busy = (0..self.instances.len()).fold(false, |busy, index| self.go_on(index) | busy);
            if !busy {
                return true;
            }
        }
        false
    }

    /// Time for all holders to log their positions.
    pub(crate) fn positions_due(&mut self) {
        for index in 0..self.instances.len() {
            for group in 0..self.setup.groups {
                if self.instances[index].runs() {
                    self.tell(index, group, Event::PositionDue);
                }
            }
        }
    }
}

fn brief(event: &Event) -> String {
    match event {
        Event::Delivered(commands) => {
            let commands: Vec<String> = commands
                .iter()
                .map(|it| match &it.message {
                    Ok(message) => format!("{}:{} {} {}", it.sequence, message.id, message.name, message.command_id),
                    Err(_) => format!("{}:unreadable", it.sequence),
                })
                .collect();
            format!("Delivered {}", commands.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn brief_effect(effect: &Effect) -> String {
    match effect {
        Effect::Publish { claim, messages } => {
            let subjects: Vec<String> = messages.iter().map(|message| message.subject.to_string()).collect();
            format!("Publish under {claim}: {}", subjects.join(", "))
        }
        Effect::Emit(emissions) => format!("Emit {}", emissions.len()),
        other => format!("{other:?}"),
    }
}

fn brief_request(request: &Request) -> String {
    match request {
        Request::Claim { expected, .. } => format!("claim over {expected}"),
        Request::Message { claim, message, .. } => {
            format!("{} under {claim}: {}", message.subject, String::from_utf8_lossy(&message.payload))
        }
        Request::Batch { claim, messages, .. } => {
            let all: Vec<String> = messages
                .iter()
                .map(|message| format!("{}: {}", message.subject, String::from_utf8_lossy(&message.payload)))
                .collect();
            format!("batch under {claim}: {}", all.join("\n                  "))
        }
        Request::Check { decided, .. } => format!("check {}", decided.sequence),
        Request::Purge { below, .. } => format!("purge below {}", below.sequence),
        Request::Emit(emissions) => format!("emit {}", emissions.len()),
    }
}
