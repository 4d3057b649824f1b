//! What a holder has published and its copy has not applied yet.
//!
//! A holder decides on its copy seen through this overlay. An entry is dropped when the copy has applied the message that
//! it stands for; the whole overlay is dropped when the fate of any publish is unknown.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::command::LoggedCommand;
use crate::copy::{CopyRead, RecordState, StoredOutcome, Uncarried};
use crate::envelope::Forward;
use crate::group::GroupNumber;
use crate::id::{CommandId, RecordId, closest_right, home_rights_start};
use crate::name::{KindName, SiteName};
use crate::number::{LogTime, StreamSequence};
use crate::outcome::{Change, ForwardPlace};

/// A command of a record, as outcomes are found.
pub(crate) type CommandKey = (Option<RecordId>, CommandId);

/// What one flush will have changed once the copy has applied it.
#[derive(Debug, Default)]
pub(crate) struct FlushEffects {
    pub(crate) records: Vec<(RecordId, RecordState)>,
    pub(crate) changes: Vec<Change>,
    pub(crate) carries: Vec<(RecordId, StreamSequence)>,
    pub(crate) routing: Routing,
}

/// What a flush does to forwarded commands.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Sent on their way.
    pub(crate) forwards: Vec<Forward>,
    /// Of other sites: decided or returned.
    pub(crate) received: Vec<ForwardPlace>,
    /// That had come back: decided or sent elsewhere.
    pub(crate) settled: Vec<ForwardPlace>,
    /// Those of them whose outcomes ask for something.
    pub(crate) asking: Vec<ForwardPlace>,
}

impl Routing {
    pub(crate) fn is_empty(&self) -> bool {
        self.forwards.is_empty() && self.received.is_empty() && self.settled.is_empty()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Overlay {
    records: HashMap<RecordId, PublishedRecord>,
    changes: HashMap<CommandKey, Change>,
    carries: HashSet<(RecordId, StreamSequence)>,
    /// Oldest first.
    flushes: VecDeque<PublishedFlush>,
}

#[derive(Debug)]
struct PublishedRecord {
    state: RecordState,
    /// Flushes in this overlay that updated the record.
    updates: usize,
}

#[derive(Debug)]
struct PublishedFlush {
    /// The last of its messages; nothing until the log has answered.
    stored: Option<StreamSequence>,
    records: Vec<RecordId>,
    changes: Vec<CommandKey>,
    carries: Vec<(RecordId, StreamSequence)>,
    routing: Routing,
}

impl Overlay {
    /// Takes in a flush that is being published.
    pub(crate) fn publish(&mut self, effects: FlushEffects) {
        let mut flush = PublishedFlush {
            stored: None,
            records: Vec::with_capacity(effects.records.len()),
            changes: Vec::with_capacity(effects.changes.len()),
            carries: effects.carries.clone(),
            routing: effects.routing,
        };
        for (id, state) in effects.records {
            flush.records.push(id.clone());
            let updates = self.records.get(&id).map_or(0, |record| record.updates) + 1;
            self.records.insert(id, PublishedRecord { state, updates });
        }
        for change in effects.changes {
            let key = (change.id.clone(), change.command_id.clone());
            flush.changes.push(key.clone());
            // As in the copy, what only repeats does not take the place of what it repeats.
            if !self.changes.get(&key).is_some_and(|known| change.repeats_that(known)) {
                self.changes.insert(key, change);
            }
        }
        self.carries.extend(effects.carries);
        self.flushes.push_back(flush);
    }

    /// Whether the copy has applied everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.flushes.is_empty()
    }

    /// Notes that the log has stored every message of the newest flush.
    pub(crate) fn stored(&mut self, last: StreamSequence) {
        if let Some(flush) = self.flushes.back_mut() {
            flush.stored = Some(last);
        }
    }

    /// Drops what the copy has applied.
    pub(crate) fn prune(&mut self, applied: StreamSequence) {
        while self.flushes.front().and_then(|flush| flush.stored).is_some_and(|stored| stored <= applied) {
            let Some(flush) = self.flushes.pop_front() else { break };
            for id in flush.records {
                if let Some(record) = self.records.get_mut(&id) {
                    record.updates -= 1;
                    if record.updates == 0 {
                        self.records.remove(&id);
                    }
                }
            }
            for key in flush.changes {
                self.changes.remove(&key);
            }
            for carried in flush.carries {
                self.carries.remove(&carried);
            }
        }
    }

    /// What the copy does not know yet of forwarded commands, oldest first.
    pub(crate) fn routing(&self) -> impl Iterator<Item = &Routing> {
        self.flushes.iter().map(|flush| &flush.routing)
    }

    /// The last message that the copy must apply for the overlay to be empty; nothing where it is, or where the log has
    /// not answered yet.
    pub(crate) fn last_stored(&self) -> Option<StreamSequence> {
        self.flushes.iter().rev().find_map(|flush| flush.stored)
    }

    /// Whether another command of the same record and id was decided later, and is not applied yet. The very same one can be here
    /// and in the copy at a time: where the copy has applied one message of its flush and not the next.
    pub(crate) fn has_another(&self, change: &Change) -> bool {
        let published = self.changes.get(&(change.id.clone(), change.command_id.clone()));
        let place = |change: &Change| (change.log, change.sequence, change.time_ms);
        published.is_some_and(|published| !published.repeats && place(published) != place(change))
    }

    fn record(&self, id: &RecordId) -> Option<&PublishedRecord> {
        self.records.get(id)
    }
}

/// A copy seen through an overlay.
pub(crate) struct View<'a, C> {
    pub(crate) site: &'a SiteName,
    pub(crate) kind: &'a KindName,
    pub(crate) copy: &'a C,
    pub(crate) overlay: &'a Overlay,
    /// How long outcomes are kept: W.
    pub(crate) outcomes_ms: u64,
}

