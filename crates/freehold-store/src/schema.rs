//! The whole schema on one page. Stored: names, numbers and layouts are append-only; a change that old releases would
//! misread raises [`FORMAT_VERSION`].
//!
//! Every value ends in 8 bytes of XXH3-64 over value and key, seeded with the table's number (not shown below), verified
//! at every read. `number` is a varint, `text` has its length before it, `opt` a byte 0 or 1; `x\0` is a name and a zero
//! byte, which no name holds. `near` is a number stored as its distance from another one.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `store` | format number, site text, instance text |
//! | `meta` | `takeovers` | the takeovers that are known, as JSON |
//! | `records` | kind`\0` id | origin text, group number, version number, hash 16 B, owner opt text (nothing: the origin), epoch number, time number, schema number, sequence number, record opt text, uncarried; where it has moved: count of former owners, each: site text, sequence number; count of other logs, each: site text, sequence number, version number, hash 16 B, uncarried. Uncarried: count, each: sequence near, time near |
//! | `outcomes` | kind`\0` command-id text, 0 or 1 and id | origin text, sequence number, time number, change (`change.rs`; without id and command id) |
//! | `messages` | origin`\0` sequence u64 BE | time number, kind text, count of commands, each: 0 (no id), 1 and id text, or 2 (the id before); command-id text |
//! | `groups` | origin`\0` kind`\0` group u16 BE | the group's state as JSON |
//! | `digests` | origin`\0` kind | count of groups, each: records number, sum 16 B |
//! | `forwards` | kind`\0` from`\0` to`\0` group u16 BE, number u64 BE | a forwarded command's state as JSON |
//! | `origins` | origin | applied number, time number, outcomes-complete-from number, incarnation opt text, hash of the last message opt 16 B, dropped-until number |
//!
//! * `records` is in the byte order of ids, so that listings by prefix and cursor are range scans.
//! * `outcomes` finds one command of one record, and all records that a command id was used for, as a prefix scan.
//! * `messages` has a row for each log message that brought outcomes, in log order: outcomes expire by walking its head,
//!   and carrying an update means reading its row. One row a message, not a command.
//! * `digests` has one row for all groups, written once in a transaction however many records changed.

use std::collections::BTreeMap;

use freehold_core::{
    CommandId, Epoch, ForwardNumber, ForwardState, GroupDigest, GroupNumber, GroupState, Hash, Incarnation,
    InstanceName, KindName, Lane, LastUpdate, LogTime, RecordId, RecordState, RecordVersion, SiteName, StoredOutcome,
    StreamSequence, Takeovers, Uncarried,
};
use redb::TableDefinition;

use crate::change::{decode_change, encode_change};
use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::Damage;

#[cfg(test)]
mod tests;

/// The format of the file that this release writes and reads.
pub const FORMAT_VERSION: u64 = 1;

/// A table's name, and the number that its checksums are seeded with.
#[derive(Debug)]
pub(crate) struct TableName {
    pub(crate) name: &'static str,
    pub(crate) number: u64,
}

impl TableName {
    pub(crate) const fn definition(&self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name)
    }
}

pub(crate) const META: TableName = TableName { name: "meta", number: 1 };
pub(crate) const RECORDS: TableName = TableName { name: "records", number: 2 };
pub(crate) const OUTCOMES: TableName = TableName { name: "outcomes", number: 3 };
pub(crate) const MESSAGES: TableName = TableName { name: "messages", number: 4 };
pub(crate) const GROUPS: TableName = TableName { name: "groups", number: 5 };
pub(crate) const DIGESTS: TableName = TableName { name: "digests", number: 6 };
pub(crate) const ORIGINS: TableName = TableName { name: "origins", number: 7 };
pub(crate) const FORWARDS: TableName = TableName { name: "forwards", number: 8 };

/// Every table of a store; all exist from its first commit on.
pub(crate) const TABLES: [&TableName; 8] =
    [&META, &RECORDS, &OUTCOMES, &MESSAGES, &GROUPS, &DIGESTS, &ORIGINS, &FORWARDS];

/// The key of the row of `meta` that says whose store it is.
pub(crate) const META_KEY: &[u8] = b"store";
/// The key of the row of `meta` with the takeovers.
pub(crate) const TAKEOVERS_KEY: &[u8] = b"takeovers";

/// Most changes are smaller than this: room for a row without growing.
const ROW_BYTES: usize = 512;

/// What the file is, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) format: u64,
    /// Nothing where the format is another than this release reads.
    pub(crate) owner: Option<(SiteName, InstanceName)>,
}

