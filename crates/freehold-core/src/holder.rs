//! The holder of one group: a state machine without I/O.
//!
//! ```text
//!   Assigned                      Claimed(C)                 copy ≥ C, rewind check
//!  ──────────▶ Claiming ────────────────────▶ Barrier ────────────────────────────▶ Holding
//!      ▲          │ refused: read the list again                                      │  Delivered → flush → Published
//!      └──────────┴───────────────── Release: any doubt about a publish ◀─────────────┘
//! ```
//!
//! Events go in, [`Effect`]s come out; the runtime carries them out on a real log, the simulation on a simulated one. Safety
//! rests on the claim alone: whatever a holder publishes names its claim, and the log refuses it once a newer claim is
//! stored. At most one publish of a holder is under way at any time.

mod exchange;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::command::LoggedCommand;
use crate::copy::{CopyRead, GroupState, Lane, OutcomeOf};
use crate::envelope::{Attempt, Claim, DecidedCommand, Position};
use crate::flush::{
    Care, Emission, Flush, FlushContext, FlushMessage, FlushPlace, MAX_FLUSH_COMMANDS, Wanted, decide_flush,
    emissions_of, say_again,
};
use crate::hash::GroupDigest;
use crate::name::{InstanceName, Nonce, SiteName};
use crate::number::{CommandLogIncarnation, ForwardNumber, LogTime, MembersRevision, StreamSequence};
use crate::outcome::ForwardPlace;
use crate::overlay::{Overlay, Routing, View};
use crate::routes::{Incoming, Routes, Source, Unsent};
use crate::subject::RecordsTopic;

pub use self::exchange::{CommandLogCheck, Effect, EmitFailure, Event, PublishFailure, ReleaseReason};

/// Five attempts that ended with those who made them make a command dead.
pub const MAX_ATTEMPTS: u32 = 5;
/// So many attempts make it dead even where all who made them live on: something keeps them from logging its outcome.
pub const MAX_SURVIVED_ATTEMPTS: u32 = 100;

/// What stays the same over a holder's life.
#[derive(Debug, Clone)]
pub struct HolderOptions {
    /// What flushes need.
    pub flush: FlushContext,
    /// The instance.
    pub instance: InstanceName,
    /// Which life of it.
    pub nonce: Nonce,
    /// Publish a flush of several messages as one atomic batch: at R3 always, at R1 not.
    pub batched: bool,
    /// Commands are kept in the command log this long behind the position, in log time.
    pub audit_window_ms: u64,
}

/// The holder of one group.
#[derive(Debug)]
pub struct Holder {
    options: HolderOptions,
    state: State,
    assigned: Option<MembersRevision>,
    stopping: bool,
    /// Sites that do not answer.
    unreachable: BTreeSet<SiteName>,
    /// How far this site has the logs of others in streams of its own.
    mirrored: BTreeMap<SiteName, StreamSequence>,
    held: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not claiming and not holding.
    Idle,
    Claiming,
    /// The claim is stored; the copy has not applied it yet.
    Barrier(StreamSequence),
    /// The copy is complete up to the claim; the command log is being checked.
    Checking(StreamSequence),
    /// The command log was rewound; its new incarnation is being logged.
    Voiding(StreamSequence),
    /// The new incarnation is logged in this message; the copy has not applied it yet.
    Voided {
        claim: StreamSequence,
        logged: StreamSequence,
    },
    Holding(StreamSequence),
}

/// What a claim brings with it, and a release ends.
#[derive(Debug, Default)]
struct Held {
    overlay: Overlay,
    command_log: CommandLogIncarnation,
    waiting: VecDeque<LoggedCommand>,
    last_delivered: StreamSequence,
    under_way: Option<UnderWay>,
    results_published: u64,
    /// The copy had no outcome since several claims: one command at a time, each attempt logged first.
    careful: Option<Careful>,
    /// Stored and emitted.
    done: Option<DecidedCommand>,
    /// Decided, but behind a command that was deferred.
    ahead: Option<DecidedCommand>,
    logged_position: Option<DecidedCommand>,
    position_due: bool,
    /// Positions that are not yet beyond the audit window, oldest first.
    audit: VecDeque<DecidedCommand>,
    /// Being purged up to here.
    purging: Option<DecidedCommand>,
    decided_until: LogTime,
    /// Every waiting command is of a record that waits for the copy.
    stalled: bool,
    /// Something could not be sent: the holder lets go once its position is logged.
    not_emitted: Option<EmitFailure>,
    /// The ways of commands between sites; nothing where they must be read from the copy again.
    routes: Option<Routes>,
    /// Something waits for another site's log.
    waits_for_sites: bool,
    /// What is on its way is to be logged again.
    say_again: bool,
    /// What earlier holders have decided for other sites asks for something that they may not have sent.
    unsent: bool,
    ways: Ways,
    logged_ways: Ways,
    /// That came back and were decided, all that they ask for was sent, and no position says so.
    settled: Vec<ForwardPlace>,
}

