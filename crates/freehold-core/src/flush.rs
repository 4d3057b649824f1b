//! Deciding a flush: commands in the order of the log in, messages for the records log out.
//!
//! Commands of one record are folded into one update that lists every outcome, rejections too. Outcomes on records that the
//! flush does not change go together into result messages. Nothing is answered that the log does not carry. The fold
//! is group commit applied to versions: see docs/adr/0003-flush-folding.md.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::command::{CommandMessage, LoggedCommand};
use crate::copy::{CopyRead, RecordState, Retention, Uncarried};
use crate::decision::{Decision, DecisionContext, RecordChange};
use crate::envelope::{BatchPlace, Carried, DeadLetter, DecidedCommand, ResultMessage, Update};
use crate::group::GroupNumber;
use crate::hash::Hash;
use crate::id::{CommandId, RecordId};
use crate::json::Json;
use crate::kind::KindDefinition;
use crate::name::SiteName;
use crate::number::{CommandLogIncarnation, Incarnation, LogTime, RecordVersion, StreamSequence};
use crate::outcome::{Change, EmittedCommand, ErrorCode, Outcome, Refusal, Status};
use crate::overlay::{CommandKey, FlushEffects, View, ViewedRecord};
use crate::subject::{RecordsSubject, RecordsTopic};

/// The most commands that one flush decides. A flush makes at most one update a record and one result message a command,
/// so that it fits the 1,000 messages of an atomic batch.
pub const MAX_FLUSH_COMMANDS: usize = 450;
/// The most result messages that a flush fills by carrying; what does not fit is carried by the next.
pub const MAX_CARRY_MESSAGES: usize = 500;
/// How often a rule that panics is tried before its command is decided `dead`.
pub const MAX_PANICS: usize = 3;
/// Kept free of what the server takes as payload, for headers and for the envelope around the record and its changes.
pub const ENVELOPE_RESERVE_BYTES: usize = 4096;

/// Bytes of a change beside its ids, reply and error.
const CHANGE_OVERHEAD_BYTES: usize = 448;
/// Bytes of an update beside its record and its changes.
const UPDATE_OVERHEAD_BYTES: usize = 1024;
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
    pub(crate) deferred: VecDeque<LoggedCommand>,
}

/// The numbers that move with the flushes of a claim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlushPlace {
    pub(crate) claim: StreamSequence,
    pub(crate) command_log: CommandLogIncarnation,
    pub(crate) results_published: u64,
    pub(crate) batched: bool,
    /// Outcomes of commands logged before this time may have been dropped unseen.
    pub(crate) outcomes_complete_from: LogTime,
}

/// Decides commands. The first of them is decided `dead` where `dead_first` says why.
pub(crate) fn decide_flush<C: CopyRead>(
    context: &FlushContext,
    place: FlushPlace,
    view: &View<'_, C>,
    commands: VecDeque<LoggedCommand>,
    dead_first: Option<&str>,
) -> Result<Flush, C::Error> {
    let mut planner = Planner {
        context,
        place,
        view,
        folds: Vec::new(),
        fold_of: HashMap::new(),
        unreadable: Vec::new(),
        emissions: Vec::new(),
    };
    let mut deferred = VecDeque::new();
    let (mut through, mut ahead) = (None, None);
    let mut dead = dead_first;
    for (count, command) in commands.into_iter().enumerate() {
        let step = if count < MAX_FLUSH_COMMANDS { planner.take(&command, dead.take())? } else { Step::Deferred };
        match step {
            Step::Decided(command_id) => {
                let reached = if deferred.is_empty() { &mut through } else { &mut ahead };
                *reached = Some(DecidedCommand { sequence: command.sequence, command_id, time_ms: command.time });
            }
            Step::Deferred => deferred.push_back(command),
        }
    }
    let emissions = std::mem::take(&mut planner.emissions);
    let (messages, result_messages, effects) = planner.finish()?;
    Ok(Flush { messages, result_messages, effects, emissions, through, ahead, deferred })
}

enum Step {
    Decided(CommandId),
    Deferred,
}

struct Planner<'a, C> {
    context: &'a FlushContext,
    place: FlushPlace,
    view: &'a View<'a, C>,
    folds: Vec<Fold>,
    fold_of: HashMap<RecordId, usize>,
    unreadable: Vec<Change>,
    emissions: Vec<Emission>,
}

