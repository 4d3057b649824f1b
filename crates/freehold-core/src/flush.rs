//! Deciding a flush: commands in the order of the log in, messages for the records log out.
//!
//! Commands of one record are folded into one update that lists every outcome, rejections too. Outcomes on records that the
//! flush does not change go together into result messages. Nothing is answered that the log does not carry. The fold
//! is group commit applied to versions: see docs/adr/0003-flush-folding.md.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::command::{CommandMessage, LoggedCommand};
use crate::copy::{CopyRead, RecordState, Retention, Uncarried};
use crate::decision::{Decision, DecisionContext, RecordChange};
use crate::envelope::{BatchPlace, Carried, DeadLetter, DecidedCommand, Forward, Inherited, ResultMessage, Update};
use crate::group::GroupNumber;
use crate::hash::Hash;
use crate::holder::MAX_ATTEMPTS;
use crate::id::{CommandId, RecordId};
use crate::json::Json;
use crate::kind::KindDefinition;
use crate::name::SiteName;
use crate::number::{CommandLogIncarnation, Incarnation, LogTime, RecordVersion, StreamSequence};
use crate::outcome::{Change, EmittedCommand, ErrorCode, ForwardPlace, Outcome, Refusal, Status};
use crate::overlay::{FlushEffects, Routing, View, ViewedRecord};
use crate::routes::{Incoming, Routes, Source};
use crate::subject::{RecordsSubject, RecordsTopic};

use self::pages::{MESSAGE_OVERHEAD_BYTES, Page, Pages, change_bytes};
use self::verdict::{Entry, Verdict};
use self::ways::{Home, Repeat, Way};

mod pages;
mod verdict;
mod ways;

/// The most commands that one flush decides. A flush makes at most one update a record and one result message a command,
/// so that it fits the 1,000 messages of an atomic batch.
pub const MAX_FLUSH_COMMANDS: usize = 450;
/// The most result messages that a flush fills by carrying; what does not fit is carried by the next.
pub const MAX_CARRY_MESSAGES: usize = 500;
/// How often a rule that panics is tried before its command is decided `dead`.
pub const MAX_PANICS: usize = 3;
/// Kept free of what the server takes as payload, for headers and for the envelope around the record and its changes.
pub const ENVELOPE_RESERVE_BYTES: usize = 4096;

/// The longest id of a command that is processed: an emitted one's grows with each step of a chain.
const MAX_LOGGED_COMMAND_ID_BYTES: usize = 1024;
/// What is kept of a text that anybody may have made as long as they liked: a parser's complaint, a panic's message.
const MAX_REASON_BYTES: usize = 512;
/// The least that a flush may be given for one message.
const LEAST_MESSAGE_BYTES: usize = 1024;

/// What stays the same over the flushes of a claim.
#[derive(Debug, Clone)]
pub struct FlushContext {
    /// The kind and its rules.
    pub definition: std::sync::Arc<KindDefinition>,
    /// The site that decides.
    pub site: SiteName,
    /// The sites that commands are forwarded to; records of any other site are refused (`not_owner`).
    pub sites: Vec<SiteName>,
    /// The group.
    pub group: GroupNumber,
    /// The life of the records log.
    pub log: Incarnation,
    /// How long things are kept.
    pub retention: Retention,
    /// What one message may hold: the server's `max_payload`.
    pub max_payload_bytes: usize,
}

impl FlushContext {
    fn message_bytes(&self) -> usize {
        self.max_payload_bytes.saturating_sub(ENVELOPE_RESERVE_BYTES).max(LEAST_MESSAGE_BYTES)
    }

    pub(crate) fn subject(&self, topic: RecordsTopic) -> RecordsSubject {
        RecordsSubject { site: self.site.clone(), kind: self.definition.name.clone(), group: self.group, topic }
    }
}

