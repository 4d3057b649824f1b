//! What must hold, judged from all messages ever stored and from nothing that a holder or a copy believes.

use std::collections::{BTreeMap, HashMap};

use freehold_core::subject::RecordsTopic;
use freehold_core::{
    Change, CommandId, CommandLogIncarnation, CommandMessage, ErrorCode, Hash, LogMessage, RecordId, RecordVersion,
    RecordsBody, Status, StreamSequence, Update, read_body,
};

use crate::memory_copy::CommandKey;
use crate::rules::{Counter, Fields};
use crate::world::Setup;

/// A command's first entry in the log.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub(crate) change: Change,
    pub(crate) time: u64,
    /// What a holder logged that could not know the first outcome any more, W and more behind it.
    pub(crate) forgotten: Option<Change>,
    /// What was decided under the same id more than W before.
    pub(crate) earlier: Option<Change>,
}

impl Decided {
    /// What a copy holds that has read everything.
    pub(crate) fn newest(&self) -> &Change {
        self.forgotten.as_ref().unwrap_or(&self.change)
    }
}

/// A record as the log alone tells it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Track {
    pub(crate) version: RecordVersion,
    pub(crate) hash: Option<Hash>,
    counter: Option<Counter>,
    last: (CommandLogIncarnation, StreamSequence),
}

#[derive(Default)]
pub(crate) struct Oracle {
    history: u64,
    max_payload_bytes: usize,
    outcomes_ms: u64,
    pub(crate) decided: BTreeMap<CommandKey, Decided>,
    pub(crate) records: BTreeMap<RecordId, Track>,
    pages: HashMap<String, u64>,
    sent: HashMap<(RecordId, CommandId, Hash), CommandMessage>,
    attempts: HashMap<CommandId, u32>,
}

impl Oracle {
    pub(crate) fn new(setup: &Setup) -> Self {
        let Setup { history, max_payload_bytes, outcomes_ms, .. } = *setup;
        Self { history, max_payload_bytes, outcomes_ms, ..Self::default() }
    }

    /// Notes a command that may be in the command log.
    pub(crate) fn sent(&mut self, message: &CommandMessage) {
        let key = (message.id.clone(), message.command_id.clone(), message.fingerprint());
        self.sent.entry(key).or_insert_with(|| message.clone());
    }

    pub(crate) fn decided(&self, id: &RecordId, command_id: &CommandId) -> Option<&Decided> {
        self.decided.get(&(Some(id.clone()), command_id.clone()))
    }

    /// How often a command was tried in careful mode.
    pub(crate) fn attempts(&self, command_id: &CommandId) -> u32 {
        self.attempts.get(command_id).copied().unwrap_or_default()
    }

    /// Takes the next message of the log.
    pub(crate) fn observe(&mut self, message: &LogMessage) -> Result<(), String> {
        let at = message.sequence;
        if message.payload.len() >= self.max_payload_bytes {
            return Err(format!("message {at} has {} bytes", message.payload.len()));
        }
        match read_body(message).map_err(|anomaly| format!("message {at}: {anomaly}"))? {
            RecordsBody::Update(update) => self.update(message, *update),
            RecordsBody::Result(result) => {
                let page = self.pages.entry(message.subject.to_string()).or_default();
                *page += 1;
                if *page > self.history {
                    return Err(format!("{page} results on {}", message.subject));
                }
                let carries = !result.carries.is_empty();
                result
                    .changes
                    .into_iter()
                    .try_for_each(|change| self.change(at, message.time.0, change, carries, false))
            }
            RecordsBody::Attempt(attempt) => {
                *self.attempts.entry(attempt.command.command_id).or_default() += 1;
                Ok(())
            }
            RecordsBody::Claim(_) | RecordsBody::Position(_) => Ok(()),
        }
    }

