//! One write transaction: what an applier changes, and the expiry of outcomes.

use std::ops::Bound;

use freehold_core::{
    CommandId, CopyRead, CopyWrite, ForwardNumber, ForwardState, GroupDigest, GroupNumber, GroupState, KindName, Lane,
    LogTime, RecordId, RecordPlace, RecordState, SiteName, StoredOutcome, StreamSequence, Takeovers,
};
use redb::{ReadableTable as _, Table, WriteTransaction};

use crate::cache::{Cache, ExpiryWalk};
use crate::error::Error;
use crate::health::Health;
use crate::rows;
use crate::schema::{self, MessageRow, OriginState};

/// The most outcomes that one call of [`Transaction::expire`] looks at, the last message's to its end: a bound on how long
/// answers wait behind expiry.
pub const MAX_EXPIRED_OUTCOMES: usize = 2_000;

/// After how much log time, in milliseconds, a walk through old messages that had to keep some starts again at their head:
/// the outcomes of a group that nobody holds may be kept for long, and must not be read over and over.
pub const KEPT_OUTCOMES_REVISIT_MS: u64 = 10_000;

type OpenTable<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// A copy as an applier changes it, through [`CopyWrite`]. Reads see what the transaction has written. Made by
/// [`Writer::transact`](crate::Writer::transact).
#[derive(Debug)]
pub struct Transaction<'t> {
    meta: OpenTable<'t>,
    records: OpenTable<'t>,
    outcomes: OpenTable<'t>,
    messages: OpenTable<'t>,
    groups: OpenTable<'t>,
    digests: OpenTable<'t>,
    origins: OpenTable<'t>,
    forwards: OpenTable<'t>,
    cache: Cache,
    health: Health,
}

/// What a call of [`Transaction::expire`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Outcomes dropped.
    pub outcomes: usize,
    /// Messages of which no outcome is left.
    pub messages: usize,
    /// Old outcomes that were kept.
    pub kept: usize,
    /// Whether the limit ended the walk before it reached the young ones: there may be more to drop.
    pub more: bool,
}

impl<'t> Transaction<'t> {
    /// Tables are opened once for a transaction: opening one costs as much as a read.
    pub(crate) fn open(transaction: &'t WriteTransaction, cache: Cache, health: Health) -> Result<Self, Error> {
        let open = |table: &schema::TableName| transaction.open_table(table.definition()).map_err(Error::engine);
        let meta = open(&schema::META)?;
        let mut cache = cache;
        if cache.takeovers.is_none() {
            cache.takeovers = Some(rows::takeovers(&meta)?.unwrap_or_default());
        }
        Ok(Self {
            meta,
            records: open(&schema::RECORDS)?,
            outcomes: open(&schema::OUTCOMES)?,
            messages: open(&schema::MESSAGES)?,
            groups: open(&schema::GROUPS)?,
            digests: open(&schema::DIGESTS)?,
            origins: open(&schema::ORIGINS)?,
            forwards: open(&schema::FORWARDS)?,
            cache,
            health,
        })
    }

    /// Writes what was gathered over the transaction.
    pub(crate) fn finish(self) -> Result<Cache, Error> {
        let Self { mut groups, mut digests, mut origins, mut cache, .. } = self;
        cache.groups.take_changed(|key, state| insert(&mut groups, key, &schema::encode_group(key, state)?))?;
        cache.digests.take_changed(|key, row| insert(&mut digests, key, &schema::encode_digests(key, row)))?;
        cache.origins.take_changed(|key, state| insert(&mut origins, key, &schema::encode_origin(key, state)))?;
        Ok(cache)
    }

    /// What the copy knows of an origin's log; the default where it has read none of it.
    pub fn origin(&self, origin: &SiteName) -> Result<OriginState, Error> {
        match self.cache.origins.get(origin.as_str().as_bytes()) {
            Some(state) => Ok(state.clone()),
            None => self.health.guard(|| Ok(rows::origin(&self.origins, origin)?.unwrap_or_default())),
        }
    }

