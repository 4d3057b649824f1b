//! What scenarios are told with: a world without chance, in which every step is taken by name.

use freehold_core::subject::RecordsTopic;
use freehold_core::{
    CommandMessage, Event, Outcome, RecordId, RecordsBody, ReleaseReason, Status, StreamSequence, read_body,
};

use crate::client::{Answer, Call};
use crate::instance::CopyLeft;
use crate::rules::{Counter, Fields, command};
use crate::verdict;
use crate::world::{Fate, Setup, World};

/// Records of the first group where there is one group only.
pub(super) const A: &str = "ewr-a";
pub(super) const B: &str = "ewr-b";
pub(super) const C: &str = "ewr-c";

/// What a crashed process may find of its copy.
pub(super) const ALL_LEFT: [CopyLeft; 3] = [CopyLeft::Committed, CopyLeft::Fsynced, CopyLeft::Nothing];

/// Everything must come to rest in so many rounds.
const MOST_ROUNDS: usize = 60;

/// A world and its callers.
pub(super) struct Stage {
    pub(super) world: World,
    calls: Vec<Call>,
}

/// One of a stage's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller(usize);

impl Stage {
    /// A site in which instance 0 holds every group and the others stand by.
    #[track_caller]
    pub(super) fn held(setup: Setup) -> Self {
        let mut world = World::new(setup);
        world.trace = Some(Vec::new());
        let mut stage = Self { world, calls: Vec::new() };
        for group in 0..stage.world.setup.groups {
            stage.world.assign(group, Some(0));
        }
        stage.settle();
        for group in 0..stage.world.setup.groups {
            assert!(stage.holds(0, group), "instance 0 holds group {group}");
        }
        for instance in &mut stage.world.instances {
            instance.fsynced = instance.copy.clone();
        }
        stage
    }

    // ── Callers ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// A new caller sends a command with one number.
    pub(super) fn call(&mut self, id: &str, name: &str, n: i64) -> Caller {
        let command_id = format!("c{}", self.calls.len() + 1);
        self.send(command(id, name, &command_id, &Fields { n, ..Fields::default() }))
    }

    /// A new caller sends this command.
    pub(super) fn send(&mut self, message: CommandMessage) -> Caller {
        let mut call = Call::new(message);
        self.world.call(&mut call);
        self.calls.push(call);
        Caller(self.calls.len() - 1)
    }

    pub(super) fn message(&self, caller: Caller) -> CommandMessage {
        self.calls[caller.0].message.clone()
    }

    /// The caller sends the same command again, when the server has forgotten the first.
    pub(super) fn again(&mut self, caller: Caller) {
        self.all_again(&[caller]);
    }

    /// These callers send the same commands again.
    #[track_caller]
    pub(super) fn all_again(&mut self, callers: &[Caller]) {
        self.world.now += self.world.setup.duplicate_window_ms;
        for caller in callers {
            let before = self.world.commands.last();
            self.world.call(&mut self.calls[caller.0]);
            assert_eq!(self.world.commands.last(), before + 1, "a retry is a message of its own");
        }
    }

    /// What an instance answers now.
    pub(super) fn answer(&mut self, index: usize, caller: Caller) -> Option<Answer> {
        self.world.look(index, &mut self.calls[caller.0]);
        self.world.ask(index, &self.calls[caller.0].message)
    }

    /// The outcome that every instance answers with.
    #[track_caller]
    pub(super) fn outcome(&mut self, caller: Caller) -> Outcome {
        let answers: Vec<_> = (0..self.world.instances.len()).map(|index| self.answer(index, caller)).collect();
        let first = answers[0].clone();
        assert!(answers.iter().all(|answer| *answer == first), "{answers:?}");
        match first {
            Some(Answer::Outcome(outcome)) => outcome,
            other => self.fail(&format!("{caller:?} is answered {other:?}")),
        }
    }

    #[track_caller]
    pub(super) fn status(&mut self, caller: Caller) -> Status {
        self.outcome(caller).status
    }

    // ── Steps ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The consumer of the first group hands over what is there; what is decided waits on the wire.
    pub(super) fn decide(&mut self, index: usize) {
        self.world.deliver(index, 0, usize::MAX);
    }

    /// Requests of an instance that no server has taken yet.
    pub(super) fn on_the_wire(&self, index: usize) -> usize {
        self.world.instances[index].wire.len()
    }

    /// Each of the next requests meets the fate at its place.
    #[track_caller]
    pub(super) fn serve(&mut self, index: usize, fates: &[Fate]) {
        for fate in fates {
            assert!(self.world.serve_as(index, *fate), "a request for {fate:?}");
        }
    }

    /// Everything on the wire arrives.
    pub(super) fn serve_all(&mut self, index: usize) {
        while self.world.serve_as(index, Fate::Arrives) {}
    }

    /// The instance hears all its answers.
    pub(super) fn hear(&mut self, index: usize) {
        while !self.world.instances[index].answers.is_empty() {
            self.world.hear(index, 0);
        }
    }

    /// The applier reads all there is, and the holders hear of it.
    pub(super) fn read(&mut self, index: usize) {
        while self.world.apply(index, usize::MAX) {}
        self.world.notify(index);
    }

