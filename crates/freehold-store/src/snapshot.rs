//! One committed state: single rows through [`CopyRead`], and listings.

use std::fmt;
use std::ops::Bound;
use std::sync::OnceLock;

use freehold_core::{
    CommandId, CopyRead, Epoch, ForwardNumber, ForwardState, GroupDigest, GroupNumber, GroupState, Hash, KindName,
    Lane, LogTime, RecordId, RecordState, RecordVersion, SiteName, StoredOutcome, StreamSequence, Takeovers,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable as _};

use crate::error::{Damage, Error};
use crate::health::Health;
use crate::rows;
use crate::schema::{self, OriginState, TableName};

/// The most rows that a page holds, whatever limit was asked for.
pub const MAX_PAGE_ROWS: usize = 1_000;
/// The most rows that are read for one page: a page ends early where most rows are passed over.
pub const MAX_PAGE_SCAN_ROWS: usize = 20_000;

type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// One committed state of the copy. Later commits do not show in it.
pub struct Snapshot {
    transaction: ReadTransaction,
    health: Health,
    records: OnceLock<ReadTable>,
    outcomes: OnceLock<ReadTable>,
    messages: OnceLock<ReadTable>,
    groups: OnceLock<ReadTable>,
    digests: OnceLock<ReadTable>,
    origins: OnceLock<ReadTable>,
    forwards: OnceLock<ReadTable>,
    takeovers: OnceLock<Takeovers>,
}

/// A page of a listing, in the byte order of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found. May be fewer than asked for although more follow.
    pub items: Vec<T>,
    /// Where the next page starts: behind this id. Nothing where this is the last page.
    pub resume_after: Option<RecordId>,
}

/// A record as two copies compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSummary {
    /// The record.
    pub id: RecordId,
    /// Its version.
    pub version: RecordVersion,
    /// Hash of its newest update.
    pub hash: Hash,
}

impl Snapshot {
    pub(crate) fn new(transaction: ReadTransaction, health: Health) -> Self {
        Self {
            transaction,
            health,
            records: OnceLock::new(),
            outcomes: OnceLock::new(),
            messages: OnceLock::new(),
            groups: OnceLock::new(),
            digests: OnceLock::new(),
            origins: OnceLock::new(),
            forwards: OnceLock::new(),
            takeovers: OnceLock::new(),
        }
    }

