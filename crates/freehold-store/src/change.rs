//! A [`Change`] as bytes: the part of an outcome's row that its key does not say. Stored: append-only.
//!
//! Layout: name opt text, log number, sequence number, time number, fingerprint 16 B, status, version number, reply opt text,
//! error opt (code, message text, details opt text), count of emitted commands, each: kind text, id text, name text, body
//! text; where it was forwarded: from text, to text, number. Status and code are a byte; 0 says that the name follows as text, so that values which this crate does not know
//! yet survive too.

use freehold_core::{
    Change, CommandId, CommandLogIncarnation, EmittedCommand, ErrorCode, ForwardNumber, ForwardPlace, Json, LogTime,
    Outcome, RecordId, RecordVersion, Refusal, Status, StreamSequence,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Decoder, Encoder, Malformed};

const STATUSES: [(u8, Status); 5] =
    [(1, Status::Applied), (2, Status::Rejected), (3, Status::Refused), (4, Status::Dead), (5, Status::Forwarded)];

const CODES: [(u8, ErrorCode); 10] = [
    (1, ErrorCode::Invalid),
    (2, ErrorCode::NotFound),
    (3, ErrorCode::Rejected),
    (4, ErrorCode::Conflict),
    (5, ErrorCode::NotOwner),
    (6, ErrorCode::TooLarge),
    (7, ErrorCode::Busy),
    (8, ErrorCode::OwnerUnreachable),
    (9, ErrorCode::OutcomeUnknown),
    (10, ErrorCode::Internal),
];

pub(crate) fn encode_change(row: &mut Encoder, change: &Change) {
    row.optional_text(change.name.as_ref().map(|name| name.as_str()));
    row.number(change.log.0);
    row.number(change.sequence.0);
    row.number(change.time_ms.0);
    row.hash(change.fingerprint);
    encode_named(row, &STATUSES, change.outcome.status);
    row.number(change.outcome.version.0);
    row.optional_text(change.outcome.reply.as_ref().map(Json::as_str));
    row.byte(u8::from(change.outcome.error.is_some()));
    if let Some(error) = &change.outcome.error {
        encode_named(row, &CODES, error.code);
        row.text(&error.message);
        row.optional_text(error.details.as_ref().map(Json::as_str));
    }
    row.count(change.emits.len());
    for command in &change.emits {
        row.text(command.kind.as_str());
        row.text(command.id.as_str());
        row.text(command.name.as_str());
        row.text(command.body.as_str());
    }
    if let Some(ForwardPlace { from, to, number }) = &change.forwarded {
        row.text(from.as_str());
        row.text(to.as_str());
        row.number(number.0);
    }
}

pub(crate) fn decode_change(
    row: &mut Decoder<'_>,
    id: Option<RecordId>,
    command_id: CommandId,
) -> Result<Change, Malformed> {
    Ok(Change {
        id,
        command_id,
        name: row.optional(Decoder::parsed)?,
        log: CommandLogIncarnation(row.number()?),
        sequence: StreamSequence(row.number()?),
        time_ms: LogTime(row.number()?),
        fingerprint: row.hash()?,
        outcome: Outcome {
            status: decode_named(row, &STATUSES)?,
            version: RecordVersion(row.number()?),
            reply: row.optional(Decoder::json)?,
            error: row.optional(|row| {
                Ok(Refusal {
                    code: decode_named(row, &CODES)?,
                    message: row.text()?.to_owned(),
                    details: row.optional(Decoder::json)?,
                })
            })?,
        },
        emits: (0..row.count()?)
            .map(|_| {
                Ok(EmittedCommand { kind: row.parsed()?, id: row.parsed()?, name: row.parsed()?, body: row.json()? })
            })
            .collect::<Result<_, Malformed>>()?,
        forwarded: if row.is_at_end() { None } else { Some(decode_place(row)?) },
        repeats: false,
    })
}

fn decode_place(row: &mut Decoder<'_>) -> Result<ForwardPlace, Malformed> {
    Ok(ForwardPlace { from: row.parsed()?, to: row.parsed()?, number: ForwardNumber(row.number()?) })
}

fn encode_named<T: Serialize + PartialEq>(row: &mut Encoder, known: &[(u8, T)], value: T) {
    if let Some((number, _)) = known.iter().find(|(_, name)| *name == value) {
        row.byte(*number);
    } else {
        row.byte(0);
        // The name of a unit variant always prints; an empty text would be reported as damage when it is read.
        row.text(&serde_json::to_string(&value).unwrap_or_default());
    }
}

fn decode_named<T: DeserializeOwned + Copy>(row: &mut Decoder<'_>, known: &[(u8, T)]) -> Result<T, Malformed> {
    match row.byte()? {
        0 => serde_json::from_str(row.text()?).map_err(|_| Malformed),
        number => known.iter().find(|(known, _)| *known == number).map(|(_, value)| *value).ok_or(Malformed),
    }
}
