//! The random run: a seed decides the site, the faults, the callers and the order of everything.

use freehold_core::{CommandMessage, Event, MembersRevision, RecordVersion};
use rand::RngExt;

use crate::chance::Chance;
use crate::client::Call;
use crate::instance::CopyLeft;
use crate::rules::{Fields, Rules, command};
use crate::verdict;
use crate::world::{Setup, World, note};

const STEPS: usize = 700;
/// Where the command log is bounded, requests are refused while it keeps so many commands.
const MARK: usize = 24;
/// The most commands that a decision asks for.
const MOST_EMITTED: usize = 2;
/// Records that all callers quarrel about: three at home here, one at another site, one without any home.
const IDS: [&str; 6] = ["ewr-a", "ewr-b", "ewr-c", "ewr-d", "lga-x", "NOWHERE-1"];

/// What a run came to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) decided: usize,
    pub(crate) updates: u64,
    pub(crate) claims: u64,
    pub(crate) crashes: u32,
    pub(crate) rewinds: u32,
    pub(crate) purged: usize,
    pub(crate) emitted: usize,
    /// Requests and emissions for which the command log had no room.
    pub(crate) refused: (usize, usize),
}

/// Whether the command log is ever full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commands {
    Unbounded,
    Bounded,
}

/// Runs a seed; an error tells what was broken, with the trace if asked for.
pub(crate) fn run(seed: u64, commands: Commands, traced: bool) -> Result<Told, String> {
    let mut run = Run::new(seed, commands, traced);
    run.faulty();
    let settled = run.quiet();
    if settled {
        let broken = verdict::of(&run.world, &run.calls);
        if let Err(why) = broken {
            run.world.break_off(|| why);
        }
    }
    let World { broken, trace, oracle, records, commands, crashes, rewinds, purged, emitted, .. } = run.world;
    match broken {
        None => Ok(Told {
            decided: oracle.decided.len(),
            updates: records
                .shadow
                .iter()
                .filter(|it| it.message.payload.starts_with(b"{\"log\":\"1-sim\",\"id\""))
                .count() as u64,
            claims: records.shadow.iter().filter(|it| it.message.subject.to_string().contains(".claim.")).count()
                as u64,
            crashes,
            rewinds,
            purged,
            emitted: emitted.len(),
            refused: commands.refused,
        }),
        Some(why) => Err(match trace {
            Some(trace) => format!("{}\n{why}", trace.join("\n")),
            None => why,
        }),
    }
}

struct Run {
    world: World,
    calls: Vec<Call>,
    next_call: usize,
    poisonous: bool,
}

impl Run {
    fn new(seed: u64, commands: Commands, traced: bool) -> Self {
        let mut chance = Chance::of_seed(seed);
        let command_mark = if commands == Commands::Bounded { MARK } else { 100_000 };
        // Room for all that a log full of commands can ask for; or scarce, where repeats of what was sent must not take it.
        let scarce = commands == Commands::Bounded && seed % 2 == 1;
        let setup = Setup {
            batched: chance.one_in(3),
            history: [8, 8, 10, 64][chance.below(4)],
            groups: if chance.one_in(2) { 1 } else { 2 },
            instances: 2 + chance.below(2),
            outcomes_ms: [20_000, 60_000][chance.below(2)],
            audit_window_ms: [0, 500, 3_000][chance.below(3)],
            duplicate_window_ms: [[1, 300, 5_000], [60_000; 3]][usize::from(scarce)][chance.below(3)],
            max_payload_bytes: [7_000, 12_000, 1 << 20][chance.below(3)],
            command_mark,
            command_headroom: if scarce { 2 } else { command_mark * MOST_EMITTED },
            rules: (0..3).map(|_| if chance.one_in(3) { Rules::New } else { Rules::Old }).collect(),
        };
        let poisonous = chance.one_in(3);
        let mut world = World::new(setup);
        world.trace = traced.then(Vec::new);
        note!(world, "seed {seed}: {:?} {chance:?}", world.setup);
        world.chance = Some(chance);
        for group in 0..world.setup.groups {
            world.assign(group, Some(usize::from(group)));
        }
        Self { world, calls: Vec::new(), next_call: 0, poisonous }
    }

    fn chance(&mut self) -> &mut Chance {
        self.world.chance.as_mut().unwrap()
    }