    /// The digests of an origin begin anew.
    fn forget_digests(&mut self, origin: &SiteName) -> Result<(), Error> {
        let Self { cache, digests, health, .. } = self;
        let stored = health.guard(|| rows::digest_keys(digests, origin))?;
        let prefix = schema::digest_prefix(origin);
        let cached = cache.digests.keys().filter(|key| key.starts_with(&prefix)).cloned();
        for key in stored.into_iter().chain(cached.collect::<Vec<_>>()) {
            cache.digests.put(&key, Vec::new());
        }
        Ok(())
    }

    /// Replaces what the copy knows of an origin's log. [`CopyWrite::put_applied`] moves its position and clears
    /// `last_hash`; the other fields change here only.
    pub fn put_origin(&mut self, origin: &SiteName, state: OriginState) {
        self.cache.origins.put(origin.as_str().as_bytes(), state);
    }

    /// Drops outcomes of an origin that ended before a time and that `may_drop` lets go, oldest messages first. Looks at
    /// [`MAX_EXPIRED_OUTCOMES`] at most; the next call goes on behind them, so that a call that finds nothing to do costs one
    /// read. What was kept is looked at again every [`KEPT_OUTCOMES_REVISIT_MS`].
    pub fn expire<E: From<Error>>(
        &mut self,
        origin: &SiteName,
        before: LogTime,
        mut may_drop: impl FnMut(&Self, &KindName, &StoredOutcome) -> Result<bool, E>,
    ) -> Result<Expired, E> {
        let mut expired = Expired::default();
        let mut walk = self.cache.expiry.get(origin).copied().unwrap_or(ExpiryWalk::from_head(before));
        walk.restart_if_due(before, KEPT_OUTCOMES_REVISIT_MS);
        let (old, more) = self.old_messages(origin, walk.behind, before)?;
        expired.more = more;
        walk.behind = old.last().map_or(walk.behind, |(sequence, _)| *sequence);
        for (sequence, message) in old {
            let count = message.commands.len();
            let mut kept = Vec::new();
            for (id, command_id) in message.commands {
                let outcome = self.outcome(&message.kind, id.as_ref(), &command_id)?;
                // A later message may have brought the outcome again: then it is that message's to drop.
                let Some(outcome) = outcome.filter(|it| it.sequence == sequence && it.origin == *origin) else {
                    continue;
                };
                if may_drop(self, &message.kind, &outcome)? {
                    let key = schema::outcome_key(&message.kind, id.as_ref(), &command_id);
                    self.health.guard(|| remove(&mut self.outcomes, &key))?;
                    expired.outcomes += 1;
                } else {
                    kept.push((id, command_id));
                }
            }
            expired.kept += kept.len();
            let key = schema::message_key(origin, sequence);
            if kept.is_empty() {
                self.health.guard(|| remove(&mut self.messages, &key))?;
                expired.messages += 1;
            } else if kept.len() < count {
                let row = schema::encode_message(&key, message.time, &message.kind, &kept);
                self.health.guard(|| insert(&mut self.messages, &key, &row))?;
            }
        }
        walk.kept |= expired.kept > 0;
        walk.at_end = !more;
        self.cache.expiry.insert(origin.clone(), walk);
        Ok(expired)
    }

    /// Messages behind a sequence that the log took before a time, and whether there may be more.
    fn old_messages(
        &self,
        origin: &SiteName,
        behind: StreamSequence,
        before: LogTime,
    ) -> Result<(Vec<(StreamSequence, MessageRow)>, bool), Error> {
        self.health.guard(|| {
            let prefix = schema::message_prefix(origin);
            let from = schema::message_key(origin, behind);
            let mut old = Vec::new();
            let mut outcomes = 0;
            let range = (Bound::Excluded(from.as_slice()), Bound::Unbounded);
            for row in self.messages.range::<&[u8]>(range).map_err(Error::engine)? {
                let (key, value) = row.map_err(Error::engine)?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                if outcomes >= MAX_EXPIRED_OUTCOMES {
                    return Ok((old, true));
                }
                let message = schema::decode_message(key.value(), value.value())?;
                if message.time >= before {
                    break;
                }
                outcomes += message.commands.len().max(1);
                old.push((schema::message_sequence_of_key(key.value())?, message));
            }
            Ok((old, false))
        })
    }
}

