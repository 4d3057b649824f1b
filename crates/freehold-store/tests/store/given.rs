//! What the tests write, and short ways to write it.

use std::collections::BTreeMap;
use std::path::Path;

use freehold_core::{
    Change, CommandId, CommandLogIncarnation, CopyWrite as _, Epoch, GroupNumber, Hash, Json, KindName, LogTime,
    Outcome, RecordId, RecordPlace, RecordState, RecordVersion, SiteName, Status, StoredOutcome, StreamSequence,
};
use freehold_store::{Error, Options, Store, Transaction};

pub(crate) fn site() -> SiteName {
    "ewr".parse().unwrap()
}

pub(crate) fn kind() -> KindName {
    "flight".parse().unwrap()
}

pub(crate) fn id(text: &str) -> RecordId {
    text.parse().unwrap()
}

pub(crate) fn command(text: &str) -> CommandId {
    CommandId::from_caller(text).unwrap()
}

pub(crate) fn options(directory: &Path) -> Options {
    Options::new(directory.join("copy.redb"), site(), "a".parse().unwrap())
}

pub(crate) fn open(directory: &Path) -> Store {
    Store::open(&options(directory)).unwrap()
}

/// A record's state after the message `sequence`; `text` nothing for a deleted one.
pub(crate) fn state(sequence: u64, text: Option<&str>) -> RecordState {
    RecordState {
        version: RecordVersion(sequence),
        owner: site(),
        epoch: Epoch(0),
        time: LogTime(sequence * 1_000),
        record: text.map(|text| Json::from_value(text).unwrap()),
        schema: 1,
        hash: Hash::of([sequence.to_be_bytes().as_slice(), text.unwrap_or_default().as_bytes()]),
        origin: site(),
        sequence: StreamSequence(sequence),
        uncarried: Vec::new(),
        moved: BTreeMap::new(),
        elsewhere: BTreeMap::new(),
    }
}

pub(crate) fn outcome(id: &RecordId, command_id: &str, sequence: u64) -> StoredOutcome {
    StoredOutcome {
        change: Change {
            id: Some(id.clone()),
            command_id: command(command_id),
            name: Some("depart".parse().unwrap()),
            log: CommandLogIncarnation(0),
            sequence: StreamSequence(sequence),
            time_ms: LogTime(sequence * 1_000),
            fingerprint: Hash(7),
            outcome: Outcome {
                status: Status::Applied,
                version: RecordVersion(sequence),
                reply: Some(Json::from_text("{\"ok\": true}".to_owned()).unwrap()),
                error: None,
            },
            emits: Vec::new(),
            forwarded: None,
            repeats: false,
        },
        origin: site(),
        sequence: StreamSequence(sequence),
        time: LogTime(sequence * 1_000),
    }
}

/// What an update of a record with one command's outcome writes, and the position behind it. The message was logged
/// `sequence` seconds after 1970.
pub(crate) fn put(tables: &mut Transaction<'_>, id: &RecordId, sequence: u64, text: Option<&str>) -> Result<(), Error> {
    let (site, kind) = (site(), kind());
    let before = freehold_core::CopyRead::record(tables, &kind, id)?;
    let cut = freehold_core::CopyRead::takeovers(tables)?.cut_of(&site);
    let place = RecordPlace { origin: &site, kind: &kind, group: group_of(id), id, cut };
    tables.put_record(&place, before.as_ref(), &state(sequence, text))?;
    put_outcomes(tables, sequence, &[(id, &format!("c{sequence}"))])?;
    tables.put_applied(&site, StreamSequence(sequence), LogTime(sequence * 1_000))
}

/// What a result message writes.
pub(crate) fn put_outcomes(
    tables: &mut Transaction<'_>,
    sequence: u64,
    commands: &[(&RecordId, &str)],
) -> Result<(), Error> {
    let mut keys = Vec::new();
    for (id, command_id) in commands {
        let outcome = outcome(id, command_id, sequence);
        tables.put_outcome(&kind(), &outcome)?;
        keys.push((outcome.change.id.clone(), outcome.change.command_id));
    }
    tables.put_message(&site(), StreamSequence(sequence), LogTime(sequence * 1_000), &kind(), &keys)
}

/// Eight groups, by the length of the id: the store takes them as they come.
pub(crate) fn group_of(id: &RecordId) -> GroupNumber {
    GroupNumber(u16::try_from(id.as_str().len() % 8).unwrap())
}