    fn update(&mut self, message: &LogMessage, update: Update) -> Result<(), String> {
        let (at, id) = (message.sequence, update.id.clone());
        if message.subject.topic != RecordsTopic::Update(id.token()) || update.content_hash() != update.hash {
            return Err(format!("update {at} of {id} is not sound"));
        }
        let before = self.records.get(&id).cloned().unwrap_or_default();
        if update.previous != before.hash {
            return Err(format!("update {at} breaks the hash chain of {id}"));
        }
        for change in update.changes {
            self.change(at, message.time.0, Change { id: Some(id.clone()), ..change }, false, true)?;
        }
        let track = self.records.entry(id.clone()).or_default();
        if track.version != update.version || update.version <= before.version {
            return Err(format!(
                "update {at} takes {id} to version {}, its changes to {}",
                update.version, track.version
            ));
        }
        track.hash = Some(update.hash);
        let told = update.record.map(|record| record.read::<Counter>()).transpose().map_err(|e| e.to_string())?;
        if told != track.counter {
            return Err(format!("update {at} says that {id} is {told:?}, its commands make it {:?}", track.counter));
        }
        Ok(())
    }

    fn change(
        &mut self,
        at: StreamSequence,
        time: u64,
        change: Change,
        carried: bool,
        update: bool,
    ) -> Result<(), String> {
        let key = (change.id.clone(), change.command_id.clone());
        if let Some(first) = self.decided.get_mut(&key) {
            if *first.newest() == change && carried {
                return Ok(());
            }
            // The first outcome may be forgotten by now, and the log says so instead of deciding twice.
            let code = change.outcome.error.as_ref().map(|error| error.code);
            let honest = code == Some(ErrorCode::OutcomeUnknown) || change.id.is_none();
            // P2 holds for retries within W of the answer: what is logged later is another command.
            let asked = if honest { time } else { change.time_ms.0 };
            if asked < first.time + self.outcomes_ms {
                return Err(format!("message {at} decides {key:?} again: {change:?}, first {first:?}"));
            }
            if honest {
                first.forgotten = Some(change);
                return Ok(());
            }
        }
        if let Some(id) = &change.id {
            let sent = self.sent.get(&(id.clone(), change.command_id.clone(), change.fingerprint));
            let sent = sent.ok_or_else(|| format!("message {at} decides {key:?}, which nobody sent"))?;
            let track = self.records.entry(id.clone()).or_default();
            let place = (change.log, change.sequence);
            // What nobody can know any more is no place in the order.
            let unknown = change.outcome.error.as_ref().is_some_and(|error| error.code == ErrorCode::OutcomeUnknown);
            if place <= track.last && !unknown {
                return Err(format!("message {at} decides {key:?} at {place:?} behind {:?}", track.last));
            }
            track.last = track.last.max(place);
            let outcome = &change.outcome;
            if outcome.status == Status::Applied {
                let (before, name) = (track.counter.clone(), sent.name.as_str());
                let fields = sent.body.read::<Fields>().map_err(|error| error.to_string())?;
                track.counter = follow(before, name, fields);
                track.version.0 += u64::from(!matches!(name, "touch" | "abort"));
            }
            if outcome.version != track.version || (track.version.0 > 0 && !update && track.hash.is_none()) {
                return Err(format!("message {at}: {key:?} has version {}, not {}", outcome.version, track.version));
            }
        }
        // A copy that lags still answers with what was decided before.
        let earlier = self.decided.remove(&key).map(|first| first.change);
        self.decided.insert(key, Decided { change, time, forgotten: None, earlier });
        Ok(())
    }
}

/// What an accepted command makes of a counter: the rules once more, without their conditions.
fn follow(counter: Option<Counter>, name: &str, fields: Fields) -> Option<Counter> {
    let before = counter.clone().unwrap_or_default();
    match name {
        "create" | "replace" => Some(Counter { n: fields.n, ..before }),
        "add" => Some(Counter { n: before.n + fields.n, ..before }),
        "emit" => Some(Counter { n: before.n + 1, ..before }),
        "grow" => Some(Counter { pad: fields.pad, ..before }),
        "delete" => None,
        _ => counter,
    }
}