/// One record's commands in this flush.
struct Fold {
    id: RecordId,
    base: ViewedRecord,
    /// The record as the commands so far have left it.
    current: Option<Json>,
    version: RecordVersion,
    changes: Vec<Change>,
    change_bytes: usize,
    /// Nothing more fits: later commands wait for the next flush.
    closed: bool,
}

impl Fold {
    fn base_version(&self) -> RecordVersion {
        self.base.state.as_ref().map(|state| state.version).unwrap_or_default()
    }

    fn changed(&self) -> bool {
        self.version > self.base_version()
    }
}

impl<C: CopyRead> Planner<'_, C> {
    fn take(&mut self, command: &LoggedCommand, dead: Option<&str>) -> Result<Step, C::Error> {
        let message = match readable(self.context, command) {
            Ok(message) => message,
            Err(reason) => return self.take_unreadable(command, &reason),
        };
        let decided = Step::Decided(message.command_id.clone());
        if let Some(known) = self.known(command, message)? {
            self.emit_again(command, &known);
            return Ok(decided);
        }
        let index = match self.fold_of.get(&message.id) {
            Some(index) => *index,
            None => self.open_fold(&message.id)?,
        };
        if self.folds[index].closed {
            return Ok(Step::Deferred);
        }
        let decision = match dead {
            Some(reason) => Verdict::dead(reason),
            None if command.time < self.place.outcomes_complete_from => Verdict::unknown(),
            None => self.decide(&self.folds[index], command, message),
        };
        Ok(if self.fold(index, command, message, decision) { decided } else { Step::Deferred })
    }

    /// A command that cannot be read is answered too, else the group would stand still behind it.
    fn take_unreadable(&mut self, command: &LoggedCommand, reason: &str) -> Result<Step, C::Error> {
        let command_id = CommandId::of_unreadable(self.place.command_log, command.sequence);
        if let Some(known) = self.view.change(None, &command_id, command)? {
            self.emit_again(command, &known);
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
        };
        self.emissions.push(Emission::DeadLetter(self.dead_letter(command, &change)));
        self.unreadable.push(change);
        Ok(Step::Decided(command_id))
    }

    /// The entry of a command that was decided before, in this flush included.
    fn known(&self, command: &LoggedCommand, message: &CommandMessage) -> Result<Option<Change>, C::Error> {
        let here = self
            .fold_of
            .get(&message.id)
            .and_then(|index| self.folds[*index].changes.iter().find(|change| change.command_id == message.command_id));
        match here {
            Some(change) => Ok(Some(change.clone())),
            None => self.view.change(Some(&message.id), &message.command_id, command),
        }
    }

    /// The outcome is in the log, but a crash may have come before what it asks for was sent.
    fn emit_again(&mut self, command: &LoggedCommand, known: &Change) {
        // Also where a log that was rewound delivers it again in its next life.
        if known.sequence == command.sequence && known.time_ms == command.time {
            self.emissions.extend(self.emissions_of(command, known));
        }
    }

    fn emissions_of(&self, command: &LoggedCommand, change: &Change) -> Vec<Emission> {
        if change.outcome.status == Status::Dead || is_unknown(&change.outcome) {
            return vec![Emission::DeadLetter(self.dead_letter(command, change))];
        }
        let emitted = |(index, emitted): (usize, &EmittedCommand)| {
            Emission::Command(CommandMessage {
                kind: emitted.kind.clone(),
                id: emitted.id.clone(),
                name: emitted.name.clone(),
                command_id: change.command_id.emitted(index),
                if_version: None,
                body: emitted.body.clone(),
            })
        };
        change.emits.iter().enumerate().map(emitted).collect()
    }

    fn dead_letter(&self, command: &LoggedCommand, change: &Change) -> DeadLetter {
        // A letter that no message can hold would never be sent, and the group would stand still behind it. What it leaves
        // out is in the command log, at the place that the change names.
        let room = self.context.message_bytes().saturating_sub(change_bytes(change));
        let command = command.message.as_ref().ok().and_then(|message| Json::from_value(message).ok());
        let command = command.filter(|command| command.as_str().len() <= room);
        DeadLetter { kind: self.context.definition.name.clone(), change: change.clone(), command }
    }

    fn open_fold(&mut self, id: &RecordId) -> Result<usize, C::Error> {
        let base = self.view.record(id)?;
        let fold = Fold {
            id: id.clone(),
            current: base.state.as_ref().and_then(|state| state.record.clone()),
            version: base.state.as_ref().map(|state| state.version).unwrap_or_default(),
            changes: Vec::new(),
            change_bytes: 0,
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
        let FlushContext { definition, site, .. } = self.context;
        let owner = match &fold.base.state {
            Some(state) => Some(state.owner.clone()),
            None => definition.home.home(&message.id),
        };
        match owner {
            None => {
                return Verdict::refuse(ErrorCode::Invalid, "no site may create a record with this id");
            }
            Some(owner) if owner != *site => {
                #[derive(serde::Serialize)]
                struct Details {
                    owner: SiteName,
                }
                let refusal = Refusal::new(ErrorCode::NotOwner, format!("site {owner} owns this record"));
                return Verdict::Refused(refusal.with_details(&Details { owner }));
            }
            Some(_) => {}
        }
        let Some(decider) = definition.commands.get(&message.name) else {
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
                Ok(decision) => return Verdict::from(decision),
                Err(payload) => panicked = panic_text(payload.as_ref()),
            }
        }
        Verdict::dead(&format!("the rule panicked {MAX_PANICS} times: {}", shortened(&panicked)))
    }

    /// Takes a verdict into a fold; false where it does not fit and must wait for the next flush.
    fn fold(&mut self, index: usize, command: &LoggedCommand, message: &CommandMessage, verdict: Verdict) -> bool {
        let limit = self.context.message_bytes();
        let fold = &self.folds[index];
        let mut entry = Entry::new(fold, verdict);
        let mut change = entry.change(self.place.command_log, command, message);
        let fits = |fold: &Fold, entry: &Entry, change: &Change| {
            // A record that does not change is not published.
            let changed = entry.version > fold.base_version();
            let record = entry.record.as_ref().filter(|_| changed).map_or(0, |record| record.as_str().len());
            UPDATE_OVERHEAD_BYTES + fold.change_bytes + change_bytes(change) + record + message.id.as_str().len() * 6
                <= limit
        };
        if !fits(fold, &entry, &change) {
            if !fold.changes.is_empty() {
                self.folds[index].closed = true;
                return false;
            }
            let text = format!("the record and its outcome would exceed the {limit} bytes that one message can hold");
            entry = Entry::new(fold, Verdict::refuse(ErrorCode::TooLarge, text));
            change = entry.change(self.place.command_log, command, message);
        }
        self.emissions.extend(self.emissions_of(command, &change));
        let fold = &mut self.folds[index];
        fold.current = entry.record;
        fold.version = entry.version;
        fold.change_bytes += change_bytes(&change);
        fold.changes.push(change);
        true
    }

    fn carries_due(&self, fold: &Fold) -> bool {
        fold.base.uncarried * 2 >= usize::try_from(self.context.retention.history).unwrap_or(usize::MAX)
    }

    fn finish(mut self) -> Result<(Vec<FlushMessage>, u64, FlushEffects), C::Error> {
        let mut effects = FlushEffects::default();
        let mut updates = Vec::new();
        let mut results = ResultPages::new(self.context.message_bytes());
        for change in std::mem::take(&mut self.unreadable) {
            results.add(vec![change], None);
        }
        for fold in std::mem::take(&mut self.folds) {
            if self.carries_due(&fold) {
                let decided: HashSet<&CommandId> = fold.changes.iter().map(|change| &change.command_id).collect();
                // An id that came again later than W has a newer outcome by now: the old one must not take its place.
                let is_newest =
                    |change: &Change| !decided.contains(&change.command_id) && !self.view.overlay.has_another(change);
                for sequence in &fold.base.carriable {
                    if results.pages.len() >= MAX_CARRY_MESSAGES {
                        break;
                    }
                    let outcomes = self.view.copy.outcomes_of_message(&self.context.site, *sequence)?;
                    let changes = outcomes.into_iter().map(|outcome| outcome.change).filter(is_newest).collect();
                    results.add(changes, Some(Carried { id: fold.id.clone(), sequence: *sequence }));
                    effects.carries.push((fold.id.clone(), *sequence));
                }
            }
            effects.changes.extend(fold.changes.iter().cloned());
            if fold.changed() {
                let (update, state) = self.update(fold);
                effects.records.push((update.id.clone(), state));
                updates.push(update);
            } else {
                results.add(fold.changes, None);
            }
        }
        let count = updates.len() + results.pages.len();
        let size = u32::try_from(count).unwrap_or(u32::MAX);
        let result_messages = u64::try_from(results.pages.len()).unwrap_or(u64::MAX);
        let mut messages = Vec::with_capacity(count);
        for (index, mut update) in (0..).zip(updates) {
            if self.place.batched && size > 1 {
                update.batch = BatchPlace { index, size };
            }
            let subject = self.subject(RecordsTopic::Update(update.id.token()));
            messages.push(FlushMessage { subject, payload: print(&update), ttl_ms: None });
        }
        for (index, (changes, carries)) in (0..).zip(results.pages) {
            let page = (self.place.results_published + index) / self.context.retention.history.max(1);
            let subject = self.subject(RecordsTopic::Result { claim: self.place.claim, page });
            let kind = self.context.definition.name.clone();
            let result = ResultMessage { log: self.context.log.clone(), kind, changes, carries };
            let ttl_ms = Some(self.context.retention.kept_in_log_ms());
            messages.push(FlushMessage { subject, payload: print(&result), ttl_ms });
        }
        Ok((messages, result_messages, effects))
    }

    fn update(&self, fold: Fold) -> (Update, RecordState) {
        let FlushContext { definition, site, log, .. } = self.context;
        let base = fold.base.state.as_ref();
        let time = fold.changes.iter().map(|change| change.time_ms).max().unwrap_or_default();
        let mut update = Update {
            log: log.clone(),
            id: fold.id,
            kind: definition.name.clone(),
            version: fold.version,
            owner: site.clone(),
            epoch: base.map(|state| state.epoch).unwrap_or_default(),
            time_ms: time,
            record: fold.current,
            schema: definition.schema,
            hash: Hash::default(),
            previous: base.map(|state| state.hash),
            batch: BatchPlace::ALONE,
            // The envelope names the record once for all.
            changes: fold.changes.into_iter().map(|change| Change { id: None, ..change }).collect(),
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
            sequence: StreamSequence::default(),
            uncarried: Vec::<Uncarried>::new(),
        };
        (update, state)
    }

    fn subject(&self, topic: RecordsTopic) -> RecordsSubject {
        RecordsSubject {
            site: self.context.site.clone(),
            kind: self.context.definition.name.clone(),
            group: self.context.group,
            topic,
        }
    }
}

