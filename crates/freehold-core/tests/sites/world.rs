//! Three sites with two instances each, their logs, and chance.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use freehold_core::subject::{RecordsSubject, RecordsTopic};
use freehold_core::{
    Anomaly, CommandLogCheck, CommandMessage, CopyRead, CopyWrite as _, DecidedCommand, Effect, Emission, Event,
    FlushMessage, ForwardState, GroupNumber, KindDefinition, LogMessage, LogTime, LoggedCommand, MembersRevision,
    PublishFailure, RecordId, RecordState, RecordsBody, Status, StreamSequence, TakeoverEffect, TakeoverMessage, apply,
    apply_takeover, learn_takeover, read_body,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::copy::SitesCopy;
use crate::instance::{FIRST_LIFE, Instance, RETENTION};
use crate::rules::{append, definition, kind, rehome, site};

pub(crate) const SITES: usize = 3;
pub(crate) const INSTANCES: usize = 2;
/// Records of a run: many, or so few that logs drop updates of them.
const RECORDS: [usize; 2] = [9, 3];
/// All must be at rest after so many rounds without faults.
const MOST_ROUNDS: usize = 300;
/// An instance that is left alone wants no more done than this.
const MOST_ANSWERS: usize = 2_000;

/// A place in a records log.
pub(crate) enum Entry {
    Message(LogMessage),
    Takeover(TakeoverMessage),
}

pub(crate) struct Site {
    /// Nothing where a command was set aside.
    pub(crate) commands: Vec<Option<LoggedCommand>>,
    pub(crate) records: Vec<Entry>,
    /// Which life of its records log it is in.
    pub(crate) life: u64,
    /// What has ended the last one.
    pub(crate) ended_by: Option<TakeoverMessage>,
    /// How much of each site's log it has in a stream of its own.
    pub(crate) mirrors: [usize; SITES],
    /// Whose logs it takes no more of.
    pub(crate) sealed: [bool; SITES],
    /// It was taken over, and has not come back.
    pub(crate) lost: bool,
    claim: StreamSequence,
    revision: u64,
    /// Which instance the member list gives the group to.
    pub(crate) assigned: usize,
    /// Its clock is off by so much.
    clock_ms: u64,
    pub(crate) cut: bool,
}

/// What runs have met.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    commands: usize,
    forwards: usize,
    returns: usize,
    moves: usize,
    pub(crate) refused_publishes: usize,
    pub(crate) takeovers: usize,
    pub(crate) adopted: usize,
    pub(crate) stranded: usize,
    pub(crate) rebuilt: usize,
    pub(crate) dropped: usize,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Self) {
        self.commands += other.commands;
        self.forwards += other.forwards;
        self.returns += other.returns;
        self.moves += other.moves;
        self.refused_publishes += other.refused_publishes;
        self.takeovers += other.takeovers;
        self.adopted += other.adopted;
        self.stranded += other.stranded;
        self.rebuilt += other.rebuilt;
        self.dropped += other.dropped;
    }

    pub(crate) fn check(&self) {
        assert!(self.counts().iter().all(|(count, _)| *count > 0), "{self}");
    }

    fn counts(&self) -> [(usize, &'static str); 10] {
        [
            (self.commands, "commands"),
            (self.forwards, "forwards"),
            (self.returns, "returns"),
            (self.moves, "moves"),
            (self.refused_publishes, "refused publishes"),
            (self.takeovers, "takeovers"),
            (self.adopted, "adopted"),
            (self.stranded, "stranded"),
            (self.rebuilt, "copies made anew"),
            (self.dropped, "messages dropped before they were read"),
        ]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts().map(|(count, what)| format!("{count} {what}"));
        formatter.write_str(&counts.join(", "))
    }
}

