//! Three sites with two instances each, their logs, and chance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use freehold_core::subject::{RecordsSubject, RecordsTopic};
use freehold_core::{
    CommandLogCheck, CommandMessage, CopyRead, Effect, Emission, Event, FlushMessage, GroupNumber, KindDefinition,
    LogMessage, LogTime, LoggedCommand, MembersRevision, PublishFailure, RecordId, RecordsBody, Status, StreamSequence,
    apply, read_body,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::instance::{Instance, RETENTION};
use crate::rules::{append, definition, kind, rehome, site};

const SITES: usize = 3;
const INSTANCES: usize = 2;
const RECORDS: usize = 9;
/// All must be at rest after so many rounds without faults.
const MOST_ROUNDS: usize = 300;

#[derive(Default)]
struct Site {
    commands: Vec<LoggedCommand>,
    records: Vec<LogMessage>,
    claim: StreamSequence,
    revision: u64,
    /// Which instance the member list gives the group to.
    assigned: usize,
    /// Its clock is off by so much.
    clock_ms: u64,
    cut: bool,
}

/// What runs have met.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    commands: usize,
    forwards: usize,
    returns: usize,
    moves: usize,
    refused_publishes: usize,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Self) {
        self.commands += other.commands;
        self.forwards += other.forwards;
        self.returns += other.returns;
        self.moves += other.moves;
        self.refused_publishes += other.refused_publishes;
    }

    pub(crate) fn check(&self) {
        let Self { commands, forwards, returns, moves, refused_publishes } = *self;
        assert!([commands, forwards, returns, moves, refused_publishes].iter().all(|count| *count > 0), "{self}");
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commands, forwards, returns, moves, refused_publishes } = self;
        write!(
            formatter,
            "{commands} commands, {forwards} forwards, {returns} returns, {moves} moves, {refused_publishes} refused publishes"
        )
    }
}