impl CopyRead for Transaction<'_> {
    type Error = Error;

    fn applied(&self, origin: &SiteName) -> Result<StreamSequence, Error> {
        match self.cache.origins.get(origin.as_str().as_bytes()) {
            Some(state) => Ok(state.applied),
            None => Ok(self.origin(origin)?.applied),
        }
    }

    fn dropped_until(&self, origin: &SiteName) -> Result<StreamSequence, Error> {
        Ok(self.origin(origin)?.dropped_until)
    }

    fn record(&self, kind: &KindName, id: &RecordId) -> Result<Option<RecordState>, Error> {
        self.health.guard(|| Ok(rows::record(&self.records, kind, id)?.map(|row| row.state)))
    }

    fn outcome(
        &self,
        kind: &KindName,
        id: Option<&RecordId>,
        command_id: &CommandId,
    ) -> Result<Option<StoredOutcome>, Error> {
        self.health.guard(|| rows::outcome(&self.outcomes, kind, id, command_id))
    }

    fn group(&self, origin: &SiteName, kind: &KindName, group: GroupNumber) -> Result<GroupState, Error> {
        match self.cache.groups.get(&schema::group_key(origin, kind, group)) {
            Some(state) => Ok(state.clone()),
            None => self.health.guard(|| Ok(rows::group(&self.groups, origin, kind, group)?.unwrap_or_default())),
        }
    }

    fn outcomes_of_message(&self, origin: &SiteName, sequence: StreamSequence) -> Result<Vec<StoredOutcome>, Error> {
        self.health.guard(|| rows::outcomes_of_message(&self.messages, &self.outcomes, origin, sequence))
    }

    fn outcomes_complete_from(&self, origin: &SiteName) -> Result<LogTime, Error> {
        Ok(self.origin(origin)?.outcomes_complete_from)
    }

    fn digest(&self, origin: &SiteName, kind: &KindName, group: GroupNumber) -> Result<GroupDigest, Error> {
        let of_group = |row: &[GroupDigest]| row.get(usize::from(group.0)).copied().unwrap_or_default();
        match self.cache.digests.get(&schema::digest_key(origin, kind)) {
            Some(row) => Ok(of_group(row)),
            None => {
                let row = self.health.guard(|| rows::digests(&self.digests, origin, kind))?;
                Ok(of_group(&row.unwrap_or_default()))
            }
        }
    }

    fn ids_with_prefix(&self, kind: &KindName, prefix: &str) -> Result<Vec<RecordId>, Error> {
        self.health.guard(|| rows::ids_with_prefix(&self.records, kind, prefix))
    }

    fn takeovers(&self) -> Result<Takeovers, Error> {
        Ok(self.cache.takeovers.clone().unwrap_or_default())
    }

    fn forwards(
        &self,
        lane: &Lane<'_>,
        after: ForwardNumber,
        limit: usize,
    ) -> Result<Vec<(ForwardNumber, ForwardState)>, Error> {
        self.health.guard(|| rows::forwards(&self.forwards, lane, after, limit))
    }
}