pub(crate) struct World {
    pub(crate) chance: SmallRng,
    pub(crate) definition: Arc<KindDefinition>,
    pub(crate) batched: bool,
    pub(crate) sites: Vec<Site>,
    pub(crate) instances: Vec<Instance>,
    now: u64,
    next_command: usize,
    /// Every command with the sites that have taken it.
    sent: BTreeMap<String, (CommandMessage, BTreeSet<usize>)>,
    /// Commands that were set aside when a site came back, and where.
    pub(crate) stranded: Vec<(usize, CommandMessage)>,
    /// All that ever were.
    pub(crate) once_stranded: BTreeSet<String>,
    pub(crate) term: u64,
    /// Whether sites are lost in this run.
    losses: bool,
    records: usize,
    pub(crate) figures: Figures,
    told: bool,
}

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let mut chance = SmallRng::seed_from_u64(seed);
        let batched = chance.random_bool(0.3);
        let losses = chance.random_bool(0.7);
        let records = RECORDS[usize::from(chance.random_bool(0.4))];
        Self { losses, records, ..Self::with(chance, batched, told) }
    }

    /// A world in which nothing happens but what it is driven to.
    pub(crate) fn quiet(batched: bool) -> Self {
        Self::with(SmallRng::seed_from_u64(0), batched, true)
    }

    fn with(mut chance: SmallRng, batched: bool, told: bool) -> Self {
        let definition = definition();
        let mut site = || Site {
            commands: Vec::new(),
            records: Vec::new(),
            life: FIRST_LIFE,
            ended_by: None,
            mirrors: [0; SITES],
            sealed: [false; SITES],
            lost: false,
            claim: StreamSequence(0),
            revision: 0,
            assigned: 0,
            clock_ms: chance.random_range(0..7_200_000),
            cut: false,
        };
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
            stranded: Vec::new(),
            once_stranded: BTreeSet::new(),
            term: 0,
            losses: false,
            records: RECORDS[0],
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

    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.told {
            println!("{}", text());
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.now += self.chance.random_range(1..50);
        self.mirror();
        if self.losses {
            self.loss_step();
        }
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
            93..94 => self.tell(index, Event::PositionDue),
            94..95 => self.tell(index, Event::SayAgain),
            95..97 => {
                let at = self.chance.random_range(0..SITES);
                let (to, told) = (self.chance.random_range(0..INSTANCES), self.chance.random_bool(0.5));
                self.assign(at, to, told);
            }
            97..98 => {
                self.note(|| format!("{} crashes", name(index)));
                self.crash(index);
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
        let number = self.chance.random_range(0..self.records);
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

    pub(crate) fn take(&mut self, at: usize, message: CommandMessage) {
        let time = self.log_time(at);
        let log = &mut self.sites[at].commands;
        let sequence = StreamSequence(log.len() as u64 + 1);
        log.push(Some(LoggedCommand { sequence, time, message: Ok(message.clone()) }));
        self.note(|| format!("{} takes {} {} of {}", site(at), message.name, message.command_id, message.id));
        self.figures.commands += 1;
        let takers = self.sent.entry(message.command_id.to_string()).or_insert((message, BTreeSet::new()));
        takers.1.insert(at);
    }

    pub(crate) fn log_time(&self, at: usize) -> LogTime {
        LogTime(self.now + self.sites[at].clock_ms)
    }

    // ── Instances ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// The list gives the group to an instance; the other one may not hear of it.
    pub(crate) fn assign(&mut self, at: usize, to: usize, other_is_told: bool) {
        self.sites[at].revision += 1;
        self.sites[at].assigned = to;
        let revision = MembersRevision(self.sites[at].revision);
        for which in 0..INSTANCES {
            if which == to {
                self.tell(at * INSTANCES + which, Event::Assigned(revision));
            } else if other_is_told {
                self.tell(at * INSTANCES + which, Event::Unassigned);
            }
        }
    }

    /// Tells a holder something; it knows how far its site's mirrors are.
    fn tell(&mut self, index: usize, event: Event) {
        let instance = &mut self.instances[index];
        let Site { mirrors, sealed, .. } = &self.sites[instance.site];
        let others = (0..SITES).filter(|origin| *origin != instance.site);
        // Of a log that was cut nothing is read behind the cut.
        let is_cut = |origin: usize| {
            let knows = instance.copy.takeovers.of(&site(origin)).is_some();
            knows && sealed[origin] || is_cut_off(&instance.copy, origin, self.sites[origin].life)
        };
        let others = others.filter(|origin| !is_cut(*origin));
        let mirrored = others.map(|origin| (site(origin), StreamSequence(mirrors[origin] as u64)));
        instance.holder.set_mirrored(mirrored.collect());
        instance.tell(event);
    }

    /// The process dies and is started again on the copy that it had committed.
    pub(crate) fn crash(&mut self, index: usize) {
        let Site { life, ended_by, .. } = &self.sites[index / INSTANCES];
        self.instances[index].crash(&name(index), *life, &self.definition, self.batched);
        // Whoever starts in a new life of the log learns what has ended the last one.
        if let Some(message) = ended_by {
            let Ok(applied) = learn_takeover(&mut self.instances[index].copy, message);
            if let Some(effect) = applied.takeover {
                self.make_anew(index, &effect);
            }
        }
    }

    pub(crate) fn are_linked(&self, one: usize, other: usize) -> bool {
        one == other || !(self.sites[one].cut || self.sites[other].cut)
    }

    /// Mirrors come a little further.
    fn mirror(&mut self) {
        let (at, origin) = (self.chance.random_range(0..SITES), self.chance.random_range(0..SITES));
        if at != origin && self.are_linked(at, origin) && !self.sites[at].sealed[origin] {
            let (have, end) = (self.sites[at].mirrors[origin], self.sites[origin].records.len());
            self.sites[at].mirrors[origin] = self.chance.random_range(have..=end);
        }
    }

    /// A mirror takes all that there is.
    pub(crate) fn mirror_whole(&mut self, at: usize, origin: usize) {
        if self.are_linked(at, origin) && !self.sites[at].sealed[origin] {
            self.sites[at].mirrors[origin] = self.sites[origin].records.len();
        }
    }

    /// How much of a site's log an instance can read: at the origin, in the mirror, or up to a cut wherever that is.
    fn readable(&self, index: usize, origin: usize) -> usize {
        let Instance { site: at, copy, .. } = &self.instances[index];
        let here = self.sites[*at].mirrors[origin];
        if *at == origin {
            return self.sites[origin].records.len();
        }
        if let Some(takeover) = copy.takeovers.of(&site(origin))
            && (self.sites[*at].sealed[origin] || is_cut_off(copy, origin, self.sites[origin].life))
        {
            let holders = (0..SITES).filter(|other| takeover.sealed.contains_key(&site(*other)));
            let holders = holders.filter(|other| self.are_linked(*at, *other));
            let most = holders.map(|other| self.sites[other].mirrors[origin]).max().unwrap_or(here);
            return most.min(usize::try_from(takeover.cut.0).unwrap());
        }
        let at_origin = self.are_linked(*at, origin) && !self.sites[*at].sealed[origin];
        if at_origin { self.sites[origin].records.len() } else { here }
    }

    pub(crate) fn read(&mut self, index: usize, origin: usize, count: usize) {
        let at = self.instances[index].site;
        let end = self.readable(index, origin);
        let view = &self.sites[origin].records[..end];
        let read = read_into(&mut self.instances[index].copy, &name(index), (at, origin), view, count);
        let Read { routes_changed, taken_over, dropped } = read;
        self.figures.dropped += dropped;
        if let Some(effect) = taken_over {
            return self.make_anew(index, &effect);
        }
        if routes_changed || self.instances[index].holder.waits_for_sites() {
            self.tell(index, Event::RoutesChanged);
        }
        let instance = &self.instances[index];
        let Ok(applied) = instance.copy.applied(&site(at));
        if instance.holder.awaits().is_some_and(|awaited| awaited <= applied) {
            self.tell(index, Event::CopyAdvanced);
        }
    }

    pub(crate) fn deliver(&mut self, index: usize, count: usize) {
        let instance = &mut self.instances[index];
        let Some(after) = instance.consumer else { return };
        let log = &self.sites[instance.site].commands;
        let behind = log.iter().flatten().filter(|command| command.sequence > after);
        let commands: Vec<_> = behind.take(count).cloned().collect();
        if let Some(last) = commands.last() {
            instance.consumer = Some(last.sequence);
            self.tell(index, Event::Delivered(commands));
        }
    }

    pub(crate) fn hear(&mut self, index: usize) {
        if let Some(event) = self.instances[index].answers.pop_front() {
            self.tell(index, event);
        }
    }

    /// Carries the next effect out. With faults, publishes and their answers get lost.
    pub(crate) fn carry_out(&mut self, index: usize, faults: bool) -> Result<(), String> {
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
            Effect::CheckCommandLog { decided, .. } => {
                let place = usize::try_from(decided.sequence.0).unwrap() - 1;
                let found = self.sites[at].commands.get(place).and_then(Option::as_ref);
                let is_there = found.is_some_and(|found| is_same(found, &decided));
                let check = if is_there { CommandLogCheck::Matches } else { CommandLogCheck::Rewound };
                Event::CommandLogChecked(check)
            }
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
                    self.crash(index);
                    return Ok(());
                }
                Event::Emitted(Ok(()))
            }
            Effect::ReadMembers => {
                let Site { revision, assigned, .. } = self.sites[at];
                let ours = assigned == index % INSTANCES;
                let event = if ours { Event::Assigned(MembersRevision(revision)) } else { Event::Unassigned };
                self.tell(index, event);
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
        let (subject, payload) = (message.subject, message.payload.into());
        log.push(Entry::Message(LogMessage { sequence, time, subject, payload }));
        sequence
    }

    /// What a log has just taken.
    fn observe(&mut self, at: usize, sequence: StreamSequence) -> Result<(), String> {
        let entry = &self.sites[at].records[usize::try_from(sequence.0).unwrap() - 1];
        let Entry::Message(message) = entry else { return Ok(()) };
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
                self.tell(index, Event::PositionDue);
            }
            self.answer_all(index)?;
        }
        for index in 0..self.instances.len() {
            self.crash(index);
            self.read_all(index);
        }
        for at in 0..SITES {
            self.assign(at, 0, true);
        }
        let mut quiet_rounds = 0;
        for round in 0..MOST_ROUNDS {
            let before = self.ends();
            for at in 0..SITES {
                for origin in (0..SITES).filter(|origin| *origin != at) {
                    self.mirror_again(at, origin);
                    self.mirror_whole(at, origin);
                }
            }
            for index in 0..self.instances.len() {
                self.look_for_takeovers(index);
                self.go_on(index)?;
                self.adopt(index);
            }
            let at_rest = self.instances.iter().all(|it| it.effects.is_empty()) && self.stranded.is_empty();
            if round > 3 {
                self.send_stranded();
            }
            // What is logged in one round is mirrored in the next and waited for no longer in the one after that.
            quiet_rounds = if before == self.ends() && at_rest { quiet_rounds + 1 } else { 0 };
            if quiet_rounds > 2 && round > 3 {
                return Ok(());
            }
        }
        Err("no rest".to_owned())
    }

    /// An instance does all that it can.
    pub(crate) fn go_on(&mut self, index: usize) -> Result<(), String> {
        self.now += 1;
        self.read_all(index);
        self.deliver(index, usize::MAX);
        self.answer_all(index)?;
        if self.instances[index].holder.waits_for_sites() {
            self.tell(index, Event::RoutesChanged);
        }
        self.tell(index, Event::PositionDue);
        Ok(())
    }

    pub(crate) fn read_all(&mut self, index: usize) {
        for origin in 0..SITES {
            self.read(index, origin, usize::MAX);
        }
    }

    /// Everything that an instance wants done is done.
    pub(crate) fn answer_all(&mut self, index: usize) -> Result<(), String> {
        for _ in 0..MOST_ANSWERS {
            if self.instances[index].effects.is_empty() && self.instances[index].answers.is_empty() {
                return Ok(());
            }
            self.carry_out(index, false)?;
            self.hear(index);
            // A claim that was refused is only made again behind the newer one.
            self.read(index, index / INSTANCES, usize::MAX);
        }
        Err(format!("{} goes on for ever", name(index)))
    }

    pub(crate) fn ends(&self) -> Vec<usize> {
        self.sites.iter().flat_map(|site| [site.records.len(), site.commands.len()]).collect()
    }

    /// Nothing is lost, doubled or out of order; all copies are equal.
    pub(crate) fn judge(&mut self) -> Result<(), String> {
        for (index, instance) in self.instances.iter().enumerate() {
            self.note(|| format!("{}: {:?}", name(index), instance.holder));
            self.note(|| format!("{:?}", instance.copy.forwards));
        }
        let joiner = self.join();
        let first = &self.instances[0].copy;
        for (index, instance) in self.instances.iter().enumerate() {
            same(&name(index), &instance.copy, first)?;
        }
        same("a new one", &joiner, first)?;
        if let Some(key) = first.outcomes.keys().find(|key| !joiner.outcomes.contains_key(*key)) {
            return Err(format!("a new copy lacks the outcome of {key:?}"));
        }
        for outcome in first.outcomes.values() {
            for (number, emitted) in (0..).zip(&outcome.change.emits) {
                let child = (Some(emitted.id.clone()), outcome.change.command_id.emitted(number));
                if !first.outcomes.contains_key(&child) {
                    return Err(format!("{child:?} was asked for and not sent by {outcome:?}"));
                }
            }
        }
        for (command_id, (message, takers)) in &self.sent {
            let key = (Some(message.id.clone()), message.command_id.clone());
            let outcome = first.outcomes.get(&key).ok_or_else(|| format!("{command_id} has no outcome"))?;
            let applied = outcome.change.outcome.status == Status::Applied;
            let list = self.list(0, &message.id);
            let appends = message.name.as_str() == "append";
            if appends && !(applied && list.contains(command_id)) {
                return Err(format!("{command_id} of {takers:?} is lost: {outcome:?}"));
            }
        }
        // The order of one site's log, for commands that no other site was asked to take.
        for at in 0..SITES {
            let mut orders: BTreeMap<&RecordId, Vec<String>> = BTreeMap::new();
            for command in self.sites[at].commands.iter().flatten() {
                let message = command.message.as_ref().unwrap();
                let command_id = message.command_id.to_string();
                let order = orders.entry(&message.id).or_default();
                let alone = self.sent[&command_id].1.len() == 1 && message.name.as_str() == "append";
                let alone = alone && !self.once_stranded.contains(&command_id);
                if alone && !order.contains(&command_id) {
                    order.push(command_id);
                }
            }
            for (id, order) in orders {
                let list: Vec<_> = self.list(0, id).into_iter().filter(|it| order.contains(it)).collect();
                if list != order {
                    return Err(format!("{id}: {} took {order:?}, applied were {list:?}", site(at)));
                }
            }
        }
        Ok(())
    }

    /// A copy that is made of the logs as they are in the end, some of each at a time.
    fn join(&mut self) -> SitesCopy {
        let mut copy = SitesCopy::knowing(self.instances[0].copy.takeovers.clone());
        let mut unread: Vec<usize> = (0..SITES).collect();
        while !unread.is_empty() {
            let which = self.chance.random_range(0..unread.len());
            let (origin, count) = (unread[which], self.chance.random_range(1..40));
            let view = &self.sites[origin].records;
            read_into(&mut copy, "a new one", (SITES, origin), view, count);
            if copy.applied(&site(origin)) == Ok(StreamSequence(view.len() as u64)) {
                unread.remove(which);
            }
        }
        copy
    }

    /// The commands that have changed a record, by an instance's copy.
    pub(crate) fn list(&self, index: usize, id: &RecordId) -> Vec<String> {
        let record = self.instances[index].copy.records.get(id).and_then(|state| state.record.as_ref());
        record.map(|record| record.read().unwrap()).unwrap_or_default()
    }
}