/// A message of a flush, to be published under the holder's claim.
#[derive(Debug, Clone)]
pub struct FlushMessage {
    /// Where to.
    pub subject: RecordsSubject,
    /// What.
    pub payload: Vec<u8>,
    /// How long the log keeps it; nothing for as long as its limits allow.
    pub ttl_ms: Option<u64>,
}

/// What is to be sent once an outcome is stored. Sending it again is harmless.
#[derive(Debug, Clone)]
pub enum Emission {
    /// A command that a decision asks for.
    Command(CommandMessage),
    /// A command that could not be processed.
    DeadLetter(DeadLetter),
}

/// A decided flush.
pub(crate) struct Flush {
    pub(crate) messages: Vec<FlushMessage>,
    pub(crate) result_messages: u64,
    pub(crate) effects: FlushEffects,
    pub(crate) emissions: Vec<Emission>,
    /// Everything up to here is decided once the messages are stored.
    pub(crate) through: Option<DecidedCommand>,
    /// The last command that is decided although one before it is left for the next flush.
    pub(crate) ahead: Option<DecidedCommand>,
    /// Commands left for the next flush, in order.
    pub(crate) deferred: VecDeque<Incoming>,
    /// Some are left because they wait for another site's log.
    pub(crate) waits_for_sites: bool,
    /// The first that is left because no attempt at it is logged.
    pub(crate) wants: Option<Wanted>,
    /// The command that care was taken of is decided.
    pub(crate) tried: bool,
}

/// A command that waits for its attempt to be logged.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) command: DecidedCommand,
    /// Whether this site's log took it.
    pub(crate) of_log: bool,
}

impl Flush {
    /// Whether all messages must be stored or none: the numbers of forwarded commands have no gaps.
    pub(crate) fn is_whole(&self) -> bool {
        !self.effects.routing.is_empty()
    }
}

/// The numbers that move with the flushes of a claim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlushPlace<'a> {
    pub(crate) claim: StreamSequence,
    pub(crate) command_log: CommandLogIncarnation,
    pub(crate) results_published: u64,
    pub(crate) batched: bool,
    /// Outcomes of commands logged before this time may have been dropped unseen.
    pub(crate) outcomes_complete_from: LogTime,
    /// Sites that do not answer.
    pub(crate) unreachable: &'a BTreeSet<SiteName>,
    /// How far this site has the logs of others in streams of its own.
    pub(crate) mirrored: &'a BTreeMap<SiteName, StreamSequence>,
    pub(crate) care: Care<'a>,
}