impl CopyWrite for Transaction<'_> {
    fn put_applied(&mut self, origin: &SiteName, sequence: StreamSequence, time: LogTime) -> Result<(), Error> {
        let Self { cache, origins, health, .. } = self;
        let load = || health.guard(|| Ok(rows::origin(origins, origin)?.unwrap_or_default()));
        cache.origins.change(origin.as_str().as_bytes(), load, |state| {
            state.applied = sequence;
            state.time = time;
            state.last_hash = None;
        })
    }

    fn put_dropped(&mut self, origin: &SiteName, until: StreamSequence) -> Result<(), Error> {
        let Self { cache, origins, health, .. } = self;
        let load = || health.guard(|| Ok(rows::origin(origins, origin)?.unwrap_or_default()));
        cache.origins.change(origin.as_str().as_bytes(), load, |state| {
            state.dropped_until = until.max(state.dropped_until);
        })
    }

    fn put_record(
        &mut self,
        place: &RecordPlace<'_>,
        before: Option<&RecordState>,
        state: &RecordState,
    ) -> Result<(), Error> {
        let Self { cache, digests, records, health, .. } = self;
        let RecordPlace { origin, kind, group, id, cut } = place;
        let (before, after) = (before.and_then(|before| before.hash_at(origin, *cut)), state.hash_at(origin, *cut));
        if let Some(after) = after.filter(|_| before != after) {
            let load = || health.guard(|| Ok(rows::digests(digests, origin, kind)?.unwrap_or_default()));
            cache.digests.change(&schema::digest_key(origin, kind), load, |row| {
                let index = usize::from(group.0);
                if row.len() <= index {
                    row.resize(index + 1, freehold_core::GroupDigest::default());
                }
                row[index].replace(before, after);
            })?;
        }
        let key = schema::record_key(kind, id.as_str());
        let row = schema::encode_record(&key, *group, state);
        health.guard(|| insert(records, &key, &row))
    }

    fn forward(&self, lane: &Lane<'_>, number: ForwardNumber) -> Result<Option<ForwardState>, Error> {
        self.health.guard(|| rows::forward(&self.forwards, lane, number))
    }

    fn put_forward(
        &mut self,
        lane: &Lane<'_>,
        number: ForwardNumber,
        state: Option<&ForwardState>,
    ) -> Result<(), Error> {
        let Self { forwards, health, .. } = self;
        let key = schema::forward_key(lane, number);
        health.guard(|| match state {
            Some(state) => insert(forwards, &key, &schema::encode_forward(&key, state)?),
            None => remove(forwards, &key),
        })
    }

    fn put_outcome(&mut self, kind: &KindName, outcome: &StoredOutcome) -> Result<(), Error> {
        let key = schema::outcome_key(kind, outcome.change.id.as_ref(), &outcome.change.command_id);
        let row = schema::encode_outcome(&key, outcome);
        self.health.guard(|| insert(&mut self.outcomes, &key, &row))
    }

    fn put_message(
        &mut self,
        origin: &SiteName,
        sequence: StreamSequence,
        time: LogTime,
        kind: &KindName,
        commands: &[(Option<RecordId>, CommandId)],
    ) -> Result<(), Error> {
        if commands.is_empty() {
            return Ok(());
        }
        let key = schema::message_key(origin, sequence);
        let row = schema::encode_message(&key, time, kind, commands);
        self.health.guard(|| insert(&mut self.messages, &key, &row))
    }

    fn put_takeovers(&mut self, takeovers: &Takeovers) -> Result<(), Error> {
        let before = CopyRead::takeovers(self)?;
        for lost in takeovers.cut_since(&before) {
            self.forget_digests(lost)?;
        }
        let row = schema::encode_takeovers(takeovers)?;
        self.health.guard(|| insert(&mut self.meta, schema::TAKEOVERS_KEY, &row))?;
        self.cache.takeovers = Some(takeovers.clone());
        Ok(())
    }

    fn put_group(
        &mut self,
        origin: &SiteName,
        kind: &KindName,
        group: GroupNumber,
        state: &GroupState,
    ) -> Result<(), Error> {
        self.cache.groups.put(&schema::group_key(origin, kind, group), state.clone());
        Ok(())
    }
}

fn insert(table: &mut OpenTable<'_>, key: &[u8], value: &[u8]) -> Result<(), Error> {
    table.insert(key, value).map_err(Error::engine)?;
    Ok(())
}

fn remove(table: &mut OpenTable<'_>, key: &[u8]) -> Result<(), Error> {
    table.remove(key).map_err(Error::engine)?;
    Ok(())
}