pub(crate) fn encode_meta(format: u64, site: &SiteName, instance: &InstanceName) -> Vec<u8> {
    let mut row = Encoder::default();
    row.number(format);
    row.text(site.as_str());
    row.text(instance.as_str());
    row.seal(&META, META_KEY)
}

pub(crate) fn decode_meta(value: &[u8]) -> Result<Meta, Damage> {
    decode(&META, META_KEY, value, |row| {
        let format = row.number()?;
        let owner = if format == FORMAT_VERSION { Some((row.parsed()?, row.parsed()?)) } else { None };
        Ok(Meta { format, owner })
    })
}

/// A row of `records`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordRow {
    pub(crate) group: GroupNumber,
    pub(crate) state: RecordState,
}

/// The first fields of a row of `records`, read without the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHead<'a> {
    pub(crate) origin: &'a str,
    pub(crate) group: GroupNumber,
    pub(crate) version: RecordVersion,
    pub(crate) hash: Hash,
}

/// The key of a record, and of the first record with an id prefix.
pub(crate) fn record_key(kind: &KindName, id: &str) -> Vec<u8> {
    name_then(kind.as_str(), id.as_bytes())
}

pub(crate) fn record_id_of_key(kind: &KindName, key: &[u8]) -> Result<RecordId, Damage> {
    let id = key.get(kind.as_str().len() + 1..).and_then(|id| std::str::from_utf8(id).ok());
    id.and_then(|id| id.parse().ok()).ok_or(Damage::Unreadable { table: RECORDS.name })
}

pub(crate) fn encode_record(key: &[u8], group: GroupNumber, state: &RecordState) -> Vec<u8> {
    let origin = &state.origin;
    let mut row = Encoder::with_capacity(ROW_BYTES + state.record.as_ref().map_or(0, |record| record.as_str().len()));
    row.text(origin.as_str());
    row.number(group.0.into());
    row.number(state.version.0);
    row.hash(state.hash);
    row.optional_text((state.owner != *origin).then(|| state.owner.as_str()));
    row.number(state.epoch.0);
    row.number(state.time.0);
    row.number(state.schema.into());
    row.number(state.sequence.0);
    row.optional_text(state.record.as_ref().map(freehold_core::Json::as_str));
    let near = Uncarried { sequence: state.sequence, time: state.time };
    encode_uncarried(&mut row, &state.uncarried, near);
    if !state.moved.is_empty() || !state.elsewhere.is_empty() {
        row.count(state.moved.len());
        for (site, sequence) in &state.moved {
            row.text(site.as_str());
            row.number(sequence.0);
        }
        row.count(state.elsewhere.len());
        for (site, last) in &state.elsewhere {
            row.text(site.as_str());
            row.number(last.sequence.0);
            row.number(last.version.0);
            row.hash(last.hash);
            encode_uncarried(&mut row, &last.uncarried, Uncarried { sequence: last.sequence, time: state.time });
        }
    }
    row.seal(&RECORDS, key)
}

fn encode_uncarried(row: &mut Encoder, uncarried: &[Uncarried], near: Uncarried) {
    row.count(uncarried.len());
    let mut before = near;
    for uncarried in uncarried {
        row.number_near(uncarried.sequence.0, before.sequence.0);
        row.number_near(uncarried.time.0, before.time.0);
        before = *uncarried;
    }
}

fn decode_uncarried(row: &mut Decoder<'_>, near: Uncarried) -> Result<Vec<Uncarried>, Malformed> {
    let count = row.count()?;
    let mut uncarried = Vec::with_capacity(count);
    let mut before = near;
    for _ in 0..count {
        before = Uncarried {
            sequence: StreamSequence(row.number_near(before.sequence.0)?),
            time: LogTime(row.number_near(before.time.0)?),
        };
        uncarried.push(before);
    }
    Ok(uncarried)
}

type MovedFields = (BTreeMap<SiteName, StreamSequence>, BTreeMap<SiteName, LastUpdate>);

fn decode_moved(row: &mut Decoder<'_>, time: LogTime) -> Result<MovedFields, Malformed> {
    if row.is_at_end() {
        return Ok(MovedFields::default());
    }
    let moved = (0..row.count()?).map(|_| Ok((row.parsed()?, StreamSequence(row.number()?))));
    let moved = moved.collect::<Result<_, Malformed>>()?;
    let mut elsewhere = BTreeMap::new();
    for _ in 0..row.count()? {
        let site = row.parsed()?;
        let (sequence, version) = (StreamSequence(row.number()?), RecordVersion(row.number()?));
        let hash = row.hash()?;
        let uncarried = decode_uncarried(row, Uncarried { sequence, time })?;
        elsewhere.insert(site, LastUpdate { sequence, version, hash, uncarried });
    }
    Ok((moved, elsewhere))
}