/// What came of reading a log.
#[derive(Default)]
struct Read {
    routes_changed: bool,
    /// The copy is to be made anew.
    taken_over: Option<TakeoverEffect>,
    dropped: usize,
}

/// Reads a log into a copy at a site, behind what it has applied.
fn read_into(copy: &mut SitesCopy, who: &str, (at, origin): (usize, usize), view: &[Entry], count: usize) -> Read {
    let mut read = Read::default();
    let Ok(StreamSequence(applied)) = copy.applied(&site(origin));
    let dropped = dropped(view);
    let unread = view.iter().skip(usize::try_from(applied).unwrap());
    let mut left = count;
    for entry in unread {
        if let Entry::Message(message) = entry
            && dropped.contains(&message.sequence)
        {
            let Ok(()) = copy.put_dropped(&site(origin), message.sequence);
            read.dropped += 1;
            continue;
        }
        if left == 0 {
            break;
        }
        left -= 1;
        let Ok(applied) = match entry {
            Entry::Message(message) => apply(copy, RETENTION, message),
            Entry::Takeover(message) => apply_takeover(copy, &site(origin), message),
        };
        let is_whole = (0..SITES).all(|it| copy.dropped_until(&site(it)) == Ok(StreamSequence(0)));
        match applied.anomaly {
            Some(Anomaly::Gap { .. }) if !is_whole => {}
            Some(anomaly) => panic!("{who} reads of {}: {anomaly}", site(origin)),
            None => {}
        }
        read.routes_changed |= applied.routes_changed;
        if let Some(effect) = applied.takeover.filter(|effect| effect.is_ahead || at < SITES && effect.lost == site(at))
        {
            read.taken_over = Some(effect);
            break;
        }
    }
    read
}