/// What was decided for a command, before it is known to fit.
enum Verdict {
    Accepted { change: RecordChange, reply: Json, emits: Vec<EmittedCommand> },
    Refused(Refusal),
    Dead(Refusal),
}

impl Verdict {
    fn refuse(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message))
    }

    fn dead(reason: &str) -> Self {
        Self::Dead(Refusal::new(ErrorCode::Internal, reason))
    }

    fn unknown() -> Self {
        let text = "the copy was rebuilt after this command's outcome may have expired: an operator must judge it";
        Self::Refused(Refusal::new(ErrorCode::OutcomeUnknown, text))
    }
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Accepted { change, reply, emits } => Self::Accepted { change, reply, emits },
            Decision::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

/// The record and the outcome that a verdict leads to.
struct Entry {
    record: Option<Json>,
    version: RecordVersion,
    outcome: Outcome,
    emits: Vec<EmittedCommand>,
}

impl Entry {
    fn new(fold: &Fold, verdict: Verdict) -> Self {
        let unchanged = |status, error| Self {
            record: fold.current.clone(),
            version: fold.version,
            outcome: Outcome { status, version: fold.version, reply: None, error: Some(error) },
            emits: Vec::new(),
        };
        match verdict {
            Verdict::Refused(refusal) if refusal.code == ErrorCode::Rejected => unchanged(Status::Rejected, refusal),
            Verdict::Refused(refusal) => unchanged(Status::Refused, refusal),
            Verdict::Dead(refusal) => unchanged(Status::Dead, refusal),
            Verdict::Accepted { change, reply, emits } => {
                let (record, version) = match change {
                    RecordChange::Unchanged => (fold.current.clone(), fold.version),
                    RecordChange::Becomes(record) => (Some(record), fold.version.next()),
                    RecordChange::Deleted => (None, fold.version.next()),
                };
                let outcome = Outcome { status: Status::Applied, version, reply: Some(reply), error: None };
                Self { record, version, outcome, emits }
            }
        }
    }

