//! Reads of one row each, the same for snapshots and for the transaction: key, value, checksum, fields.

use std::ops::Bound;

use freehold_core::{
    CommandId, ForwardNumber, ForwardState, GroupDigest, GroupNumber, GroupState, KindName, Lane, RecordId, SiteName,
    StoredOutcome, StreamSequence, Takeovers,
};
use redb::ReadableTable;

use crate::error::{Damage, Error};
use crate::schema::{self, MessageRow, OriginState, RecordRow};

/// Any of the store's tables, as a snapshot or a transaction sees it.
pub(crate) trait Rows: ReadableTable<&'static [u8], &'static [u8]> {}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows for T {}

pub(crate) fn record(records: &impl Rows, kind: &KindName, id: &RecordId) -> Result<Option<RecordRow>, Error> {
    let key = schema::record_key(kind, id.as_str());
    read(records, &key, |value| schema::decode_record(&key, value))
}

pub(crate) fn ids_with_prefix(records: &impl Rows, kind: &KindName, prefix: &str) -> Result<Vec<RecordId>, Error> {
    let first = schema::record_key(kind, prefix);
    let mut found = Vec::new();
    for row in records.range::<&[u8]>(first.as_slice()..).map_err(Error::engine)? {
        let (key, _) = row.map_err(Error::engine)?;
        if !key.value().starts_with(&first) {
            break;
        }
        found.push(schema::record_id_of_key(kind, key.value())?);
    }
    Ok(found)
}

pub(crate) fn outcome(
    outcomes: &impl Rows,
    kind: &KindName,
    id: Option<&RecordId>,
    command_id: &CommandId,
) -> Result<Option<StoredOutcome>, Error> {
    let key = schema::outcome_key(kind, id, command_id);
    read(outcomes, &key, |value| schema::decode_outcome(&key, value, id.cloned(), command_id.clone()))
}

pub(crate) fn message(
    messages: &impl Rows,
    origin: &SiteName,
    sequence: StreamSequence,
) -> Result<Option<MessageRow>, Error> {
    let key = schema::message_key(origin, sequence);
    read(messages, &key, |value| schema::decode_message(&key, value))
}

pub(crate) fn outcomes_of_message(
    messages: &impl Rows,
    outcomes: &impl Rows,
    origin: &SiteName,
    sequence: StreamSequence,
) -> Result<Vec<StoredOutcome>, Error> {
    let Some(MessageRow { kind, commands, .. }) = message(messages, origin, sequence)? else {
        return Ok(Vec::new());
    };
    let kept = commands.iter().map(|(id, command_id)| outcome(outcomes, &kind, id.as_ref(), command_id));
    kept.filter_map(Result::transpose).collect()
}

pub(crate) fn group(
    groups: &impl Rows,
    origin: &SiteName,
    kind: &KindName,
    group: GroupNumber,
) -> Result<Option<GroupState>, Error> {
    let key = schema::group_key(origin, kind, group);
    read(groups, &key, |value| schema::decode_group(&key, value))
}

pub(crate) fn forward(
    forwards: &impl Rows,
    lane: &Lane<'_>,
    number: ForwardNumber,
) -> Result<Option<ForwardState>, Error> {
    let key = schema::forward_key(lane, number);
    read(forwards, &key, |value| schema::decode_forward(&key, value))
}

pub(crate) fn forwards(
    forwards: &impl Rows,
    lane: &Lane<'_>,
    after: ForwardNumber,
    limit: usize,
) -> Result<Vec<(ForwardNumber, ForwardState)>, Error> {
    let prefix = schema::forward_prefix(lane);
    let from = schema::forward_key(lane, after);
    let mut found = Vec::new();
    let range = (Bound::Excluded(from.as_slice()), Bound::Unbounded);
    for row in forwards.range::<&[u8]>(range).map_err(Error::engine)? {
        let (key, value) = row.map_err(Error::engine)?;
        if !key.value().starts_with(&prefix) || found.len() >= limit {
            break;
        }
        let state = schema::decode_forward(key.value(), value.value())?;
        found.push((schema::forward_number_of_key(key.value())?, state));
    }
    Ok(found)
}

pub(crate) fn digests(
    digests: &impl Rows,
    origin: &SiteName,
    kind: &KindName,
) -> Result<Option<Vec<GroupDigest>>, Error> {
    let key = schema::digest_key(origin, kind);
    read(digests, &key, |value| schema::decode_digests(&key, value))
}

/// The keys of the digests of an origin, a row for each kind.
pub(crate) fn digest_keys(digests: &impl Rows, origin: &SiteName) -> Result<Vec<Vec<u8>>, Error> {
    let prefix = schema::digest_prefix(origin);
    let mut found = Vec::new();
    for row in digests.range::<&[u8]>(prefix.as_slice()..).map_err(Error::engine)? {
        let (key, _) = row.map_err(Error::engine)?;
        if !key.value().starts_with(&prefix) {
            break;
        }
        found.push(key.value().to_vec());
    }
    Ok(found)
}

pub(crate) fn takeovers(meta: &impl Rows) -> Result<Option<Takeovers>, Error> {
    read(meta, schema::TAKEOVERS_KEY, schema::decode_takeovers)
}

pub(crate) fn origin(origins: &impl Rows, origin: &SiteName) -> Result<Option<OriginState>, Error> {
    let key = schema::origin_key(origin);
    read(origins, &key, |value| schema::decode_origin(&key, value))
}

fn read<T>(table: &impl Rows, key: &[u8], decode: impl FnOnce(&[u8]) -> Result<T, Damage>) -> Result<Option<T>, Error> {
    let value = table.get(key).map_err(Error::engine)?;
    value.map(|value| decode(value.value())).transpose().map_err(Error::Corrupt)
}