/// Whether two copies that have read everything say the same. What they keep to judge messages to come may differ: one has
/// read what the other found dropped.
fn same(who: &str, copy: &SitesCopy, first: &SitesCopy) -> Result<(), String> {
    let told = |copy: &SitesCopy| -> Vec<_> {
        let told = |(id, state): (&RecordId, &RecordState)| {
            let RecordState { version, owner, epoch, time, record, hash, origin, sequence, moved, .. } = state.clone();
            (id.clone(), version, owner, epoch, time, record, hash, origin, sequence, moved)
        };
        copy.records.iter().map(told).collect()
    };
    let (ours, theirs) = (told(copy), told(first));
    if ours != theirs {
        let (ours, theirs): (Vec<_>, Vec<_>) = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).unzip();
        return Err(format!("{who} has {ours:?}, {} has {theirs:?}", name(0)));
    }
    if copy.digests != first.digests {
        return Err(format!("the digests of {who} are {:?}, those of {} {:?}", copy.digests, name(0), first.digests));
    }
    // That what came back and was decided is settled may have been said in a position that was dropped: it would be sent once more.
    let is_open = |state: &ForwardState| !(state.returned && state.decided);
    if let Some((key, state)) = copy.forwards.iter().find(|(_, state)| is_open(state)) {
        return Err(format!("{who} has a command on its way for ever: {key:?} {state:?}"));
    }
    Ok(())
}

/// What a log of which these are all messages has dropped: it keeps a number of each subject.
fn dropped(log: &[Entry]) -> BTreeSet<StreamSequence> {
    let (mut kept, mut dropped) = (HashMap::<&RecordsSubject, u64>::new(), BTreeSet::new());
    for entry in log.iter().rev() {
        let Entry::Message(message) = entry else { continue };
        let kept = kept.entry(&message.subject).or_default();
        *kept += 1;
        if *kept > RETENTION.history {
            dropped.insert(message.sequence);
        }
    }
    dropped
}

/// Whether a command of a log is the one that was decided.
fn is_same(found: &LoggedCommand, decided: &DecidedCommand) -> bool {
    let command_id = found.message.as_ref().map(|message| &message.command_id);
    found.time == decided.time_ms && command_id == Ok(&decided.command_id)
}

/// Whether a copy knows that a life of a site's log ends at a cut.
fn is_cut_off(copy: &SitesCopy, origin: usize, life: u64) -> bool {
    copy.takeovers.of(&site(origin)).is_some_and(|takeover| takeover.lost_log.counter() >= life)
}

pub(crate) fn name(index: usize) -> String {
    format!("{}-{}", site(index / INSTANCES), ["one", "two"][index % INSTANCES])
}