/// How far commands between sites are dealt with: stored and emitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ways {
    sent: BTreeMap<SiteName, ForwardNumber>,
    received: BTreeMap<SiteName, ForwardNumber>,
}

impl Ways {
    fn advance(&mut self, by: &Self) {
        for (numbers, by) in [(&mut self.sent, &by.sent), (&mut self.received, &by.received)] {
            for (site, number) in by {
                let known = numbers.entry(site.clone()).or_default();
                *known = (*number).max(*known);
            }
        }
    }

    fn of(routing: &Routing) -> Self {
        let sent = routing.forwards.iter().map(|forward| (forward.place.to.clone(), forward.place.number));
        let received = routing.received.iter().map(|place| (place.from.clone(), place.number));
        // Numbers grow, so that the last of each site stays.
        Self { sent: sent.collect(), received: received.collect() }
    }
}

/// Something has killed the last holders before they could log an outcome: one of the commands that they decided together.
#[derive(Debug)]
struct Careful {
    /// The newest attempt that an earlier claim logged, or this one.
    earlier: Option<Attempt>,
    /// How many of those attempts may have killed who made them.
    deaths: usize,
    /// The next command that a rule must decide.
    wants: Option<Wanted>,
    /// Where the try at it stands.
    next: NextTry,
    /// How many more commands may have been in their hands.
    suspects: usize,
    /// Younger commands were not.
    claimed: LogTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextTry {
    /// Its attempt must be logged first.
    ToLog,
    /// Its attempt is logged: it may be decided.
    Logged,
    /// No attempt is left: it must be decided dead.
    Exhausted,
}

/// The one publish that is under way, and what follows when it is stored.
#[derive(Debug, Default)]
struct UnderWay {
    through: Option<DecidedCommand>,
    ways: Ways,
    /// That came back, whose outcomes ask for something.
    asking: Vec<ForwardPlace>,
    position: Option<(Option<DecidedCommand>, Ways)>,
    emissions: Vec<Emission>,
    /// It logs an attempt.
    attempt: bool,
    /// It carries outcomes.
    outcomes: bool,
    /// It decides a command whose attempt was logged.
    tried: bool,
    /// All of it must be stored or nothing.
    whole: bool,
    /// It is stored, and what it asks for is being sent.
    emitting: bool,
}

impl Holder {
    /// A holder of nothing.
    pub fn new(options: HolderOptions) -> Self {
        Self {
            options,
            state: State::Idle,
            assigned: None,
            stopping: false,
            unreachable: BTreeSet::new(),
            mirrored: BTreeMap::new(),
            held: Held::default(),
        }
    }

    /// The copy must apply this for the holder to go on; tell it with [`Event::CopyAdvanced`].
    pub fn awaits(&self) -> Option<StreamSequence> {
        match self.state {
            State::Barrier(claim) => Some(claim),
            State::Voided { logged, .. } => Some(logged),
            State::Holding(_) if self.held.stalled || self.held.position_due => self.held.overlay.last_stored(),
            _ => None,
        }
    }

    /// Whether [`Event::PositionDue`] would have something to log.
    pub fn position_moved(&self) -> bool {
        let Held { done, logged_position, ways, logged_ways, settled, .. } = &self.held;
        let moved = done != logged_position || ways != logged_ways || !settled.is_empty();
        matches!(self.state, State::Holding(_)) && moved
    }

    /// Whether a command waits for another site's log: [`Event::RoutesChanged`] then has it looked at again.
    pub fn waits_for_sites(&self) -> bool {
        matches!(self.state, State::Holding(_)) && self.held.waits_for_sites
    }

    /// Whether commands of this site are on their way to others. Results are kept for a limited time: [`Event::SayAgain`], half of W
    /// after the claim and then each half of W, keeps them in the log.
    pub fn has_sent(&self) -> bool {
        matches!(self.state, State::Holding(_)) && self.held.ways.sent.values().any(|sent| sent.0 > 0)
    }

    /// Says which sites do not answer. A command may ask to be refused then.
    pub fn set_unreachable(&mut self, sites: BTreeSet<SiteName>) {
        self.unreachable = sites;
    }