    fn faulty(&mut self) {
        for _ in 0..STEPS {
            if self.world.broken.is_some() {
                return;
            }
            let pause = self.chance().below(20) as u64;
            self.world.now += pause;
            let faults = self.chance().faults;
            let instances = self.world.instances.len();
            if self.chance().rng.random_range(0..1000) < faults {
                self.fault();
                continue;
            }
            let index = self.chance().below(instances);
            match self.chance().below(100) {
                0..20 => self.caller(),
                20..99 => self.progress(index),
                _ => {
                    self.world.tick_all(index);
                }
            }
        }
    }

    /// One small thing that an instance does.
    fn progress(&mut self, index: usize) {
        let groups = usize::from(self.world.setup.groups);
        let group = u16::try_from(self.chance().below(groups)).unwrap();
        let (dice, most) = (self.chance().below(100), 1 + self.chance().below(12));
        let instance = &self.world.instances[index];
        if !instance.runs() {
            return;
        }
        let answers = instance.answers.len();
        match dice {
            0..30 => {
                self.world.serve(index);
            }
            30..50 if answers > 0 => {
                let place = self.chance().below(answers);
                self.world.hear(index, place);
            }
            50..65 => {
                self.world.apply(index, most);
            }
            65..75 => {
                self.world.notify(index);
            }
            75..85 => {
                self.world.deliver(index, group, most);
            }
            85..90 => {
                self.world.learn(index, group);
            }
            90..93 => self.world.tell(index, group, Event::PositionDue),
            93..95 => self.world.instances[index].fsynced = self.world.instances[index].copy.clone(),
            95..97 => {
                let retention = self.world.setup.retention();
                self.world.instances[index].copy.expire(retention);
            }
            _ => {
                for _ in 0..most {
                    self.world.go_on(index);
                }
            }
        }
    }

    fn caller(&mut self) {
        let known = self.calls.len();
        if known == 0 || self.chance().below(100) < 45 {
            let message = self.new_command();
            let mut call = Call::new(message);
            if !self.chance().one_in(20) {
                self.world.call(&mut call);
            }
            self.calls.push(call);
            return;
        }
        // Mostly the newer calls, at times one from long ago.
        let oldest = if self.chance().one_in(3) { 0 } else { known.saturating_sub(8) };
        let place = oldest + self.chance().below(known - oldest);
        let mut call = self.calls[place].clone();
        let instances = self.world.instances.len();
        let index = self.chance().below(instances);
        self.world.look(index, &mut call);
        if (call.answer.is_none() || self.chance().one_in(4)) && self.world.may_retry(&call) {
            self.world.call(&mut call);
        }
        self.calls[place] = call;
    }

    fn new_command(&mut self) -> CommandMessage {
        self.next_call += 1;
        let number = self.next_call;
        let poisonous = self.poisonous;
        let chance = self.world.chance.as_mut().unwrap();
        let id = if chance.one_in(2) { IDS[0] } else { IDS[chance.below(IDS.len())] };
        let mut fields = Fields { n: chance.below(120) as i64, ..Fields::default() };
        let name = match chance.below(100) {
            0..15 => "create",
            15..60 => "add",
            60..65 => "replace",
            65..70 => "delete",
            70..78 => "touch",
            78..86 => {
                fields = Fields {
                    n: 1 + chance.below(MOST_EMITTED) as i64,
                    to: IDS[chance.below(4)].parse().ok(),
                    ..fields
                };
                "emit"
            }
            86..90 => {
                fields.pad = "x".repeat(chance.below(self.world.setup.max_payload_bytes.min(9_000)));
                "grow"
            }
            90..92 => "unheard-of",
            92..94 if poisonous => {
                fields.pad = "y".repeat(chance.below(6_000));
                "panic"
            }
            94..96 if poisonous => "abort",
            _ => "add",
        };
        let mut message = command(id, name, &format!("c{number}"), &fields);
        if chance.one_in(10) {
            message.if_version = Some(RecordVersion(chance.below(12) as u64));
        }
        if number > 1 && chance.one_in(12) && !self.calls.is_empty() {
            // A command id again, with other content or for another record.
            message.command_id = self.calls[chance.below(self.calls.len())].message.command_id.clone();
        }
        message
    }