    fn change(&self, log: CommandLogIncarnation, command: &LoggedCommand, message: &CommandMessage) -> Change {
        Change {
            id: Some(message.id.clone()),
            command_id: message.command_id.clone(),
            name: Some(message.name.clone()),
            log,
            sequence: command.sequence,
            time_ms: command.time,
            fingerprint: message.fingerprint(),
            outcome: self.outcome.clone(),
            emits: self.emits.clone(),
        }
    }
}

/// Outcomes packed into result messages. What is added together stays together, so that the outcomes of one record are
/// split between messages only where an update was.
struct ResultPages {
    limit: usize,
    bytes: usize,
    pages: Vec<(Vec<Change>, Vec<Carried>)>,
}

impl ResultPages {
    fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, pages: Vec::new() }
    }

    fn add(&mut self, changes: Vec<Change>, carried: Option<Carried>) {
        if changes.is_empty() && carried.is_none() {
            return;
        }
        let carried_bytes = carried.as_ref().map_or(0, |carried| 64 + carried.id.as_str().len() * 6);
        let bytes = changes.iter().map(change_bytes).sum::<usize>() + carried_bytes;
        if self.pages.is_empty() || self.bytes + bytes > self.limit {
            self.pages.push((Vec::new(), Vec::new()));
            self.bytes = UPDATE_OVERHEAD_BYTES;
        }
        self.bytes += bytes;
        if let Some((page_changes, page_carries)) = self.pages.last_mut() {
            page_changes.extend(changes);
            page_carries.extend(carried);
        }
    }
}