    /// Says how far this site has the logs of others in streams of its own, for those that may have been read further. No record
    /// that another site gives away is decided about before its release is there.
    pub fn set_mirrored(&mut self, mirrored: BTreeMap<SiteName, StreamSequence>) {
        self.mirrored = mirrored;
    }

    /// The newest position that commands are still kept behind. Once it has been that for the audit window,
    /// [`Event::AuditDue`] has something to purge.
    pub fn newest_audit(&self) -> Option<StreamSequence> {
        let newest = self.held.audit.back().filter(|_| matches!(self.state, State::Holding(_)));
        newest.map(|decided| decided.sequence)
    }

    /// The claim under which the group is held.
    pub fn holds(&self) -> Option<StreamSequence> {
        match self.state {
            State::Holding(claim) => Some(claim),
            _ => None,
        }
    }

    /// Commands that were delivered and are not decided.
    pub fn waiting(&self) -> usize {
        self.held.waiting.len()
    }

    /// Takes an event; returns what is to be done. An error means that the copy cannot be read: nothing was changed by
    /// the event that the caller could rely on, and the holder must be dropped.
    pub fn handle<C: CopyRead>(&mut self, event: Event, copy: &C) -> Result<Vec<Effect>, C::Error> {
        match event {
            Event::Assigned(revision) => {
                self.assigned = Some(revision);
                if self.state == State::Idle { self.claim(copy) } else { Ok(Vec::new()) }
            }
            Event::Unassigned => {
                self.assigned = None;
                Ok(self.let_go(ReleaseReason::Unassigned))
            }
            Event::Stop => {
                self.stopping = true;
                Ok(self.let_go(ReleaseReason::Stopping))
            }
            Event::CopyAdvanced => self.copy_advanced(copy),
            Event::Claimed(result) => self.claimed(result, copy),
            Event::CommandLogChecked(check) => self.checked(check, copy),
            Event::Delivered(commands) => self.delivered(commands, copy),
            Event::Published(result) => self.published(result, copy),
            Event::Emitted(result) => self.emitted(result, copy),
            Event::Purged(check) => {
                let below = self.held.purging.take();
                match (self.state, check) {
                    (State::Holding(_), CommandLogCheck::Rewound) => Ok(self.release(ReleaseReason::Rewound)),
                    (State::Holding(_), CommandLogCheck::Unknown) => {
                        // It is older than all that are left.
                        below.into_iter().for_each(|below| self.held.audit.push_front(below));
                        Ok(Vec::new())
                    }
                    _ => Ok(Vec::new()),
                }
            }
            Event::PositionDue => {
                let mut effects = self.purge(copy, 0)?;
                if self.position_moved() {
                    self.held.position_due = true;
                    effects.extend(self.advance(copy)?);
                }
                Ok(effects)
            }
            Event::RoutesChanged => {
                self.held.routes = None;
                self.held.waits_for_sites = false;
                self.advance(copy)
            }
            Event::SayAgain => {
                self.held.say_again = true;
                self.advance(copy)
            }
            Event::AuditDue => self.purge(copy, self.options.audit_window_ms),
            Event::Disconnected => {
                if self.state == State::Idle {
                    return Ok(Vec::new());
                }
                Ok(self.release(ReleaseReason::Disconnected))
            }
        }
    }

    fn group_state<C: CopyRead>(&self, copy: &C) -> Result<GroupState, C::Error> {
        let FlushContext { site, definition, group, .. } = &self.options.flush;
        copy.group(site, &definition.name, *group)
    }

    fn claim<C: CopyRead>(&mut self, copy: &C) -> Result<Vec<Effect>, C::Error> {
        let Some(members) = self.assigned.filter(|_| !self.stopping) else {
            return Ok(Vec::new());
        };
        let newest = self.group_state(copy)?.claim;
        if newest.as_ref().is_some_and(|(_, claim)| claim.members > members) {
            // A newer list exists: nobody claims over it with an older one.
            self.assigned = None;
            return Ok(vec![Effect::ReadMembers]);
        }
        self.state = State::Claiming;
        let claim = Claim {
            log: self.options.flush.log.clone(),
            instance: self.options.instance.clone(),
            nonce: self.options.nonce.clone(),
            members,
        };
        let expected = newest.map(|(sequence, _)| sequence).unwrap_or_default();
        Ok(vec![Effect::PublishClaim { expected, claim }])
    }