pub(crate) fn decode_record_head<'a>(key: &[u8], value: &'a [u8]) -> Result<RecordHead<'a>, Damage> {
    decode(&RECORDS, key, value, record_head)
}

pub(crate) fn decode_record(key: &[u8], value: &[u8]) -> Result<RecordRow, Damage> {
    decode(&RECORDS, key, value, |row| {
        let head = record_head(row)?;
        let origin: SiteName = head.origin.parse().map_err(|_| Malformed)?;
        let owner = row.optional(Decoder::parsed)?.unwrap_or_else(|| origin.clone());
        let epoch = Epoch(row.number()?);
        let time = LogTime(row.number()?);
        let schema = row.number_as()?;
        let sequence = StreamSequence(row.number()?);
        let record = row.optional(Decoder::json)?;
        let uncarried = decode_uncarried(row, Uncarried { sequence, time })?;
        let (moved, elsewhere) = decode_moved(row, time)?;
        let RecordHead { group, version, hash, .. } = head;
        let state = RecordState {
            version,
            owner,
            epoch,
            time,
            record,
            schema,
            hash,
            origin,
            sequence,
            uncarried,
            moved,
            elsewhere,
        };
        Ok(RecordRow { group, state })
    })
}

fn record_head<'a>(row: &mut Decoder<'a>) -> Result<RecordHead<'a>, Malformed> {
    Ok(RecordHead {
        origin: row.text()?,
        group: GroupNumber(row.number_as()?),
        version: RecordVersion(row.number()?),
        hash: row.hash()?,
    })
}

pub(crate) fn outcome_key(kind: &KindName, id: Option<&RecordId>, command_id: &CommandId) -> Vec<u8> {
    let mut key = outcome_prefix_encoder(kind, command_id);
    key.byte(u8::from(id.is_some()));
    if let Some(id) = id {
        key.raw(id.as_str().as_bytes());
    }
    key.into_bytes()
}

/// What the keys of all outcomes of a command id start with.
pub(crate) fn outcome_prefix(kind: &KindName, command_id: &CommandId) -> Vec<u8> {
    outcome_prefix_encoder(kind, command_id).into_bytes()
}

fn outcome_prefix_encoder(kind: &KindName, command_id: &CommandId) -> Encoder {
    let mut key = Encoder::with_capacity(ROW_BYTES);
    key.raw(kind.as_str().as_bytes());
    key.byte(0);
    key.text(command_id.as_str());
    key
}

/// The record of an outcome's key, which starts with the prefix of the command id.
pub(crate) fn outcome_id_of_key(prefix: &[u8], key: &[u8]) -> Result<Option<RecordId>, Damage> {
    let unreadable = Damage::Unreadable { table: OUTCOMES.name };
    match key.get(prefix.len()..).and_then(<[u8]>::split_first) {
        Some((0, [])) => Ok(None),
        Some((1, id)) => match std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(unreadable),
        },
        _ => Err(unreadable),
    }
}

pub(crate) fn encode_outcome(key: &[u8], outcome: &StoredOutcome) -> Vec<u8> {
    let mut row = Encoder::with_capacity(ROW_BYTES);
    row.text(outcome.origin.as_str());
    row.number(outcome.sequence.0);
    row.number(outcome.time.0);
    encode_change(&mut row, &outcome.change);
    row.seal(&OUTCOMES, key)
}

pub(crate) fn decode_outcome(
    key: &[u8],
    value: &[u8],
    id: Option<RecordId>,
    command_id: CommandId,
) -> Result<StoredOutcome, Damage> {
    decode(&OUTCOMES, key, value, |row| {
        Ok(StoredOutcome {
            origin: row.parsed()?,
            sequence: StreamSequence(row.number()?),
            time: LogTime(row.number()?),
            change: decode_change(row, id, command_id)?,
        })
    })
}

/// A row of `messages`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MessageRow {
    pub(crate) time: LogTime,
    pub(crate) kind: KindName,
    pub(crate) commands: Vec<(Option<RecordId>, CommandId)>,
}

pub(crate) fn message_key(origin: &SiteName, sequence: StreamSequence) -> Vec<u8> {
    name_then(origin.as_str(), &sequence.0.to_be_bytes())
}

/// What the keys of all messages of an origin start with.
pub(crate) fn message_prefix(origin: &SiteName) -> Vec<u8> {
    name_then(origin.as_str(), &[])
}