/// Which commands a flush may decide by their rules. Those that need no rule always go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Care<'a> {
    /// All.
    None,
    /// Something has killed the last holders: no command before its attempt is logged.
    Until,
    /// The one whose attempt is logged.
    One(&'a DecidedCommand),
    /// No attempt is left to this one: it is decided `dead`.
    Dead(&'a DecidedCommand),
}

/// Decides commands, in their order.
pub(crate) fn decide_flush<C: CopyRead>(
    context: &FlushContext,
    place: FlushPlace<'_>,
    view: &View<'_, C>,
    routes: &mut Routes,
    commands: impl IntoIterator<Item = Incoming>,
) -> Result<Flush, C::Error> {
    let mut planner = Planner {
        context,
        place,
        view,
        routes,
        folds: Vec::new(),
        fold_of: HashMap::new(),
        unreadable: Vec::new(),
        returns: Vec::new(),
        routing: Routing::default(),
        emissions: Vec::new(),
        waits_for_sites: false,
        wants: None,
        tried: false,
    };
    let mut deferred = VecDeque::new();
    let mut blocked_lanes = HashSet::new();
    let (mut through, mut ahead) = (None, None);
    let mut log_deferred = false;
    // With care, one at a time: what one asks for must not hold up what was done before it.
    let most = if matches!(place.care, Care::None) { MAX_FLUSH_COMMANDS } else { 1 };
    let mut decided = 0;
    for incoming in commands {
        let blocked = |place: &ForwardPlace| blocked_lanes.contains(&place.from);
        let lane_is_blocked = matches!(&incoming.source, Source::Forwarded(place, _) if blocked(place));
        let step = if decided < most && !lane_is_blocked { planner.take(&incoming)? } else { Step::Deferred };
        decided += usize::from(matches!(step, Step::Decided(_)));
        match (step, &incoming.source) {
            (Step::Decided(command_id), Source::Log) => {
                let LoggedCommand { sequence, time: time_ms, .. } = incoming.command;
                let reached = if log_deferred { &mut ahead } else { &mut through };
                *reached = Some(DecidedCommand { sequence, command_id, time_ms });
            }
            (Step::Decided(_), _) => {}
            (Step::Deferred, source) => {
                match source {
                    Source::Log => log_deferred = true,
                    // What another site has sent is dealt with in its order.
                    Source::Forwarded(place, _) => _ = blocked_lanes.insert(place.from.clone()),
                    Source::Returned(..) => {}
                }
                deferred.push_back(incoming);
            }
        }
    }
    let emissions = std::mem::take(&mut planner.emissions);
    let (waits_for_sites, wants, tried) = (planner.waits_for_sites, planner.wants.take(), planner.tried);
    let (messages, result_messages, effects) = planner.finish()?;
    Ok(Flush { messages, result_messages, effects, emissions, through, ahead, deferred, waits_for_sites, wants, tried })
}

/// Messages that say again what is on its way and has waited for long: results do not stay in the log for ever.
pub(crate) fn say_again(
    context: &FlushContext,
    claim: StreamSequence,
    results_published: u64,
    forwards: Vec<Forward>,
) -> Vec<FlushMessage> {
    let mut pages = Pages::new(context.message_bytes());
    for forward in forwards {
        pages.add(Page { forwards: vec![forward], ..Page::default() });
    }
    pages.pages.truncate(MAX_CARRY_MESSAGES);
    results_of(context, claim, results_published, pages)
}

fn results_of(
    context: &FlushContext,
    claim: StreamSequence,
    results_published: u64,
    results: Pages,
) -> Vec<FlushMessage> {
    let message = |(index, Page { changes, carries, inherits, forwards, returns }): (u64, Page)| {
        let page = (results_published + index) / context.retention.history.max(1);
        let kind = context.definition.name.clone();
        let result = ResultMessage { log: context.log.clone(), kind, changes, carries, inherits, forwards, returns };
        FlushMessage {
            subject: context.subject(RecordsTopic::Result { claim, page }),
            payload: print(&result),
            ttl_ms: Some(context.retention.kept_in_log_ms()),
        }
    };
    (0..).zip(results.pages).map(message).collect()
}

enum Step {
    Decided(CommandId),
    Deferred,
}

struct Planner<'a, C> {
    context: &'a FlushContext,
    place: FlushPlace<'a>,
    view: &'a View<'a, C>,
    routes: &'a mut Routes,
    folds: Vec<Fold>,
    fold_of: HashMap<RecordId, usize>,
    unreadable: Vec<Change>,
    returns: Vec<ForwardPlace>,
    routing: Routing,
    emissions: Vec<Emission>,
    waits_for_sites: bool,
    wants: Option<Wanted>,
    tried: bool,
}

/// One record's commands in this flush.
struct Fold {
    id: RecordId,
    base: ViewedRecord,
    /// Who may create the record, where it does not exist.
    home: Option<Home>,
    /// The record as the commands so far have left it.
    current: Option<Json>,
    version: RecordVersion,
    changes: Vec<Change>,
    forwards: Vec<Forward>,
    /// What changes and forwards take.
    bytes: usize,
    /// Nothing more fits, or it is given away: later commands wait for the next flush.
    closed: bool,
    /// A command that this site has taken waits for another site, and so do those behind it. Those that other sites have sent do not:
    /// two sites that wait for each other would wait for ever.
    waits: bool,
    moves_to: Option<SiteName>,
}