/// The most that a change can take as JSON: texts count six times, as an escaped control character does.
fn change_bytes(change: &Change) -> usize {
    let id = change.id.as_ref().map_or(0, |id| id.as_str().len() * 6);
    let reply = change.outcome.reply.as_ref().map_or(0, |reply| reply.as_str().len());
    let error = change.outcome.error.as_ref().map_or(0, |error| {
        error.message.len() * 6 + error.details.as_ref().map_or(0, |details| details.as_str().len())
    });
    let emitted = |emitted: &EmittedCommand| 256 + emitted.id.as_str().len() * 6 + emitted.body.as_str().len();
    let emits = change.emits.iter().map(emitted).sum::<usize>();
    CHANGE_OVERHEAD_BYTES + change.command_id.as_str().len() * 6 + id + reply + error + emits
}

/// The command, or why it cannot be processed as it stands.
fn readable<'c>(context: &FlushContext, command: &'c LoggedCommand) -> Result<&'c CommandMessage, String> {
    let message = command.message.as_ref().map_err(Clone::clone)?;
    let definition = &context.definition;
    if message.kind != definition.name {
        return Err(format!("the command is for kind {} but was logged for {}", message.kind, definition.name));
    }
    let group = definition.settings.groups.group_of(&message.id);
    if group != context.group {
        return Err(format!("the record belongs to group {group} but was logged for {}", context.group));
    }
    let bytes = message.command_id.as_str().len();
    if bytes > MAX_LOGGED_COMMAND_ID_BYTES {
        return Err(format!("its command id has {bytes} bytes, more than {MAX_LOGGED_COMMAND_ID_BYTES}"));
    }
    Ok(message)
}

/// How the outcome of a command is found: by its record and its id, or by its place where it cannot be processed.
pub(crate) fn key_of(context: &FlushContext, log: CommandLogIncarnation, command: &LoggedCommand) -> CommandKey {
    match readable(context, command) {
        Ok(message) => (Some(message.id.clone()), message.command_id.clone()),
        Err(_) => (None, CommandId::of_unreadable(log, command.sequence)),
    }
}

/// The start of a text that may be of any length.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MAX_REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn is_unknown(outcome: &Outcome) -> bool {
    outcome.error.as_ref().is_some_and(|error| error.code == ErrorCode::OutcomeUnknown)
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Prints an envelope. Every part of it is a string, a number or checked JSON, so that printing cannot fail.
fn print(envelope: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(envelope).unwrap_or_else(|error| panic!("an envelope is always printable: {error}"))
}