    fn fault(&mut self) {
        let instances = self.world.instances.len();
        let index = self.chance().below(instances);
        let groups = usize::from(self.world.setup.groups);
        let group = u16::try_from(self.chance().below(groups)).unwrap();
        let (up, paused) = (self.world.instances[index].up, self.world.instances[index].paused_since.is_some());
        match self.chance().below(100) {
            0..22 if up => {
                let left = match self.chance().below(10) {
                    0..6 => CopyLeft::Committed,
                    6..9 => CopyLeft::Fsynced,
                    _ => CopyLeft::Nothing,
                };
                self.world.crash(index, left);
            }
            0..40 if !up => self.world.start(index),
            22..34 if up && !paused => self.world.pause(index),
            22..55 if paused => self.world.resume(index),
            34..42 if up && !paused => self.world.disconnect(index),
            55..68 => {
                let to = self.chance().below(instances + 1);
                self.world.assign(group, (to < instances).then_some(to));
            }
            68..76 if up && !paused => {
                // It believes that it has the group, by this list or an older one.
                let newest = usize::try_from(self.world.revision).unwrap();
                let revision = MembersRevision(self.chance().below(newest + 1) as u64);
                self.world.tell(index, group, Event::Assigned(revision));
            }
            76..84 if !self.world.limbo.is_empty() => {
                let waiting = self.world.limbo.len();
                let place = self.chance().below(waiting);
                self.world.arrive_late(place);
            }
            84..87 if up && !paused => {
                for group in 0..self.world.setup.groups {
                    self.world.tell(index, group, Event::Stop);
                }
            }
            87..90 => {
                let payload = self.odd_payload();
                note!(self.world, "odd payload for group {group}: {}", String::from_utf8_lossy(&payload));
                let _ = self.world.log_command(group, payload);
            }
            90..94 => {
                let jump = [1_000, 6_000, 25_000, 70_000][self.chance().below(4)];
                note!(self.world, "{jump} ms pass");
                self.world.now += jump;
            }
            94..96 => {
                let lost = self.chance().below(12) as u64;
                self.world.rewind_commands(lost);
            }
            _ => {
                let stopped = self.world.instances[index].seats.iter().all(|seat| seat.stopped);
                if up && !paused && stopped {
                    self.world.crash(index, CopyLeft::Committed);
                }
            }
        }
    }

    /// What no request handler would log.
    fn odd_payload(&mut self) -> Vec<u8> {
        let message = self.new_command();
        self.world.oracle.sent(&message);
        match self.chance().below(4) {
            0 => b"\xff not json".to_vec(),
            // Logged for whatever group: mostly the wrong one.
            1 => serde_json::to_vec(&message).unwrap(),
            2 => {
                let long = "k".repeat(5_000);
                format!("{{\"kind\":\"{long}\",\"id\":\"ewr-a\"}}").into_bytes()
            }
            _ => {
                let mut odd = serde_json::to_value(&message).unwrap();
                odd["command_id"] = "i".repeat(5_000).into();
                serde_json::to_vec(&odd).unwrap()
            }
        }
    }

    /// Faults stop, everybody comes back, callers ask until they are answered. Returns whether it all came to rest.
    fn quiet(&mut self) -> bool {
        note!(self.world, "quiet from here");
        self.chance().quiet();
        self.world.arrive_all_late();
        for round in 0..300 {
            for index in 0..self.world.instances.len() {
                let instance = &self.world.instances[index];
                let stopped = !instance.seats.is_empty() && instance.seats.iter().all(|seat| seat.stopped);
                let stopping = instance.up && instance.seats.iter().any(|seat| seat.stopped);
                if instance.paused_since.is_some() {
                    self.world.resume(index);
                } else if stopped || (stopping && round > 100) {
                    self.world.crash(index, CopyLeft::Committed);
                }
                if !self.world.instances[index].up {
                    self.world.start(index);
                }
            }
            if round == 0 {
                for group in 0..self.world.setup.groups {
                    let index = usize::from(group) % self.world.instances.len();
                    self.world.assign(group, Some(index));
                }
            }
            let settled = self.world.settle(50);
            self.world.now += 50;
            self.world.positions_due();
            let mut open = false;
            for place in 0..self.calls.len() {
                let mut call = self.calls[place].clone();
                for index in 0..self.world.instances.len() {
                    self.world.look(index, &mut call);
                }
                if call.answer.is_none() && self.world.may_retry(&call) {
                    open = true;
                    if round % 4 == 0 {
                        self.world.call(&mut call);
                    }
                }
                self.calls[place] = call;
            }
            if self.world.broken.is_some() {
                return false;
            }
            if settled && !open && self.world.settle(1) && verdict::is_at_rest(&self.world) {
                return true;
            }
        }
        let why = verdict::unrest(&self.world);
        self.world.break_off(|| format!("no rest after all faults have ended: {why}"));
        false
    }
}

impl World {
    /// An instance does everything that it can do, its positions included.
    fn tick_all(&mut self, index: usize) {
        for group in 0..self.setup.groups {
            if self.instances[index].runs() {
                self.tell(index, group, Event::PositionDue);
            }
        }
        self.go_on(index);
    }
}