impl Fold {
    fn base_version(&self) -> RecordVersion {
        self.base.state.as_ref().map(|state| state.version).unwrap_or_default()
    }

    fn changed(&self) -> bool {
        self.version > self.base_version() || self.moves_to.is_some()
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.forwards.is_empty()
    }

    /// What this flush has done with a command id.
    fn entry_of(&self, command_id: &CommandId) -> Option<Change> {
        let decided = self.changes.iter().find(|change| change.command_id == *command_id).cloned();
        let sent = || self.forwards.iter().find(|forward| forward.command.command_id == *command_id);
        decided.or_else(|| sent().map(Forward::change))
    }
}

impl<C: CopyRead> Planner<'_, C> {
    fn take(&mut self, incoming: &Incoming) -> Result<Step, C::Error> {
        let command = &incoming.command;
        let (message, unfit) = match (readable(self.context, command), &command.message) {
            (Ok(message), _) => (message, None),
            // Who forwarded it has read it by the same rules, or this site is set up otherwise than that one.
            (Err(reason), Ok(message)) if incoming.source != Source::Log => (message, Some(reason)),
            (Err(reason), _) => return self.take_unreadable(command, &reason),
        };
        let decided = Step::Decided(message.command_id.clone());
        let repeated = self.repeated(incoming, message)?;
        if matches!(repeated, Repeat::Done) {
            return Ok(decided);
        }
        let index = match self.fold_of.get(&message.id) {
            Some(index) => *index,
            None => self.open_fold(&message.id)?,
        };
        let of_site = !matches!(incoming.source, Source::Forwarded(..));
        let repeated = match repeated {
            Repeat::Wait => return Ok(self.wait(index, of_site)),
            Repeat::Of(verdict) => Some(verdict),
            Repeat::No | Repeat::Done => None,
        };
        if self.folds[index].closed || of_site && self.folds[index].waits {
            return Ok(Step::Deferred);
        }
        let verdict = match (repeated, unfit) {
            (_, Some(reason)) => Verdict::refuse(ErrorCode::Invalid, reason),
            (Some(verdict), None) => verdict,
            (None, None) => match self.way(&self.folds[index], incoming, message)? {
                Way::Decide | Way::Refuse(_) | Way::Forward { .. } if self.may_be_forgotten(incoming) => {
                    Verdict::unknown()
                }
                Way::Refuse(refusal) => Verdict::Refused(refusal),
                Way::Decide => match self.decide_with_care(&self.folds[index], incoming, message) {
                    Some(verdict) => verdict,
                    None => {
                        let LoggedCommand { sequence, time: time_ms, .. } = *command;
                        let command_id = message.command_id.clone();
                        let command = DecidedCommand { sequence, command_id, time_ms };
                        let of_log = incoming.source == Source::Log;
                        self.wants.get_or_insert(Wanted { command, of_log });
                        self.folds[index].closed = true;
                        return Ok(Step::Deferred);
                    }
                },
                Way::Forward { to, epoch } => match self.forward(index, incoming, message, to, epoch) {
                    Some(verdict) => verdict,
                    None if self.folds[index].closed => return Ok(Step::Deferred),
                    None => return Ok(decided),
                },
                Way::Return => {
                    if let Source::Forwarded(place, _) = &incoming.source {
                        self.returns.push(place.clone());
                        self.routing.received.push(place.clone());
                    }
                    return Ok(decided);
                }
                Way::Wait => return Ok(self.wait(index, of_site)),
            },
        };
        let fits = self.fold(index, incoming, message, verdict);
        self.tried |= fits && self.is_tried(command, message);
        Ok(if fits { decided } else { Step::Deferred })
    }

    /// A command waits for another site, and so do those of its record behind it.
    fn wait(&mut self, index: usize, of_site: bool) -> Step {
        self.waits_for_sites = true;
        let fold = &mut self.folds[index];
        if of_site {
            fold.waits = true;
        } else {
            fold.closed = true;
        }
        Step::Deferred
    }

    /// The verdict; nothing where an attempt must be logged first.
    fn decide_with_care(&self, fold: &Fold, incoming: &Incoming, message: &CommandMessage) -> Option<Verdict> {
        match self.place.care {
            Care::None => {}
            Care::Dead(_) if self.is_tried(&incoming.command, message) => {
                return Some(Verdict::dead(&format!("{MAX_ATTEMPTS} attempts ended without an outcome")));
            }
            Care::One(_) if self.is_tried(&incoming.command, message) => {}
            Care::Until | Care::One(_) | Care::Dead(_) => return None,
        }
        Some(self.decide(fold, &incoming.command, message))
    }

    fn is_tried(&self, command: &LoggedCommand, message: &CommandMessage) -> bool {
        match self.place.care {
            Care::One(tried) | Care::Dead(tried) => {
                let place = (command.sequence, command.time, &message.command_id);
                place == (tried.sequence, tried.time_ms, &tried.command_id)
            }
            Care::None | Care::Until => false,
        }
    }

    /// A command that cannot be read is answered too, else the group would stand still behind it.
    fn take_unreadable(&mut self, command: &LoggedCommand, reason: &str) -> Result<Step, C::Error> {
        let command_id = CommandId::of_unreadable(self.place.command_log, command.sequence);
        if let Some(known) = self.view.change(None, &command_id, command)? {
            self.emit_again(command, &known.change);
            return Ok(Step::Decided(command_id));
        }
        let change = Change {
            id: None,
            command_id: command_id.clone(),
            name: None,
            log: self.place.command_log,
            sequence: command.sequence,
            time_ms: command.time,
            fingerprint: Hash::default(),
            outcome: Outcome {
                status: Status::Dead,
                version: RecordVersion::default(),
                reply: None,
                error: Some(Refusal::new(
                    ErrorCode::Invalid,
                    format!("the command cannot be read: {}", shortened(reason)),
                )),
            },
            emits: Vec::new(),
            forwarded: None,
            repeats: false,
        };
        self.emissions.push(Emission::DeadLetter(dead_letter(self.context, command.message.as_ref().ok(), &change)));
        self.unreadable.push(change);
        Ok(Step::Decided(command_id))
    }

    /// The outcome is in the log, but a crash may have come before what it asks for was sent.
    fn emit_again(&mut self, command: &LoggedCommand, known: &Change) {
        // Also where a log that was rewound delivers it again in its next life.
        if known.sequence == command.sequence && known.time_ms == command.time {
            self.emissions.extend(self.emissions_of(command, known));
        }
    }

    fn emissions_of(&self, command: &LoggedCommand, change: &Change) -> Vec<Emission> {
        emissions_of(self.context, command.message.as_ref().ok(), change)
    }

    fn open_fold(&mut self, id: &RecordId) -> Result<usize, C::Error> {
        let base = self.view.record(id)?;
        let home = if base.state.is_none() { self.home(id)? } else { None };
        let fold = Fold {
            id: id.clone(),
            home,
            current: base.state.as_ref().and_then(|state| state.record.clone()),
            version: base.state.as_ref().map(|state| state.version).unwrap_or_default(),
            changes: Vec::new(),
            forwards: Vec::new(),
            bytes: 0,
            moves_to: None,
            waits: false,
            // The history limit would soon discard updates whose outcomes a slow reader has not seen.
            closed: base.uncarried + 2 >= usize::try_from(self.context.retention.history).unwrap_or(usize::MAX),
            base,
        };
        self.folds.push(fold);
        let index = self.folds.len() - 1;
        self.fold_of.insert(id.clone(), index);
        Ok(index)
    }

    fn decide(&self, fold: &Fold, command: &LoggedCommand, message: &CommandMessage) -> Verdict {
        let FlushContext { definition, site, sites, .. } = self.context;
        let Some(decider) = definition.decider(&message.name) else {
            return Verdict::refuse(ErrorCode::Invalid, format!("{} has no command {}", definition.name, message.name));
        };
        if let Some(expected) = message.if_version.filter(|expected| *expected != fold.version) {
            #[derive(serde::Serialize)]
            struct Details {
                version: RecordVersion,
            }
            let text = format!("the record is at version {}, not {expected}", fold.version);
            let details = Details { version: fold.version };
            return Verdict::Refused(Refusal::new(ErrorCode::Conflict, text).with_details(&details));
        }
        let decision_context = DecisionContext::new(&message.id, &message.command_id, command.time, fold.version, site);
        let mut panicked = String::new();
        for _ in 0..MAX_PANICS {
            // The rule is pure and its arguments are dropped with it: nothing half-changed survives a panic.
            let attempt = AssertUnwindSafe(|| decider.decide(&message.body, fold.current.as_ref(), &decision_context));
            match catch_unwind(attempt) {
                Ok(Decision::Accepted { change: RecordChange::Moves(to), .. })
                    if !sites.contains(&to) && to != *site =>
                {
                    return Verdict::refuse(ErrorCode::Invalid, format!("there is no site {to}"));
                }
                Ok(decision) => return Verdict::from(decision),
                Err(payload) => panicked = panic_text(payload.as_ref()),
            }
        }
        Verdict::dead(&format!("the rule panicked {MAX_PANICS} times: {}", shortened(&panicked)))
    }

    /// Takes a verdict into a fold; false where it does not fit and must wait for the next flush.
    fn fold(&mut self, index: usize, incoming: &Incoming, message: &CommandMessage, verdict: Verdict) -> bool {
        let limit = self.context.message_bytes();
        let fold = &self.folds[index];
        let repeats = matches!(verdict, Verdict::Repeated(..));
        let site = &self.context.site;
        let mut entry = Entry::new(fold, verdict, site);
        let mut change = entry.change(incoming, message);
        let fits = |fold: &Fold, entry: &Entry, change: &Change| {
            // A record that does not change is not published.
            let changed = entry.version > fold.base_version() || entry.moves_to.is_some();
            let record = entry.record.as_ref().filter(|_| changed).map_or(0, |record| record.as_str().len());
            MESSAGE_OVERHEAD_BYTES + fold.bytes + change_bytes(change) + record + message.id.as_str().len() * 6 <= limit
        };
        if !fits(fold, &entry, &change) {
            if !fold.is_empty() {
                self.folds[index].closed = true;
                return false;
            }
            let text = format!("the record and its outcome would exceed the {limit} bytes that one message can hold");
            entry = Entry::new(fold, Verdict::refuse(ErrorCode::TooLarge, text), site);
            change = entry.change(incoming, message);
        }
        if !repeats {
            self.emissions.extend(self.emissions_of(&incoming.command, &change));
        }
        match &incoming.source {
            Source::Log => {}
            Source::Forwarded(place, _) => self.routing.received.push(place.clone()),
            Source::Returned(place, _) => {
                self.routes.settle(&message.id, place);
                self.routing.settled.push(place.clone());
                self.routing.asking.extend(change.asks_for_something().then(|| place.clone()));
            }
        }
        let fold = &mut self.folds[index];
        fold.current = entry.record;
        fold.version = entry.version;
        fold.bytes += change_bytes(&change);
        fold.changes.push(change);
        fold.closed |= entry.moves_to.is_some();
        fold.moves_to = fold.moves_to.take().or(entry.moves_to);
        true
    }

    fn carries_due(&self, fold: &Fold) -> bool {
        fold.base.uncarried * 2 >= usize::try_from(self.context.retention.history).unwrap_or(usize::MAX)
    }

    fn finish(mut self) -> Result<(Vec<FlushMessage>, u64, FlushEffects), C::Error> {
        let mut effects = FlushEffects::default();
        let mut updates = Vec::new();
        let mut results = Pages::new(self.context.message_bytes());
        let mut inherited = Pages::new(self.context.message_bytes());
        for change in std::mem::take(&mut self.unreadable) {
            results.add(Page { changes: vec![change], ..Page::default() });
        }
        for place in std::mem::take(&mut self.returns) {
            results.add(Page { returns: vec![place], ..Page::default() });
        }
        for mut fold in std::mem::take(&mut self.folds) {
            if self.carries_due(&fold) {
                // An id that came again later than W has a newer outcome by now: the old one must not take its place.
                let newer = fold.changes.iter().filter(|change| !change.repeats);
                let decided: HashSet<&CommandId> = newer.map(|change| &change.command_id).collect();
                let is_newest =
                    |change: &Change| !decided.contains(&change.command_id) && !self.view.overlay.has_another(change);
                for sequence in &fold.base.carriable {
                    if results.pages.len() >= MAX_CARRY_MESSAGES {
                        break;
                    }
                    let outcomes = self.view.copy.outcomes_of_message(&self.context.site, *sequence)?;
                    let changes = outcomes.into_iter().map(|outcome| outcome.change).filter(is_newest).collect();
                    let carries = vec![Carried { id: fold.id.clone(), sequence: *sequence }];
                    results.add(Page { changes, carries, ..Page::default() });
                    effects.carries.push((fold.id.clone(), *sequence));
                }
            }
            effects.changes.extend(fold.changes.iter().cloned());
            effects.changes.extend(fold.forwards.iter().map(Forward::change));
            let mut page = Page { forwards: std::mem::take(&mut fold.forwards), ..Page::default() };
            if fold.changed() {
                for outcomes in self.inherits(&fold)? {
                    inherited.add(Page { inherits: vec![outcomes], ..Page::default() });
                }
                // What only repeats is not kept by its id, and so would not be carried: results are not discarded for newer ones.
                (page.changes, fold.changes) = std::mem::take(&mut fold.changes).into_iter().partition(|it| it.repeats);
                let (update, state) = self.update(fold);
                effects.records.push((update.id.clone(), state));
                updates.push(update);
            } else {
                page.changes = fold.changes;
            }
            results.add(page);
        }
        effects.routing = std::mem::take(&mut self.routing);
        let batched = self.place.batched || !effects.routing.is_empty();
        let count = inherited.pages.len() + updates.len() + results.pages.len();
        let size = u32::try_from(count).unwrap_or(u32::MAX);
        let (claim, published) = (self.place.claim, self.place.results_published);
        // Behind the update nobody would look for them any more: they come first, and may come alone.
        let mut messages = results_of(self.context, claim, published, inherited);
        let inherited = messages.len();
        for (index, mut update) in (u32::try_from(inherited).unwrap_or(u32::MAX)..).zip(updates) {
            if batched && size > 1 {
                update.batch = BatchPlace { index, size };
            }
            let subject = self.context.subject(RecordsTopic::Update(update.id.token()));
            messages.push(FlushMessage { subject, payload: print(&update), ttl_ms: None });
        }
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let result_messages = number(inherited + results.pages.len());
        messages.extend(results_of(self.context, claim, published + number(inherited), results));
        Ok((messages, result_messages, effects))
    }

    /// The first update of a record that was taken over repeats what else only the lost sites' logs have of it.
    fn inherits(&self, fold: &Fold) -> Result<Vec<Inherited>, C::Error> {
        let mut inherited = Vec::new();
        for (origin, updates) in &fold.base.inherits {
            for Uncarried { sequence, time } in updates {
                let outcomes = self.view.copy.outcomes_of_message(origin, *sequence)?;
                let changes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.change).collect();
                if !changes.is_empty() {
                    let (origin, sequence, time_ms) = (origin.clone(), *sequence, *time);
                    inherited.push(Inherited { origin, sequence, time_ms, changes });
                }
            }
        }
        Ok(inherited)
    }

    fn update(&self, fold: Fold) -> (Update, RecordState) {
        let FlushContext { definition, site, log, .. } = self.context;
        let base = fold.base.state.as_ref();
        let (epoch, moved) = match (base, fold.home) {
            (Some(state), _) => (state.epoch, state.moved.clone()),
            (None, Some(home)) => (home.epoch, home.moved),
            (None, None) => Default::default(),
        };
        let time = fold.changes.iter().map(|change| change.time_ms).max().unwrap_or_default();
        let mut update = Update {
            log: log.clone(),
            id: fold.id,
            kind: definition.name.clone(),
            version: fold.version,
            owner: fold.moves_to.clone().unwrap_or_else(|| site.clone()),
            epoch: if fold.moves_to.is_some() { epoch.next() } else { epoch },
            time_ms: time,
            record: fold.current,
            schema: definition.schema,
            hash: Hash::default(),
            previous: base.map(|state| state.hash),
            batch: BatchPlace::ALONE,
            // The envelope names the record once for all.
            changes: fold.changes.into_iter().map(|change| Change { id: None, ..change }).collect(),
            moved,
        };
        update.hash = update.content_hash();
        let state = RecordState {
            version: update.version,
            owner: update.owner.clone(),
            epoch: update.epoch,
            time,
            record: update.record.clone(),
            schema: update.schema,
            hash: update.hash,
            origin: site.clone(),
            sequence: StreamSequence::default(),
            uncarried: Vec::<Uncarried>::new(),
            moved: update.moved.clone(),
            elsewhere: BTreeMap::new(),
        };
        (update, state)
    }
}