    /// One instance does all that it can, the others nothing.
    #[track_caller]
    pub(super) fn alone(&mut self, index: usize) {
        for _ in 0..MOST_ROUNDS {
            self.world.now += 1;
            if !self.world.go_on(index) {
                return;
            }
        }
        self.fail(&format!("instance {index} finds no end"));
    }

    /// Everybody does all that they can.
    #[track_caller]
    pub(super) fn settle(&mut self) {
        if !self.world.settle(MOST_ROUNDS) {
            self.fail("the world finds no end");
        }
        self.sound();
    }

    /// The first group goes to another instance, and only that one has read the new list.
    #[track_caller]
    pub(super) fn take_over(&mut self, index: usize) {
        self.world.assign(0, Some(index));
        self.alone(index);
        assert!(self.holds(index, 0), "instance {index} has taken over");
    }

    /// The process dies and is started again; it has done nothing yet.
    pub(super) fn restart(&mut self, index: usize, left: CopyLeft) {
        self.world.crash(index, left);
        self.world.start(index);
    }

    /// All faults end, everything comes to rest and is judged.
    #[track_caller]
    pub(super) fn rest(&mut self) {
        for instance in &mut self.world.instances {
            (instance.deaf, instance.applier_stopped) = (false, false);
        }
        for index in 0..self.world.instances.len() {
            if self.world.instances[index].paused_since.is_some() {
                self.world.resume(index);
            }
        }
        self.world.arrive_all_late();
        for _ in 0..MOST_ROUNDS {
            for index in 0..self.world.instances.len() {
                if !self.world.instances[index].up {
                    self.world.start(index);
                }
            }
            let settled = self.world.settle(MOST_ROUNDS);
            self.world.now += 50;
            self.world.positions_due();
            self.sound();
            if settled && self.world.settle(MOST_ROUNDS) && verdict::is_at_rest(&self.world) {
                return self.judge();
            }
        }
        let why = verdict::unrest(&self.world);
        self.fail(&format!("no rest: {why}"));
    }

    #[track_caller]
    fn judge(&mut self) {
        for call in &mut self.calls {
            for index in 0..self.world.instances.len() {
                self.world.look(index, call);
            }
        }
        self.sound();
        if let Err(why) = verdict::of(&self.world, &self.calls) {
            self.fail(&why);
        }
    }

    // ── What is to be seen ─────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn holds(&self, index: usize, group: u16) -> bool {
        self.world.instances[index].seats.get(usize::from(group)).is_some_and(|seat| seat.holder.holds().is_some())
    }

    /// Messages that the records log has ever taken.
    pub(super) fn logged(&self) -> u64 {
        self.world.records.last()
    }

    /// Updates of a record that the log has ever taken.
    pub(super) fn updates(&self, id: &str) -> usize {
        let id: RecordId = id.parse().unwrap();
        let bodies = self.world.records.shadow.iter().map(|stored| read_body(&stored.message).unwrap());
        bodies.filter(|body| matches!(body, RecordsBody::Update(update) if update.id == id)).count()
    }

    /// The updates whose outcomes results have repeated, in order.
    pub(super) fn carried(&self) -> Vec<StreamSequence> {
        let bodies = self.world.records.shadow.iter().map(|stored| read_body(&stored.message).unwrap());
        let carried =
            bodies.filter_map(|body| if let RecordsBody::Result(result) = body { Some(result.carries) } else { None });
        carried.flatten().map(|carried| carried.sequence).collect()
    }

    /// Attempts that the log has ever taken.
    pub(super) fn attempts(&self) -> usize {
        let topics = self.world.records.shadow.iter().map(|stored| &stored.message.subject.topic);
        topics.filter(|topic| **topic == RecordsTopic::Attempt).count()
    }

    /// Positions that began a new life of the command log.
    pub(super) fn lives(&self) -> usize {
        let bodies = self.world.records.shadow.iter().map(|stored| read_body(&stored.message).unwrap());
        bodies.filter(|body| matches!(body, RecordsBody::Position(position) if position.decided.is_none())).count()
    }

    /// The record as instance 0 has it.
    pub(super) fn counter(&self, id: &str) -> Option<i64> {
        let state = self.world.instances[0].copy.records.get(&id.parse().unwrap())?;
        state.record.as_ref().map(|record| record.read::<Counter>().unwrap().n)
    }

    /// The record's version as instance 0 has it.
    pub(super) fn version(&self, id: &str) -> u64 {
        self.world.instances[0].copy.records.get(&id.parse().unwrap()).map_or(0, |state| state.version.0)
    }

    pub(super) fn last_release(&self) -> Option<&ReleaseReason> {
        self.world.releases.last()
    }

    /// Hands an event to the first group's holder of an instance.
    pub(super) fn tell(&mut self, index: usize, event: Event) {
        self.world.tell(index, 0, event);
    }

    /// Nothing has happened that must not.
    #[track_caller]
    pub(super) fn sound(&self) {
        if let Some(why) = &self.world.broken {
            self.fail(why);
        }
    }

    #[track_caller]
    pub(super) fn fail(&self, why: &str) -> ! {
        panic!("{}\n{why}", self.world.trace.as_deref().unwrap_or_default().join("\n"));
    }
}

/// A world of one message a publish, and one of atomic batches.
pub(super) fn both_ways(check: impl Fn(Setup)) {
    for batched in [false, true] {
        check(Setup { batched, ..Setup::default() });
    }
}