/// A record as the next flush finds it.
pub(crate) struct ViewedRecord {
    /// Its owner is seen through the takeovers.
    pub(crate) state: Option<RecordState>,
    /// Where takeovers have changed its owner and no update says so yet: the lost sites, and what their logs have of it that nothing
    /// carries.
    pub(crate) inherits: Vec<(SiteName, Vec<Uncarried>)>,
    /// Updates whose outcomes nothing carries yet and that a result message can repeat now, oldest first.
    pub(crate) carriable: Vec<StreamSequence>,
    /// All updates whose outcomes nothing carries yet, those that the copy has not applied included.
    pub(crate) uncarried: usize,
}

impl ViewedRecord {
    /// A takeover has changed its owner, and no update says so yet.
    pub(crate) fn is_taken(&self) -> bool {
        !self.inherits.is_empty()
    }
}

impl<C: CopyRead> View<'_, C> {
    pub(crate) fn record(&self, id: &RecordId) -> Result<ViewedRecord, C::Error> {
        let applied = self.copy.record(self.kind, id)?;
        let carriable: Vec<StreamSequence> = applied
            .iter()
            .flat_map(|state| state.uncarried_at(self.site))
            .map(|update| update.sequence)
            .filter(|sequence| !self.overlay.carries.contains(&(id.clone(), *sequence)))
            .collect();
        let published = self.overlay.record(id);
        let uncarried = carriable.len() + published.map_or(0, |record| record.updates);
        let mut state = published.map(|record| record.state.clone()).or(applied);
        let mut inherits = Vec::new();
        if let Some(state) = state.as_mut() {
            for lost in self.copy.takeovers()?.see_record(state) {
                let updates = state.uncarried_at(&lost).to_vec();
                inherits.push((lost, updates));
            }
        }
        Ok(ViewedRecord { state, inherits, carriable, uncarried })
    }

    /// The right to create an id of a home site, if it has ever moved: that with the longest prefix counts.
    pub(crate) fn home_right(
        &self,
        group: GroupNumber,
        home: &SiteName,
        id: &str,
    ) -> Result<Option<RecordState>, C::Error> {
        let start = home_rights_start(group, home);
        let mut rights = self.copy.ids_with_prefix(self.kind, &start)?;
        rights.extend(self.overlay.records.keys().filter(|right| right.as_str().starts_with(&start)).cloned());
        match closest_right(&rights, &start, id) {
            Some(right) => Ok(self.record(right)?.state),
            None => Ok(None),
        }
    }

    /// The entry of a command of this site's log that has an outcome: its own, or one that it repeats in time.
    ///
    /// Outcomes are forgotten some time after W, at each copy when it comes to it. Whether a command is a repeat must not
    /// depend on that: its place in the log decides. The copy keeps every outcome that a command above the position
    /// can still be a repeat of. The times of another site's log are of another clock: an outcome from there counts for as long as the
    /// copy has it, and whoever answers a repeat from it must log that.
    pub(crate) fn change(
        &self,
        id: Option<&RecordId>,
        command_id: &CommandId,
        command: &LoggedCommand,
    ) -> Result<Option<Known>, C::Error> {
        let counts = |known: &Known| {
            let own = known.change.sequence == command.sequence && known.change.time_ms == command.time;
            let ages = known.logged_here && known.change.is_final();
            own || !ages || known.time.is_none_or(|time| command.time.ms_since(time) < self.outcomes_ms)
        };
        Ok(self.newest(id, command_id)?.filter(counts))
    }

    /// The newest entry of a record's command id, however old it is.
    pub(crate) fn newest(&self, id: Option<&RecordId>, command_id: &CommandId) -> Result<Option<Known>, C::Error> {
        let key = (id.cloned(), command_id.clone());
        let published = self.overlay.changes.get(&key);
        let applied = match published {
            Some(published) if !published.repeats => None,
            _ => self.copy.outcome(self.kind, id, command_id)?,
        };
        let takes_place = |applied: &StoredOutcome| published.is_none_or(|it| it.repeats_that(&applied.change));
        if let Some(StoredOutcome { change, origin, time, sequence }) = applied.filter(takes_place) {
            let logged_here = origin == *self.site;
            let elsewhere = (!logged_here).then_some((origin, sequence));
            return Ok(Some(Known { change, logged_here, elsewhere, time: Some(time) }));
        }
        let known = |change| Known { change, logged_here: true, elsewhere: None, time: None };
        Ok(published.cloned().map(known))
    }
}

/// The entry of a command that has an outcome, or is on its way.
pub(crate) struct Known {
    pub(crate) change: Change,
    /// Whether it is in this site's log.
    pub(crate) logged_here: bool,
    /// The other site's log that it is in, and its place there.
    pub(crate) elsewhere: Option<(SiteName, StreamSequence)>,
    /// When the log took it; nothing where the copy has not applied it yet.
    time: Option<LogTime>,
}