    /// Records whose ids start with `prefix`, behind `after`, at most `limit` or [`MAX_PAGE_ROWS`]. Deleted ones are passed
    /// over.
    pub fn list(
        &self,
        kind: &KindName,
        prefix: &str,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Page<(RecordId, RecordState)>, Error> {
        self.scan_records(kind, prefix, after, limit, |key, value| {
            let state = schema::decode_record(key, value)?.state;
            let id = schema::record_id_of_key(kind, key)?;
            let hidden = state.record.is_none() || id.is_reserved();
            Ok((!hidden).then_some((id, state)))
        })
    }

    /// The records that make up a group's digest at an origin, deleted ones included: to find out where two copies differ.
    /// Reads all records of the kind, page by page.
    pub fn records_of_group(
        &self,
        origin: &SiteName,
        kind: &KindName,
        group: GroupNumber,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Page<RecordSummary>, Error> {
        let cut = self.takeovers()?.cut_of(origin);
        self.scan_records(kind, "", after, limit, |key, value| {
            let head = schema::decode_record_head(key, value)?;
            if head.group != group {
                return Ok(None);
            }
            let id = schema::record_id_of_key(kind, key)?;
            if head.origin == origin.as_str() && cut == StreamSequence(0) {
                return Ok(Some(RecordSummary { id, version: head.version, hash: head.hash }));
            }
            // What its log last said of a record that another site owns now counts, too.
            let state = schema::decode_record(key, value)?.state;
            let last = state.last_at(origin).filter(|(sequence, ..)| *sequence > cut);
            Ok(last.map(|(_, version, hash)| RecordSummary { id, version, hash }))
        })
    }

    /// Records by the owner that their newest update names and the epoch of that; deleted ones, and those that stand for rights, included.
    /// Each with its epoch and version. Reads all records of the kind, page by page.
    pub fn records_by_owner(
        &self,
        kind: &KindName,
        wanted: impl Fn(&SiteName, Epoch) -> bool,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Page<(RecordId, Epoch, RecordVersion)>, Error> {
        self.scan_records(kind, "", after, limit, |key, value| {
            let state = schema::decode_record(key, value)?.state;
            let id = schema::record_id_of_key(kind, key)?;
            Ok(wanted(&state.owner, state.epoch).then_some((id, state.epoch, state.version)))
        })
    }

    /// The outcomes in an origin's log that ask for commands, oldest first.
    pub fn outcomes_with_emits(&self, origin: &SiteName) -> Result<Vec<(KindName, StoredOutcome)>, Error> {
        self.outcomes_of_log(origin, StreamSequence(0), usize::MAX, |outcome| !outcome.change.emits.is_empty())
    }

    /// The outcomes in an origin's log behind a place, oldest first: at least `limit` where there are so many, and all of the last message.
    pub fn outcomes_behind(
        &self,
        origin: &SiteName,
        behind: StreamSequence,
        limit: usize,
    ) -> Result<Vec<(KindName, StoredOutcome)>, Error> {
        self.outcomes_of_log(origin, behind, limit, |_| true)
    }

    fn outcomes_of_log(
        &self,
        origin: &SiteName,
        behind: StreamSequence,
        limit: usize,
        wanted: impl Fn(&StoredOutcome) -> bool,
    ) -> Result<Vec<(KindName, StoredOutcome)>, Error> {
        self.health.guard(|| {
            let prefix = schema::message_prefix(origin);
            let first = schema::message_key(origin, behind.next());
            let mut found = Vec::new();
            for row in self.messages()?.range::<&[u8]>(first.as_slice()..).map_err(Error::engine)? {
                let (key, value) = row.map_err(Error::engine)?;
                if !key.value().starts_with(&prefix) || found.len() >= limit {
                    break;
                }
                let sequence = schema::message_sequence_of_key(key.value())?;
                let message = schema::decode_message(key.value(), value.value())?;
                for (id, command_id) in &message.commands {
                    let outcome = rows::outcome(self.outcomes()?, &message.kind, id.as_ref(), command_id)?;
                    let is_of_message = |it: &StoredOutcome| it.origin == *origin && it.sequence == sequence;
                    let outcome = outcome.filter(|it| is_of_message(it) && wanted(it));
                    found.extend(outcome.map(|outcome| (message.kind.clone(), outcome)));
                }
            }
            Ok(found)
        })
    }

    /// What became of a command id, whatever record it was used for.
    pub fn outcomes_by_command(&self, kind: &KindName, command_id: &CommandId) -> Result<Vec<StoredOutcome>, Error> {
        self.health.guard(|| {
            let prefix = schema::outcome_prefix(kind, command_id);
            let mut found = Vec::new();
            for row in self.outcomes()?.range::<&[u8]>(prefix.as_slice()..).map_err(Error::engine)? {
                let (key, value) = row.map_err(Error::engine)?;
                if !key.value().starts_with(&prefix) || found.len() >= MAX_PAGE_ROWS {
                    break;
                }
                let id = schema::outcome_id_of_key(&prefix, key.value())?;
                found.push(schema::decode_outcome(key.value(), value.value(), id, command_id.clone())?);
            }
            Ok(found)
        })
    }

    /// The digests of a kind's groups at an origin, by group number. Groups behind the last are empty.
    pub fn digests(&self, origin: &SiteName, kind: &KindName) -> Result<Vec<GroupDigest>, Error> {
        self.health.guard(|| Ok(rows::digests(self.digest_table()?, origin, kind)?.unwrap_or_default()))
    }

    /// What the copy knows of an origin's log; the default where it has read none of it.
    pub fn origin(&self, origin: &SiteName) -> Result<OriginState, Error> {
        self.health.guard(|| Ok(rows::origin(self.origin_table()?, origin)?.unwrap_or_default()))
    }

    /// Every origin whose log the copy has read.
    pub fn origins(&self) -> Result<Vec<(SiteName, OriginState)>, Error> {
        self.health.guard(|| {
            let mut origins = Vec::new();
            for row in self.origin_table()?.iter().map_err(Error::engine)? {
                let (key, value) = row.map_err(Error::engine)?;
                let state = schema::decode_origin(key.value(), value.value())?;
                origins.push((schema::origin_of_key(key.value())?, state));
            }
            Ok(origins)
        })
    }

    fn scan_records<T>(
        &self,
        kind: &KindName,
        prefix: &str,
        after: Option<&RecordId>,
        limit: usize,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, Damage>,
    ) -> Result<Page<T>, Error> {
        self.health.guard(|| {
            let limit = limit.clamp(1, MAX_PAGE_ROWS);
            let first = schema::record_key(kind, prefix);
            let behind = after.map(|id| schema::record_key(kind, id.as_str())).filter(|behind| *behind >= first);
            let from = match &behind {
                Some(behind) => Bound::Excluded(behind.as_slice()),
                None => Bound::Included(first.as_slice()),
            };
            let mut items = Vec::new();
            let mut last: Option<Vec<u8>> = None;
            let rows = self.records()?.range::<&[u8]>((from, Bound::Unbounded)).map_err(Error::engine)?;
            for (scanned, row) in rows.enumerate() {
                let (key, value) = row.map_err(Error::engine)?;
                if !key.value().starts_with(&first) {
                    break;
                }
                if items.len() >= limit || scanned >= MAX_PAGE_SCAN_ROWS {
                    let resume_after = last.map(|key| schema::record_id_of_key(kind, &key)).transpose()?;
                    return Ok(Page { items, resume_after });
                }
                items.extend(take(key.value(), value.value())?);
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(key.value());
            }
            Ok(Page { items, resume_after: None })
        })
    }

    fn records(&self) -> Result<&ReadTable, Error> {
        self.table(&self.records, &schema::RECORDS)
    }

    fn outcomes(&self) -> Result<&ReadTable, Error> {
        self.table(&self.outcomes, &schema::OUTCOMES)
    }

    fn messages(&self) -> Result<&ReadTable, Error> {
        self.table(&self.messages, &schema::MESSAGES)
    }

    fn groups(&self) -> Result<&ReadTable, Error> {
        self.table(&self.groups, &schema::GROUPS)
    }

    fn digest_table(&self) -> Result<&ReadTable, Error> {
        self.table(&self.digests, &schema::DIGESTS)
    }

    fn origin_table(&self) -> Result<&ReadTable, Error> {
        self.table(&self.origins, &schema::ORIGINS)
    }

    /// Tables are opened when they are first read: most snapshots read one.
    fn table<'s>(&'s self, slot: &'s OnceLock<ReadTable>, name: &TableName) -> Result<&'s ReadTable, Error> {
        if let Some(table) = slot.get() {
            return Ok(table);
        }
        let table = self.transaction.open_table(name.definition()).map_err(Error::engine)?;
        Ok(slot.get_or_init(|| table))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl CopyRead for Snapshot {
    type Error = Error;

    fn applied(&self, origin: &SiteName) -> Result<StreamSequence, Error> {
        Ok(self.origin(origin)?.applied)
    }

    fn dropped_until(&self, origin: &SiteName) -> Result<StreamSequence, Error> {
        Ok(self.origin(origin)?.dropped_until)
    }

    fn record(&self, kind: &KindName, id: &RecordId) -> Result<Option<RecordState>, Error> {
        self.health.guard(|| Ok(rows::record(self.records()?, kind, id)?.map(|row| row.state)))
    }

    fn outcome(
        &self,
        kind: &KindName,
        id: Option<&RecordId>,
        command_id: &CommandId,
    ) -> Result<Option<StoredOutcome>, Error> {
        self.health.guard(|| rows::outcome(self.outcomes()?, kind, id, command_id))
    }

    fn group(&self, origin: &SiteName, kind: &KindName, group: GroupNumber) -> Result<GroupState, Error> {
        self.health.guard(|| Ok(rows::group(self.groups()?, origin, kind, group)?.unwrap_or_default()))
    }

    fn outcomes_of_message(&self, origin: &SiteName, sequence: StreamSequence) -> Result<Vec<StoredOutcome>, Error> {
        self.health.guard(|| rows::outcomes_of_message(self.messages()?, self.outcomes()?, origin, sequence))
    }

    fn outcomes_complete_from(&self, origin: &SiteName) -> Result<LogTime, Error> {
        Ok(self.origin(origin)?.outcomes_complete_from)
    }

    fn digest(&self, origin: &SiteName, kind: &KindName, group: GroupNumber) -> Result<GroupDigest, Error> {
        Ok(self.digests(origin, kind)?.get(usize::from(group.0)).copied().unwrap_or_default())
    }

    fn ids_with_prefix(&self, kind: &KindName, prefix: &str) -> Result<Vec<RecordId>, Error> {
        self.health.guard(|| rows::ids_with_prefix(self.records()?, kind, prefix))
    }

    fn takeovers(&self) -> Result<Takeovers, Error> {
        if let Some(takeovers) = self.takeovers.get() {
            return Ok(takeovers.clone());
        }
        let takeovers = self.health.guard(|| {
            let meta = self.transaction.open_table(schema::META.definition()).map_err(Error::engine)?;
            Ok(rows::takeovers(&meta)?.unwrap_or_default())
        })?;
        Ok(self.takeovers.get_or_init(|| takeovers).clone())
    }

    fn forwards(
        &self,
        lane: &Lane<'_>,
        after: ForwardNumber,
        limit: usize,
    ) -> Result<Vec<(ForwardNumber, ForwardState)>, Error> {
        self.health.guard(|| rows::forwards(self.table(&self.forwards, &schema::FORWARDS)?, lane, after, limit))
    }
}