/// What the outcome of a command asks for; nothing is known of the command where it cannot be read.
pub(crate) fn emissions_of(context: &FlushContext, command: Option<&CommandMessage>, change: &Change) -> Vec<Emission> {
    if change.emits.is_empty() && change.asks_for_something() {
        return vec![Emission::DeadLetter(dead_letter(context, command, change))];
    }
    let emitted = |(index, emitted): (usize, &EmittedCommand)| {
        Emission::Command(CommandMessage {
            kind: emitted.kind.clone(),
            id: emitted.id.clone(),
            name: emitted.name.clone(),
            command_id: change.command_id.emitted(index),
            if_version: None,
            owner_down: None,
            body: emitted.body.clone(),
        })
    };
    change.emits.iter().enumerate().map(emitted).collect()
}

fn dead_letter(context: &FlushContext, command: Option<&CommandMessage>, change: &Change) -> DeadLetter {
    // A letter that no message can hold would never be sent, and the group would stand still behind it. What it leaves
    // out is in the command log, at the place that the change names.
    let room = context.message_bytes().saturating_sub(change_bytes(change));
    let command = command.and_then(|command| Json::from_value(command).ok());
    let command = command.filter(|command| command.as_str().len() <= room);
    DeadLetter { kind: context.definition.name.clone(), change: change.clone(), command }
}

/// The command, or why it cannot be processed as it stands.
fn readable<'c>(context: &FlushContext, command: &'c LoggedCommand) -> Result<&'c CommandMessage, String> {
    let message = command.message.as_ref().map_err(Clone::clone)?;
    let definition = &context.definition;
    if message.kind != definition.name {
        return Err(format!("the command is for kind {} but was logged for {}", message.kind, definition.name));
    }
    let group = match message.id.home_right() {
        Some(right) => right.group,
        None => definition.settings.groups.group_of(&message.id),
    };
    if group != context.group {
        return Err(format!("the record belongs to group {group} but was logged for {}", context.group));
    }
    let bytes = message.command_id.as_str().len();
    if bytes > MAX_LOGGED_COMMAND_ID_BYTES {
        return Err(format!("its command id has {bytes} bytes, more than {MAX_LOGGED_COMMAND_ID_BYTES}"));
    }
    Ok(message)
}

/// The start of a text that may be of any length.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MAX_REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Prints an envelope. Every part of it is a string, a number or checked JSON, so that printing cannot fail.
fn print(envelope: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(envelope).unwrap_or_else(|error| panic!("an envelope is always printable: {error}"))
}