pub(crate) struct World {
    chance: SmallRng,
    definition: Arc<KindDefinition>,
    batched: bool,
    sites: Vec<Site>,
    instances: Vec<Instance>,
    now: u64,
    next_command: usize,
    /// Every command with the sites that have taken it.
    sent: BTreeMap<String, (CommandMessage, BTreeSet<usize>)>,
    figures: Figures,
    told: bool,
}

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let mut chance = SmallRng::seed_from_u64(seed);
        let definition = definition();
        let batched = chance.random_bool(0.3);
        let mut site = || Site { clock_ms: chance.random_range(0..7_200_000), ..Site::default() };
        let sites = (0..SITES).map(|_| site()).collect();
        let instance = |index: usize| Instance::new(index / INSTANCES, &name(index), &definition, batched);
        let instances = (0..SITES * INSTANCES).map(instance).collect();
        let mut world = Self {
            chance,
            definition: Arc::clone(&definition),
            batched,
            sites,
            instances,
            now: 10_000_000,
            next_command: 0,
            sent: BTreeMap::new(),
            figures: Figures::default(),
            told,
        };
        for at in 0..SITES {
            world.assign(at, 0, true);
        }
        world
    }

    pub(crate) fn figures(&self) -> Figures {
        self.figures
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if self.told {
            println!("{}", text());
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.now += self.chance.random_range(1..50);
        let index = self.chance.random_range(0..self.instances.len());
        match self.chance.random_range(0..100) {
            0..12 => self.send(),
            12..15 => self.send_again(),
            15..18 => self.give_away(),
            18..45 => {
                let origin = self.chance.random_range(0..SITES);
                let count = self.chance.random_range(1..8);
                self.read(index, origin, count);
            }
            45..62 => {
                let count = self.chance.random_range(1..6);
                self.deliver(index, count);
            }
            62..84 => self.carry_out(index, true)?,
            84..93 => self.hear(index),
            93..94 => self.instances[index].tell(Event::PositionDue),
            94..95 => self.instances[index].tell(Event::SayAgain),
            95..97 => {
                let at = self.chance.random_range(0..SITES);
                let (to, told) = (self.chance.random_range(0..INSTANCES), self.chance.random_bool(0.5));
                self.assign(at, to, told);
            }
            97..98 => {
                self.note(|| format!("{} crashes", name(index)));
                self.instances[index].crash(&name(index), &self.definition, self.batched);
            }
            _ => {
                let at = self.chance.random_range(0..SITES);
                self.sites[at].cut = !self.sites[at].cut;
                self.note(|| format!("{} is cut: {}", site(at), self.sites[at].cut));
            }
        }
        Ok(())
    }

    // ── Callers ────────────────────────────────────────────────────────────────────────────────────────────────────

    fn record(&mut self) -> RecordId {
        let number = self.chance.random_range(0..RECORDS);
        format!("{}-{number}", site(number % SITES)).parse().unwrap()
    }

    /// The right to create ids of a site, all of them or some.
    fn home_right(&mut self) -> RecordId {
        let home = site(self.chance.random_range(0..SITES));
        let prefix = match self.chance.random_range(0..3) {
            0 => String::new(),
            1 => format!("{home}-"),
            _ => self.record().to_string(),
        };
        RecordId::of_home_right(GroupNumber(0), &home, &prefix).unwrap()
    }

    fn send(&mut self) {
        let at = self.chance.random_range(0..SITES);
        let id = self.record();
        let then = self.chance.random_bool(0.1).then(|| self.record());
        self.next_command += 1;
        let command_id = format!("c{}", self.next_command);
        self.take(at, append(&id, &command_id, then));
    }

    /// A caller that has heard nothing asks again, here or elsewhere.
    fn send_again(&mut self) {
        if self.next_command > 0 {
            let number = self.chance.random_range(0..self.next_command) + 1;
            let at = self.chance.random_range(0..SITES);
            if let Some((message, _)) = self.sent.get(&format!("c{number}")).cloned() {
                self.take(at, message);
            }
        }
    }

    fn give_away(&mut self) {
        let (at, to) = (self.chance.random_range(0..SITES), self.chance.random_range(0..SITES));
        let id = if self.chance.random_bool(0.3) { self.home_right() } else { self.record() };
        self.next_command += 1;
        self.take(at, rehome(&id, &format!("c{}", self.next_command), site(to)));
    }

    fn take(&mut self, at: usize, message: CommandMessage) {
        let time = self.log_time(at);
        let log = &mut self.sites[at].commands;
        let sequence = StreamSequence(log.len() as u64 + 1);
        log.push(LoggedCommand { sequence, time, message: Ok(message.clone()) });
        self.note(|| format!("{} takes {} {} of {}", site(at), message.name, message.command_id, message.id));
        self.figures.commands += 1;
        let takers = self.sent.entry(message.command_id.to_string()).or_insert((message, BTreeSet::new()));
        takers.1.insert(at);
    }

    fn log_time(&self, at: usize) -> LogTime {
        LogTime(self.now + self.sites[at].clock_ms)
    }

    // ── Instances ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// The list gives the group to an instance; the other one may not hear of it.
    fn assign(&mut self, at: usize, to: usize, other_is_told: bool) {
        self.sites[at].revision += 1;
        self.sites[at].assigned = to;
        let revision = MembersRevision(self.sites[at].revision);
        for which in 0..INSTANCES {
            let instance = &mut self.instances[at * INSTANCES + which];
            if which == to {
                instance.tell(Event::Assigned(revision));
            } else if other_is_told {
                instance.tell(Event::Unassigned);
            }
        }
    }

    fn read(&mut self, index: usize, origin: usize, count: usize) {
        let at = self.instances[index].site;
        if origin != at && (self.sites[at].cut || self.sites[origin].cut) {
            return;
        }
        let instance = &mut self.instances[index];
        let Ok(StreamSequence(applied)) = instance.copy.applied(&site(origin));
        let mut routes_changed = false;
        for message in self.sites[origin].records.iter().skip(usize::try_from(applied).unwrap()).take(count) {
            let Ok(applied) = apply(&mut instance.copy, RETENTION, message);
            if let Some(anomaly) = applied.anomaly {
                panic!("{} reads {} of {}: {anomaly}", name(index), message.sequence, site(origin));
            }
            routes_changed |= applied.routes_changed;
        }
        if routes_changed || instance.holder.waits_for_sites() {
            instance.tell(Event::RoutesChanged);
        }
        let Ok(applied) = instance.copy.applied(&site(at));
        if instance.holder.awaits().is_some_and(|awaited| awaited <= applied) {
            instance.tell(Event::CopyAdvanced);
        }
    }

    fn deliver(&mut self, index: usize, count: usize) {
        let instance = &mut self.instances[index];
        let Some(after) = instance.consumer else { return };
        let log = &self.sites[instance.site].commands;
        let commands: Vec<_> = log.iter().skip(usize::try_from(after.0).unwrap()).take(count).cloned().collect();
        if let Some(last) = commands.last() {
            instance.consumer = Some(last.sequence);
            instance.tell(Event::Delivered(commands));
        }
    }

    fn hear(&mut self, index: usize) {
        if let Some(event) = self.instances[index].answers.pop_front() {
            self.instances[index].tell(event);
        }
    }

    /// Carries the next effect out. With faults, publishes and their answers get lost.
    fn carry_out(&mut self, index: usize, faults: bool) -> Result<(), String> {
        let Some(effect) = self.instances[index].effects.pop_front() else { return Ok(()) };
        let at = self.instances[index].site;
        let answer = match effect {
            Effect::PublishClaim { expected, claim } => {
                if expected == self.sites[at].claim {
                    let topic = RecordsTopic::Claim;
                    let subject = RecordsSubject { site: site(at), kind: kind(), group: GroupNumber(0), topic };
                    let payload = serde_json::to_vec(&claim).unwrap();
                    let sequence = self.store(at, FlushMessage { subject, payload, ttl_ms: None });
                    self.sites[at].claim = sequence;
                    self.note(|| format!("{} claims at {sequence}", name(index)));
                    Event::Claimed(Ok(sequence))
                } else {
                    Event::Claimed(Err(PublishFailure::Refused))
                }
            }
            Effect::CheckCommandLog { .. } => Event::CommandLogChecked(CommandLogCheck::Matches),
            Effect::OpenConsumer { after, .. } => {
                self.instances[index].consumer = Some(after);
                return Ok(());
            }
            Effect::Publish { claim, messages, whole } => {
                Event::Published(self.publish(index, claim, messages, whole, faults)?)
            }
            Effect::Emit(emissions) => {
                // A holder that dies while it sends has sent a part.
                let part = if faults && self.chance.random_bool(0.1) { 0 } else { emissions.len() };
                for emission in emissions.into_iter().take(part) {
                    if let Emission::Command(command) = emission {
                        self.take(at, command);
                    }
                }
                if part == 0 {
                    self.instances[index].crash(&name(index), &self.definition, self.batched);
                    return Ok(());
                }
                Event::Emitted(Ok(()))
            }
            Effect::ReadMembers => {
                let Site { revision, assigned, .. } = self.sites[at];
                let ours = assigned == index % INSTANCES;
                let event = if ours { Event::Assigned(MembersRevision(revision)) } else { Event::Unassigned };
                self.instances[index].tell(event);
                return Ok(());
            }
            Effect::Purge { .. } => Event::Purged(CommandLogCheck::Matches),
            Effect::Release(_) | Effect::Stopped => return Ok(()),
        };
        self.instances[index].answers.push_back(answer);
        Ok(())
    }

    fn publish(
        &mut self,
        index: usize,
        claim: StreamSequence,
        messages: Vec<FlushMessage>,
        whole: bool,
        faults: bool,
    ) -> Result<Result<Vec<StreamSequence>, PublishFailure>, String> {
        let at = self.instances[index].site;
        if claim != self.sites[at].claim {
            self.figures.refused_publishes += 1;
            return Ok(Err(PublishFailure::Refused));
        }
        let unknown = || PublishFailure::Unknown("lost".to_owned());
        let whole = whole || self.batched;
        if faults && whole && self.chance.random_bool(0.04) {
            return Ok(Err(unknown()));
        }
        let mut stored = Vec::new();
        let mut lost = false;
        for message in messages {
            if faults && !whole && self.chance.random_bool(0.04) {
                lost = true;
            } else {
                let sequence = self.store(at, message);
                stored.push(sequence);
                self.observe(at, sequence)?;
            }
        }
        let answer_lost = faults && self.chance.random_bool(0.04);
        Ok(if lost || answer_lost { Err(unknown()) } else { Ok(stored) })
    }

    fn store(&mut self, at: usize, message: FlushMessage) -> StreamSequence {
        let time = self.log_time(at);
        let log = &mut self.sites[at].records;
        let sequence = StreamSequence(log.len() as u64 + 1);
        log.push(LogMessage { sequence, time, subject: message.subject, payload: message.payload.into() });
        sequence
    }

    /// What a log has just taken.
    fn observe(&mut self, at: usize, sequence: StreamSequence) -> Result<(), String> {
        let message = &self.sites[at].records[usize::try_from(sequence.0).unwrap() - 1];
        self.note(|| {
            format!("{} {sequence} {} {}", site(at), message.subject, String::from_utf8_lossy(&message.payload))
        });
        match read_body(message).unwrap() {
            RecordsBody::Update(update) if update.owner != site(at) => self.figures.moves += 1,
            RecordsBody::Update(update) if update.id.is_reserved() => {}
            RecordsBody::Update(update) => {
                let list: Vec<String> = update.record.unwrap().read().unwrap();
                let distinct: BTreeSet<_> = list.iter().collect();
                if distinct.len() != list.len() {
                    return Err(format!(
                        "{} {sequence}: a command was applied twice to {}: {list:?}",
                        site(at),
                        update.id
                    ));
                }
            }
            RecordsBody::Result(result) => {
                self.figures.forwards += result.forwards.len();
                self.figures.returns += result.returns.len();
            }
            _ => {}
        }
        Ok(())
    }

    // ── The end ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// All faults end; everybody does all that they can.
    pub(crate) fn come_to_rest(&mut self) -> Result<(), String> {
        self.note(|| "all faults end".to_owned());
        for at in 0..SITES {
            self.sites[at].cut = false;
        }
        // Who claims then hears of nothing that its copy does not know already, and its log delivers nothing again.
        for index in 0..self.instances.len() {
            for _ in 0..2 {
                self.answer_all(index)?;
                self.instances[index].tell(Event::PositionDue);
            }
            self.answer_all(index)?;
        }
        for index in 0..self.instances.len() {
            self.instances[index].crash(&name(index), &self.definition, self.batched);
            for origin in 0..SITES {
                self.read(index, origin, usize::MAX);
            }
        }
        for at in 0..SITES {
            self.assign(at, 0, true);
        }
        for round in 0..MOST_ROUNDS {
            let before = self.ends();
            for index in 0..self.instances.len() {
                self.now += 1;
                for origin in 0..SITES {
                    self.read(index, origin, usize::MAX);
                }
                self.deliver(index, usize::MAX);
                self.answer_all(index)?;
                if self.instances[index].holder.waits_for_sites() {
                    self.instances[index].tell(Event::RoutesChanged);
                }
                self.instances[index].tell(Event::PositionDue);
            }
            if before == self.ends() && round > 3 && self.instances.iter().all(|it| it.effects.is_empty()) {
                return Ok(());
            }
        }
        Err("no rest".to_owned())
    }

    /// Everything that an instance wants done is done.
    fn answer_all(&mut self, index: usize) -> Result<(), String> {
        while !self.instances[index].effects.is_empty() || !self.instances[index].answers.is_empty() {
            self.carry_out(index, false)?;
            self.hear(index);
            // A claim that was refused is only made again behind the newer one.
            self.read(index, index / INSTANCES, usize::MAX);
        }
        Ok(())
    }

    fn ends(&self) -> Vec<usize> {
        self.sites.iter().flat_map(|site| [site.records.len(), site.commands.len()]).collect()
    }

    /// Nothing is lost, doubled or out of order; all copies are equal.
    pub(crate) fn judge(&self) -> Result<(), String> {
        for (index, instance) in self.instances.iter().enumerate() {
            self.note(|| format!("{}: {:?}", name(index), instance.holder));
            self.note(|| format!("{:?}", instance.copy.forwards));
        }
        let first = &self.instances[0].copy;
        for (index, instance) in self.instances.iter().enumerate() {
            if instance.copy.records != first.records {
                let differing = first.records.iter().find(|(id, state)| instance.copy.records.get(*id) != Some(state));
                let ours = differing.and_then(|(id, _)| instance.copy.records.get(id));
                return Err(format!(
                    "the copies of {0} and {1} differ; {0} has {ours:?}, {1} {differing:?}",
                    name(index),
                    name(0)
                ));
            }
            if instance.copy.digests != first.digests {
                return Err(format!("the digests of {} and {} differ", name(index), name(0)));
            }
            if let Some((key, state)) = instance.copy.forwards.iter().next() {
                return Err(format!("{} has a command on its way for ever: {key:?} {state:?}", name(index)));
            }
        }
        for (command_id, (message, takers)) in &self.sent {
            let key = (Some(message.id.clone()), message.command_id.clone());
            let outcome = first.outcomes.get(&key).ok_or_else(|| format!("{command_id} has no outcome"))?;
            let applied = outcome.change.outcome.status == Status::Applied;
            let list = self.list(&message.id);
            let appends = message.name.as_str() == "append";
            if appends && !(applied && list.contains(command_id)) {
                return Err(format!("{command_id} of {takers:?} is lost: {outcome:?}"));
            }
        }
        // The order of one site's log, for commands that no other site was asked to take.
        for at in 0..SITES {
            let mut orders: BTreeMap<&RecordId, Vec<String>> = BTreeMap::new();
            for command in &self.sites[at].commands {
                let message = command.message.as_ref().unwrap();
                let command_id = message.command_id.to_string();
                let order = orders.entry(&message.id).or_default();
                let alone = self.sent[&command_id].1.len() == 1 && message.name.as_str() == "append";
                if alone && !order.contains(&command_id) {
                    order.push(command_id);
                }
            }
            for (id, order) in orders {
                let list: Vec<_> = self.list(id).into_iter().filter(|it| order.contains(it)).collect();
                if list != order {
                    return Err(format!("{id}: {} took {order:?}, applied were {list:?}", site(at)));
                }
            }
        }
        Ok(())
    }

    fn list(&self, id: &RecordId) -> Vec<String> {
        let record = self.instances[0].copy.records.get(id).and_then(|state| state.record.as_ref());
        record.map(|record| record.read().unwrap()).unwrap_or_default()
    }
}

fn name(index: usize) -> String {
    format!("{}-{}", site(index / INSTANCES), ["one", "two"][index % INSTANCES])
}