pub(crate) fn message_sequence_of_key(key: &[u8]) -> Result<StreamSequence, Damage> {
    let sequence = key.split_last_chunk::<8>().ok_or(Damage::Unreadable { table: MESSAGES.name })?.1;
    Ok(StreamSequence(u64::from_be_bytes(*sequence)))
}

pub(crate) fn encode_message(
    key: &[u8],
    time: LogTime,
    kind: &KindName,
    commands: &[(Option<RecordId>, CommandId)],
) -> Vec<u8> {
    let mut row = Encoder::with_capacity(ROW_BYTES);
    row.number(time.0);
    row.text(kind.as_str());
    row.count(commands.len());
    let mut before = None;
    for (id, command_id) in commands {
        match id {
            None => row.byte(0),
            Some(id) if before == Some(id) => row.byte(2),
            Some(id) => {
                row.byte(1);
                row.text(id.as_str());
            }
        }
        before = id.as_ref();
        row.text(command_id.as_str());
    }
    row.seal(&MESSAGES, key)
}

pub(crate) fn decode_message(key: &[u8], value: &[u8]) -> Result<MessageRow, Damage> {
    decode(&MESSAGES, key, value, |row| {
        let time = LogTime(row.number()?);
        let kind = row.parsed()?;
        let count = row.count()?;
        let mut commands = Vec::with_capacity(count);
        let mut before: Option<RecordId> = None;
        for _ in 0..count {
            let id = match row.byte()? {
                0 => None,
                1 => Some(row.parsed()?),
                2 if before.is_some() => before.clone(),
                _ => return Err(Malformed),
            };
            before.clone_from(&id);
            commands.push((id, command_id(row.text()?)?));
        }
        Ok(MessageRow { time, kind, commands })
    })
}

pub(crate) fn group_key(origin: &SiteName, kind: &KindName, group: GroupNumber) -> Vec<u8> {
    let mut key = digest_key(origin, kind);
    key.push(0);
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

pub(crate) fn encode_group(key: &[u8], state: &GroupState) -> Result<Vec<u8>, Damage> {
    encode_json(&GROUPS, key, state)
}

pub(crate) fn decode_group(key: &[u8], value: &[u8]) -> Result<GroupState, Damage> {
    decode(&GROUPS, key, value, |row| serde_json::from_slice(row.rest()).map_err(|_| Malformed))
}

pub(crate) fn digest_key(origin: &SiteName, kind: &KindName) -> Vec<u8> {
    name_then(origin.as_str(), kind.as_str().as_bytes())
}

/// What the keys of an origin's digests start with.
pub(crate) fn digest_prefix(origin: &SiteName) -> Vec<u8> {
    name_then(origin.as_str(), &[])
}

pub(crate) fn encode_digests(key: &[u8], digests: &[GroupDigest]) -> Vec<u8> {
    let mut row = Encoder::with_capacity(32 * digests.len() + ROW_BYTES);
    row.count(digests.len());
    for digest in digests {
        row.number(digest.records);
        row.hash(digest.sum);
    }
    row.seal(&DIGESTS, key)
}

pub(crate) fn decode_digests(key: &[u8], value: &[u8]) -> Result<Vec<GroupDigest>, Damage> {
    decode(&DIGESTS, key, value, |row| {
        (0..row.count()?).map(|_| Ok(GroupDigest { records: row.number()?, sum: row.hash()? })).collect()
    })
}

/// What the keys of all forwarded commands of a group on their way from one site to another start with.
pub(crate) fn forward_prefix(lane: &Lane<'_>) -> Vec<u8> {
    let mut key = name_then(lane.kind.as_str(), &name_then(lane.from.as_str(), &name_then(lane.to.as_str(), &[])));
    key.extend_from_slice(&lane.group.0.to_be_bytes());
    key
}

pub(crate) fn forward_key(lane: &Lane<'_>, number: ForwardNumber) -> Vec<u8> {
    let mut key = forward_prefix(lane);
    key.extend_from_slice(&number.0.to_be_bytes());
    key
}

pub(crate) fn forward_number_of_key(key: &[u8]) -> Result<ForwardNumber, Damage> {
    let number = key.split_last_chunk::<8>().ok_or(Damage::Unreadable { table: FORWARDS.name })?.1;
    Ok(ForwardNumber(u64::from_be_bytes(*number)))
}

pub(crate) fn encode_forward(key: &[u8], state: &ForwardState) -> Result<Vec<u8>, Damage> {
    encode_json(&FORWARDS, key, state)
}

pub(crate) fn decode_forward(key: &[u8], value: &[u8]) -> Result<ForwardState, Damage> {
    decode(&FORWARDS, key, value, |row| serde_json::from_slice(row.rest()).map_err(|_| Malformed))
}

pub(crate) fn encode_takeovers(takeovers: &Takeovers) -> Result<Vec<u8>, Damage> {
    encode_json(&META, TAKEOVERS_KEY, takeovers)
}

pub(crate) fn decode_takeovers(value: &[u8]) -> Result<Takeovers, Damage> {
    decode(&META, TAKEOVERS_KEY, value, |row| serde_json::from_slice(row.rest()).map_err(|_| Malformed))
}

/// What a copy knows of one origin's records log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginState {
    /// The last message that is applied; 0 before the first.
    pub applied: StreamSequence,
    /// When the log took that message.
    pub time: LogTime,
    /// Outcomes that ended before this time may be missing; 0 where none can be.
    pub outcomes_complete_from: LogTime,
    /// The life of the log that `applied` is about, once it is known.
    pub incarnation: Option<Incarnation>,
    /// Hash of the last applied message, where the applier noted it: a log that lost its tail is noticed by it.
    pub last_hash: Option<Hash>,
    /// The last place whose message the log may have dropped before it was read; 0 where there is none.
    pub dropped_until: StreamSequence,
    /// The copy has applied what turned out to lie beyond the cut of a takeover: it is to be made anew.
    pub is_ahead: bool,
}