    fn claimed<C: CopyRead>(
        &mut self,
        result: Result<StreamSequence, PublishFailure>,
        copy: &C,
    ) -> Result<Vec<Effect>, C::Error> {
        if self.state != State::Claiming {
            return Ok(Vec::new());
        }
        match result {
            Ok(claim) => {
                self.state = State::Barrier(claim);
                self.copy_advanced(copy)
            }
            Err(failure) => Ok(self.release(ReleaseReason::Publish(failure))),
        }
    }

    /// At the barrier every message of an older claim is applied or will never be.
    fn copy_advanced<C: CopyRead>(&mut self, copy: &C) -> Result<Vec<Effect>, C::Error> {
        let applied = copy.applied(&self.options.flush.site)?;
        self.held.overlay.prune(applied);
        match self.state {
            State::Barrier(claim) if applied >= claim => {
                let group = self.group_state(copy)?;
                if group.claim.as_ref().map(|(sequence, _)| *sequence) != Some(claim) {
                    return Ok(self.release(ReleaseReason::Superseded));
                }
                self.state = State::Checking(claim);
                match group.highest {
                    Some(decided) => Ok(vec![Effect::CheckCommandLog { decided, log: group.log }]),
                    None => self.checked(CommandLogCheck::Matches, copy),
                }
            }
            State::Voided { claim, logged } if applied >= logged => {
                let group = self.group_state(copy)?;
                self.start(claim, &group, copy)
            }
            State::Holding(_) => {
                self.held.stalled = false;
                self.advance(copy)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn checked<C: CopyRead>(&mut self, check: CommandLogCheck, copy: &C) -> Result<Vec<Effect>, C::Error> {
        let State::Checking(claim) = self.state else {
            return Ok(Vec::new());
        };
        let group = self.group_state(copy)?;
        match check {
            CommandLogCheck::Unknown => Ok(self.release(ReleaseReason::NoAnswer)),
            CommandLogCheck::Matches => self.start(claim, &group, copy),
            CommandLogCheck::Rewound => {
                // The position is void: a new life of the command log begins, in which ids alone decide.
                let decided_until_ms = group.position.map(|decided| decided.time_ms).unwrap_or_default();
                let decided_until_ms = decided_until_ms.max(group.decided_until);
                let (sent, received) = (group.sent, group.emitted);
                let log = group.log.next();
                let (settled, digest) = (Vec::new(), None);
                let position = Position { log, decided: None, decided_until_ms, sent, received, settled, digest };
                self.state = State::Voiding(claim);
                let message = self.message(RecordsTopic::Position, &position);
                Ok(vec![Effect::Publish { claim, messages: vec![message], whole: false }])
            }
        }
    }

    fn start<C: CopyRead>(
        &mut self,
        claim: StreamSequence,
        group: &GroupState,
        copy: &C,
    ) -> Result<Vec<Effect>, C::Error> {
        let careful = (group.claims_since_outcome > 1).then(|| Careful {
            earlier: group.attempt.clone(),
            deaths: group.tried_by.len(),
            wants: None,
            next: NextTry::ToLog,
            suspects: MAX_FLUSH_COMMANDS,
            claimed: group.claim_time,
        });
        self.state = State::Holding(claim);
        self.held = Held {
            command_log: group.log,
            last_delivered: group.position_sequence(),
            careful,
            done: group.position.clone(),
            logged_position: group.position.clone(),
            audit: group.position.clone().into_iter().collect(),
            decided_until: group.decided_until,
            unsent: !group.received.is_empty() || !group.sent.is_empty(),
            ways: Ways { sent: group.sent.clone(), received: BTreeMap::new() },
            logged_ways: Ways { sent: group.sent.clone(), received: BTreeMap::new() },
            ..Held::default()
        };
        let mut effects = vec![Effect::OpenConsumer { claim, after: group.position_sequence() }];
        // What other sites have sent may wait already.
        effects.extend(self.advance(copy)?);
        Ok(effects)
    }

    fn delivered<C: CopyRead>(&mut self, commands: Vec<LoggedCommand>, copy: &C) -> Result<Vec<Effect>, C::Error> {
        if !matches!(self.state, State::Holding(_)) {
            return Ok(Vec::new());
        }
        for command in commands {
            if command.sequence <= self.held.last_delivered {
                let (last, got) = (self.held.last_delivered, command.sequence);
                return Ok(self.release(ReleaseReason::OutOfOrder { last, got }));
            }
            self.held.last_delivered = command.sequence;
            self.held.waiting.push_back(command);
        }
        self.advance(copy)
    }

    /// Publishes the next flush if nothing is under way.
    fn advance<C: CopyRead>(&mut self, copy: &C) -> Result<Vec<Effect>, C::Error> {
        let State::Holding(claim) = self.state else {
            return Ok(Vec::new());
        };
        loop {
            if self.held.under_way.is_some() || self.held.stalled {
                return Ok(Vec::new());
            }
            self.held.overlay.prune(copy.applied(&self.options.flush.site)?);
            self.read_routes(copy)?;
            if let Some(effects) = self.send_unsent(copy)? {
                return Ok(effects);
            }
            if let Some(effects) = self.attempt(claim) {
                return Ok(effects);
            }
            let (mut under_way, mut messages) = self.next_flush(claim, copy)?;
            // A position that goes alone waits for the copy, so that it can tell the group's digest.
            let waits = messages.is_empty() && self.held.overlay.last_stored().is_some();
            if !waits && std::mem::take(&mut self.held.position_due) {
                under_way.position = Some((self.held.done.clone(), self.held.ways.clone()));
                let alone = messages.is_empty() && self.held.overlay.is_empty();
                let digest = if alone { Some(self.digest(copy)?) } else { None };
                messages.push(self.position_message(digest));
            }
            if std::mem::take(&mut self.held.say_again) {
                let again = self.said_again(claim, copy)?;
                self.held.results_published += u64::try_from(again.len()).unwrap_or(u64::MAX);
                messages.extend(again);
            }
            if !messages.is_empty() {
                let whole = under_way.whole;
                self.held.under_way = Some(under_way);
                return Ok(vec![Effect::Publish { claim, messages, whole }]);
            }
            // What follows had an outcome already: there is nothing to store, at most something to emit again.
            if !under_way.emissions.is_empty() {
                let emissions = std::mem::take(&mut under_way.emissions);
                under_way.emitting = true;
                self.held.under_way = Some(under_way);
                return Ok(vec![Effect::Emit(emissions)]);
            }
            match under_way.through {
                Some(through) => self.held.done = Some(through),
                None if self.is_to_try() => {}
                None => return Ok(Vec::new()),
            }
        }
    }

    /// Decides what waits; the messages may be none.
    fn next_flush<C: CopyRead>(
        &mut self,
        claim: StreamSequence,
        copy: &C,
    ) -> Result<(UnderWay, Vec<FlushMessage>), C::Error> {
        let mut under_way = UnderWay::default();
        let mut routes = self.held.routes.take().unwrap_or_default();
        if self.held.waiting.is_empty() && routes.returned.is_empty() && routes.received.is_empty() {
            self.held.routes = Some(routes);
            return Ok((under_way, Vec::new()));
        }
        let commands = self.next_commands(&mut routes);
        let care = self.held.careful.as_ref().map_or(Care::None, |careful| match (&careful.wants, careful.next) {
            (Some(wanted), NextTry::Logged) => Care::One(&wanted.command),
            (Some(wanted), NextTry::Exhausted) => Care::Dead(&wanted.command),
            _ => Care::Until,
        });
        let place = FlushPlace {
            claim,
            command_log: self.held.command_log,
            results_published: self.held.results_published,
            batched: self.options.batched,
            // Also while the group is held: a copy may lag for so long that the log drops results before it has read them.
            outcomes_complete_from: copy
                .outcomes_complete_from(&self.options.flush.site)?
                .max(LogTime(self.held.decided_until.0 + 1)),
            unreachable: &self.unreachable,
            mirrored: &self.mirrored,
            care,
        };
        let view = self.view(copy);
        let flush = decide_flush(&self.options.flush, place, &view, &mut routes, commands)?;
        under_way.whole = flush.is_whole();
        under_way.ways = Ways::of(&flush.effects.routing);
        under_way.asking.clone_from(&flush.effects.routing.asking);
        self.held.waits_for_sites = flush.waits_for_sites;
        let Flush { messages, result_messages, effects, emissions, through, ahead, deferred, wants, tried, .. } = flush;
        // Where the one that was tried could not go yet, another may be first by now.
        let moves_on = |careful: &&mut Careful| tried || wants.is_some() || careful.next == NextTry::ToLog;
        if let Some(careful) = self.held.careful.as_mut().filter(moves_on) {
            careful.next = NextTry::ToLog;
            careful.wants = wants;
        }
        under_way.tried = tried;
        let to_try = self.is_to_try();
        let deferred = put_back(&mut routes, deferred);
        let routed = !routes.returned.is_empty() || !routes.received.is_empty();
        // What could not be taken in for want of room is read when what was taken in is dealt with.
        self.held.routes = Some(routes).filter(|routes| !(routes.more && routes.received.is_empty()));
        // What was decided ahead of a deferred command counts once that one is decided, too.
        let ahead = [ahead, self.held.ahead.take()].into_iter().flatten().max_by_key(|decided| decided.sequence);
        let all_decided = deferred.is_empty();
        let reached = if all_decided { ahead.clone() } else { None };
        let through = [through, reached].into_iter().flatten().max_by_key(|decided| decided.sequence);
        self.held.ahead = ahead.filter(|_| !all_decided);
        self.held.waiting = deferred;
        self.held.results_published += result_messages;
        under_way.outcomes = !messages.is_empty();
        under_way.through = through;
        under_way.emissions = emissions;
        if under_way.outcomes {
            self.held.overlay.publish(effects);
        } else if under_way.through.is_none() && !to_try && (routed || !self.held.waiting.is_empty()) {
            self.held.stalled = self.held.overlay.last_stored().is_some();
        }
        Ok((under_way, messages))
    }

    fn view<'a, C: CopyRead>(&'a self, copy: &'a C) -> View<'a, C> {
        let FlushContext { site, definition, retention, .. } = &self.options.flush;
        let kind = &definition.name;
        View { site, kind, copy, overlay: &self.held.overlay, outcomes_ms: retention.outcomes_ms }
    }

    fn read_routes<C: CopyRead>(&mut self, copy: &C) -> Result<(), C::Error> {
        if self.held.routes.is_none() {
            self.held.routes = Some(Routes::load(&self.options.flush, copy, &self.held.overlay)?);
        }
        Ok(())
    }

    /// What earlier holders have decided for other sites: their logs do not deliver it again, so that what it asks for is
    /// sent now. Sending it twice is harmless.
    fn send_unsent<C: CopyRead>(&mut self, copy: &C) -> Result<Option<Vec<Effect>>, C::Error> {
        if !std::mem::take(&mut self.held.unsent) {
            return Ok(None);
        }
        let (mut emissions, mut asking) = (Vec::new(), Vec::new());
        for Unsent { place, outcome_of: OutcomeOf { id, command_id }, forward } in
            Routes::unsent(&self.options.flush, copy)?
        {
            asking.extend((place.from == self.options.flush.site).then_some(place));
            if let Some(known) = self.view(copy).newest(Some(&id), &command_id)? {
                let command = forward.as_ref().map(|forward| &forward.command);
                emissions.extend(emissions_of(&self.options.flush, command, &known.change));
            }
        }
        let ways = Ways { sent: BTreeMap::new(), received: self.group_state(copy)?.received };
        if emissions.is_empty() {
            self.held.ways.advance(&ways);
            self.held.logged_ways.advance(&ways);
            self.held.settled.extend(asking);
            return Ok(None);
        }
        self.held.under_way = Some(UnderWay { ways, asking, emitting: true, ..UnderWay::default() });
        Ok(Some(vec![Effect::Emit(emissions)]))
    }

    /// Commands on their way, as the copy has them, once more.
    fn said_again<C: CopyRead>(&self, claim: StreamSequence, copy: &C) -> Result<Vec<FlushMessage>, C::Error> {
        let FlushContext { site, sites, definition, group, .. } = &self.options.flush;
        let mut forwards = Vec::new();
        for to in sites.iter().filter(|to| *to != site) {
            let lane = Lane { kind: &definition.name, group: *group, from: site, to };
            let waiting = copy.forwards(&lane, ForwardNumber(0), usize::MAX)?;
            let unanswered = waiting.into_iter().filter(|(_, state)| !state.decided);
            forwards.extend(unanswered.filter_map(|(_, state)| state.forward));
        }
        Ok(say_again(&self.options.flush, claim, self.held.results_published, forwards))
    }

    /// In careful mode: the attempt to log before the next command is decided. Commands that need no rule are no attempt: theirs
    /// would take the place of the one that counts.
    fn attempt(&mut self, claim: StreamSequence) -> Option<Vec<Effect>> {
        let careful = self.held.careful.as_mut()?;
        let wanted = careful.wants.as_ref().filter(|_| careful.next == NextTry::ToLog)?;
        // The times of another site's log say nothing here.
        if (wanted.of_log && wanted.command.time_ms > careful.claimed) || careful.suspects == 0 {
            self.held.careful = None;
            return None;
        }
        let command = wanted.command.clone();
        let earlier = careful.earlier.as_ref().filter(|attempt| attempt.command == command);
        let number = earlier.map_or(0, |attempt| attempt.number) + 1;
        // An attempt counts unless who made it has claimed since: a group that changes hands again and again, or a log that
        // does not answer, is no command's fault.
        let deaths = earlier.map_or(0, |_| careful.deaths);
        if deaths >= MAX_ATTEMPTS as usize || number > MAX_SURVIVED_ATTEMPTS {
            careful.next = NextTry::Exhausted;
            return None;
        }
        let attempt = Attempt { log: self.held.command_log, command, number };
        careful.earlier = Some(attempt.clone());
        let message = self.message(RecordsTopic::Attempt, &attempt);
        self.held.under_way = Some(UnderWay { attempt: true, ..UnderWay::default() });
        Some(vec![Effect::Publish { claim, messages: vec![message], whole: false }])
    }

    /// Whether an attempt is to be logged.
    fn is_to_try(&self) -> bool {
        self.held.careful.as_ref().is_some_and(|careful| careful.next == NextTry::ToLog && careful.wants.is_some())
    }

    /// The commands of the next flush: what came back precedes what the site has taken since.
    fn next_commands(&mut self, routes: &mut Routes) -> Vec<Incoming> {
        let log = self.held.command_log;
        let of_log = |command| Incoming { source: Source::Log, log, command };
        let mut commands: Vec<_> = std::mem::take(&mut routes.returned).into();
        commands.extend(std::mem::take(&mut self.held.waiting).into_iter().map(of_log));
        commands.extend(std::mem::take(&mut routes.received));
        commands
    }

    fn published<C: CopyRead>(
        &mut self,
        result: Result<Vec<StreamSequence>, PublishFailure>,
        copy: &C,
    ) -> Result<Vec<Effect>, C::Error> {
        let sequences = match (self.state, result) {
            (State::Voiding(claim), Ok(sequences)) => {
                let logged = sequences.into_iter().max().unwrap_or(claim);
                self.state = State::Voided { claim, logged };
                return self.copy_advanced(copy);
            }
            (State::Voiding(_) | State::Holding(_), Err(failure)) => {
                return Ok(self.release(ReleaseReason::Publish(failure)));
            }
            (State::Holding(_), Ok(sequences)) => sequences,
            _ => return Ok(Vec::new()),
        };
        let Some(under_way) = self.held.under_way.as_mut() else {
            return Ok(Vec::new());
        };
        if let (Some(last), true) = (sequences.iter().max(), under_way.outcomes) {
            self.held.overlay.stored(*last);
        }
        if let (true, Some(careful)) = (under_way.attempt, self.held.careful.as_mut()) {
            careful.next = NextTry::Logged;
        }
        if let (true, Some(careful)) = (under_way.tried, self.held.careful.as_mut()) {
            careful.suspects = careful.suspects.saturating_sub(1);
        }
        if let Some((position, ways)) = under_way.position.take() {
            if position != self.held.logged_position {
                self.held.audit.extend(position.clone());
            }
            self.held.logged_position = position;
            self.held.logged_ways = ways;
        }
        self.emit_or_finish(copy)
    }

    fn emit_or_finish<C: CopyRead>(&mut self, copy: &C) -> Result<Vec<Effect>, C::Error> {
        let Some(under_way) = self.held.under_way.as_mut() else {
            return Ok(Vec::new());
        };
        let emissions = std::mem::take(&mut under_way.emissions);
        if !emissions.is_empty() {
            under_way.emitting = true;
            return Ok(vec![Effect::Emit(emissions)]);
        }
        if let Some(through) = under_way.through.take() {
            self.held.done = Some(through);
        }
        self.held.ways.advance(&std::mem::take(&mut under_way.ways));
        self.held.settled.append(&mut under_way.asking);
        self.held.under_way = None;
        if let Some(failure) = self.held.not_emitted.take() {
            return Ok(self.release(ReleaseReason::Emit(failure)));
        }
        if self.leaving() {
            let reason = if self.stopping { ReleaseReason::Stopping } else { ReleaseReason::Unassigned };
            return Ok(self.let_go(reason));
        }
        self.advance(copy)
    }

    fn emitted<C: CopyRead>(&mut self, result: Result<(), EmitFailure>, copy: &C) -> Result<Vec<Effect>, C::Error> {
        match (self.state, result) {
            (State::Holding(_), Ok(())) if self.held.under_way.as_ref().is_some_and(|flush| flush.emitting) => {
                self.emit_or_finish(copy)
            }
            (State::Holding(claim), Err(failure)) if self.position_moved() => {
                // What was done before is logged first: the room that this emission lacks may lie behind it.
                let effects = self.publish_last_position(claim);
                self.held.not_emitted = Some(failure);
                Ok(effects)
            }
            (State::Holding(_), Err(failure)) => Ok(self.release(ReleaseReason::Emit(failure))),
            _ => Ok(Vec::new()),
        }
    }

    /// Purges what lies behind a position that the own copy has applied and that is beyond the audit window, when so much
    /// time has passed since the newest position.
    fn purge<C: CopyRead>(&mut self, copy: &C, passed_ms: u64) -> Result<Vec<Effect>, C::Error> {
        if !matches!(self.state, State::Holding(_)) || self.held.purging.is_some() {
            return Ok(Vec::new());
        }
        let group = self.group_state(copy)?;
        let (Some(applied), Some(decided)) = (&group.position, &group.highest) else {
            return Ok(Vec::new());
        };
        let beyond = |old: &DecidedCommand| {
            let age_ms = applied.time_ms.ms_since(old.time_ms).saturating_add(passed_ms);
            old.sequence <= applied.sequence && age_ms >= self.options.audit_window_ms
        };
        if group.log != self.held.command_log {
            return Ok(Vec::new());
        }
        let mut below = None;
        while self.held.audit.front().is_some_and(beyond) {
            below = self.held.audit.pop_front();
        }
        Ok(match below {
            None => Vec::new(),
            Some(below) => {
                self.held.purging = Some(below.clone());
                vec![Effect::Purge { below, decided: decided.clone(), log: group.log }]
            }
        })
    }

    fn leaving(&self) -> bool {
        self.stopping || self.assigned.is_none()
    }

    /// Lets go as soon as nothing is under way.
    fn let_go(&mut self, reason: ReleaseReason) -> Vec<Effect> {
        match self.state {
            State::Holding(_) if self.held.under_way.is_some() => Vec::new(),
            State::Holding(claim) if self.position_moved() => self.publish_last_position(claim),
            State::Idle if self.stopping => vec![Effect::Stopped],
            State::Idle => Vec::new(),
            _ => self.release(reason),
        }
    }

    fn publish_last_position(&mut self, claim: StreamSequence) -> Vec<Effect> {
        let position = Some((self.held.done.clone(), self.held.ways.clone()));
        self.held.under_way = Some(UnderWay { position, ..UnderWay::default() });
        vec![Effect::Publish { claim, messages: vec![self.position_message(None)], whole: false }]
    }

    /// Forgets all that rests on the claim. Where the group is still assigned, the member list is read again before the
    /// next claim.
    fn release(&mut self, reason: ReleaseReason) -> Vec<Effect> {
        self.state = State::Idle;
        self.held = Held::default();
        let mut effects = vec![Effect::Release(reason)];
        if self.stopping {
            effects.push(Effect::Stopped);
        } else if self.assigned.take().is_some() {
            effects.push(Effect::ReadMembers);
        }
        effects
    }

    /// The digest of what this site's log says of the group, as the copy has it.
    fn digest<C: CopyRead>(&self, copy: &C) -> Result<GroupDigest, C::Error> {
        let FlushContext { site, definition, group, .. } = &self.options.flush;
        copy.digest(site, &definition.name, *group)
    }

    fn position_message(&mut self, digest: Option<GroupDigest>) -> FlushMessage {
        // Where it is not stored the claim ends, and what is found by the copy is sent once more.
        let settled = std::mem::take(&mut self.held.settled);
        let Held { command_log: log, done, decided_until: decided_until_ms, ways, .. } = &self.held;
        let Ways { sent, received } = ways.clone();
        let (log, decided_until_ms) = (*log, *decided_until_ms);
        let position = Position { log, decided: done.clone(), decided_until_ms, sent, received, settled, digest };
        self.message(RecordsTopic::Position, &position)
    }

    fn message(&self, topic: RecordsTopic, body: &impl serde::Serialize) -> FlushMessage {
        let subject = self.options.flush.subject(topic);
        let payload = serde_json::to_vec(body).unwrap_or_else(|error| panic!("always printable: {error}"));
        FlushMessage { subject, payload, ttl_ms: None }
    }
}

/// Gives back to the routes what did not come by this site's log; returns what did.
fn put_back(routes: &mut Routes, deferred: VecDeque<Incoming>) -> VecDeque<LoggedCommand> {
    let mut of_log = VecDeque::new();
    for incoming in deferred.into_iter().rev() {
        match incoming.source {
            Source::Log => of_log.push_front(incoming.command),
            Source::Returned(..) => routes.returned.push_front(incoming),
            Source::Forwarded(..) => routes.received.push_front(incoming),
        }
    }
    of_log
}