pub(crate) fn origin_key(origin: &SiteName) -> Vec<u8> {
    origin.as_str().as_bytes().to_vec()
}

pub(crate) fn origin_of_key(key: &[u8]) -> Result<SiteName, Damage> {
    let origin = std::str::from_utf8(key).ok().and_then(|origin| origin.parse().ok());
    origin.ok_or(Damage::Unreadable { table: ORIGINS.name })
}

pub(crate) fn encode_origin(key: &[u8], state: &OriginState) -> Vec<u8> {
    let mut row = Encoder::with_capacity(ROW_BYTES);
    row.number(state.applied.0);
    row.number(state.time.0);
    row.number(state.outcomes_complete_from.0);
    row.optional_text(state.incarnation.as_ref().map(Incarnation::as_str));
    row.byte(u8::from(state.last_hash.is_some()));
    if let Some(hash) = state.last_hash {
        row.hash(hash);
    }
    row.number(state.dropped_until.0);
    if state.is_ahead {
        row.byte(1);
    }
    row.seal(&ORIGINS, key)
}

pub(crate) fn decode_origin(key: &[u8], value: &[u8]) -> Result<OriginState, Damage> {
    decode(&ORIGINS, key, value, |row| {
        Ok(OriginState {
            applied: StreamSequence(row.number()?),
            time: LogTime(row.number()?),
            outcomes_complete_from: LogTime(row.number()?),
            incarnation: row.optional(|row| Incarnation::parse(row.text()?).ok_or(Malformed))?,
            last_hash: row.optional(Decoder::hash)?,
            dropped_until: StreamSequence(if row.is_at_end() { 0 } else { row.number()? }),
            is_ahead: !row.is_at_end() && row.byte()? != 0,
        })
    })
}

/// A command id as it was stored: it was checked where it entered, and emitted ids may be longer than a caller's.
pub(crate) fn command_id(text: &str) -> Result<CommandId, Malformed> {
    use serde::Deserialize as _;
    use serde::de::IntoDeserializer as _;
    let deserializer: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    CommandId::deserialize(deserializer).map_err(|_| Malformed)
}

fn name_then(name: &str, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 1 + rest.len() + 16);
    key.extend_from_slice(name.as_bytes());
    key.push(0);
    key.extend_from_slice(rest);
    key
}

fn encode_json(table: &TableName, key: &[u8], value: &impl serde::Serialize) -> Result<Vec<u8>, Damage> {
    let json = serde_json::to_vec(value).map_err(|_| Damage::Unreadable { table: table.name })?;
    let mut row = Encoder::with_capacity(json.len() + crate::codec::CHECKSUM_BYTES);
    row.raw(&json);
    Ok(row.seal(table, key))
}

/// Checks a value and reads its fields. Bytes behind the known fields are those of a later release.
fn decode<'a, T>(
    table: &TableName,
    key: &[u8],
    value: &'a [u8],
    read: impl FnOnce(&mut Decoder<'a>) -> Result<T, Malformed>,
) -> Result<T, Damage> {
    let mut row = Decoder::unseal(table, key, value)?;
    read(&mut row).map_err(|Malformed| Damage::Unreadable { table: table.name })
}
