//! What became of a command. Stored and sent: the names are append-only.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::id::{CommandId, RecordId};
use crate::json::Json;
use crate::name::{CommandName, KindName, SiteName};
use crate::number::{CommandLogIncarnation, ForwardNumber, LogTime, RecordVersion, StreamSequence};

/// The stable codes of errors that a caller can meet. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request cannot be understood; sending it again does not help.
    Invalid,
    /// There is no such record, or no such outcome.
    NotFound,
    /// The business rule said no. Final.
    Rejected,
    /// The record's version is not the one asked for, or the command id stands for another command.
    Conflict,
    /// Another site owns the record.
    NotOwner,
    /// The command, or the record it would make, exceeds what one message can carry.
    TooLarge,
    /// The service cannot take the request now; nothing was kept.
    Busy,
    /// The owner of the record cannot be reached.
    OwnerUnreachable,
    /// The command is decided, and the owner's log has its outcome, but fewer other sites than asked for have confirmed it in
    /// time. The details tell the outcome.
    Unconfirmed,
    /// The command may have been applied or not: ask for its outcome, or send it again with the same command id.
    OutcomeUnknown,
    /// The service failed; the log of the instance says why.
    Internal,
}

impl ErrorCode {
    /// The code as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Conflict => "conflict",
            Self::NotOwner => "not_owner",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::OwnerUnreachable => "owner_unreachable",
            Self::Unconfirmed => "unconfirmed",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Internal => "internal",
        }
    }

    /// The number for the `Nats-Service-Error-Code` header, after the HTTP status of the same meaning.
    pub fn service_error_code(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::NotOwner => 421,
            Self::Rejected => 422,
            Self::Unconfirmed => 424,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::OwnerUnreachable => 503,
            Self::OutcomeUnknown => 504,
        }
    }
}

/// The longest message of a refusal, in bytes of UTF-8. It goes into the log and may repeat what a caller sent.
pub const MAX_REFUSAL_MESSAGE_BYTES: usize = 1024;

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable code.
    pub code: ErrorCode,
    /// What a person reads.
    pub message: String,
    /// What a program reads: for `rejected` an object with at least `rejection`, the rule's own code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

impl Refusal {
    /// A refusal without details. A message that is too long is cut.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_REFUSAL_MESSAGE_BYTES {
            let mut end = MAX_REFUSAL_MESSAGE_BYTES - '…'.len_utf8();
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push('…');
        }
        Self { code, message, details: None }
    }

    /// Adds what a program reads. A value that cannot be printed is left out.
    #[must_use]
    pub fn with_details(mut self, details: &impl Serialize) -> Self {
        self.details = Json::from_value(details).ok();
        self
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// The rule accepted it. The record changed, or the rule said that it need not.
    Applied,
    /// The business rule said no.
    Rejected,
    /// It could not be decided by the rule: invalid, not the owner, a version conflict, too large.
    Refused,
    /// It could not be processed in a bounded number of tries; a dead letter tells.
    Dead,
    /// Another site owns the record: the command is on its way there. The only status that is not final.
    Forwarded,
}

/// What became of one command, as the log carries it and as the caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The record's version behind this command; 0 where there is no record.
    pub version: RecordVersion,
    /// The rule's reply, where it was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Json>,
    /// Why it changed nothing, where it was not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Refusal>,
}

/// Which forwarded command: by the site that took it, the one that it was sent to, and its number among those.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ForwardPlace {
    /// The site that took it.
    pub from: SiteName,
    /// The owner of its record, as the taking site knew it.
    pub to: SiteName,
    /// Its number among those of its group from there to there.
    pub number: ForwardNumber,
}

/// A command that a decision asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmittedCommand {
    /// The kind of the record that it is for.
    pub kind: KindName,
    /// The record.
    pub id: RecordId,
    /// The command.
    pub name: CommandName,
    /// Its fields, a JSON object.
    pub body: Json,
}

/// One command's entry in an update or a result: what it was and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The record, in results; in an update the envelope names it. Nothing where the command cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RecordId>,
    /// The command's id.
    pub command_id: CommandId,
    /// The command's name; nothing where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<CommandName>,
    /// Which life of the group's command log took it.
    pub log: CommandLogIncarnation,
    /// Its place in that log.
    pub sequence: StreamSequence,
    /// When that log took it.
    pub time_ms: LogTime,
    /// Hash of its name and content: the same command id with another fingerprint is another command.
    pub fingerprint: Hash,
    /// What became of it.
    pub outcome: Outcome,
    /// Commands that it asks for, `<command_id>/<n>` in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emits: Vec<EmittedCommand>,
    /// Where the command was forwarded: here by the site that took it, whose command log `log`, `sequence` and `time_ms` are of then,
    /// or by this site to another, from which it came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<ForwardPlace>,
    /// It repeats the outcome of another message with the same command id, and does not take its place: what is asked for is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeats: bool,
}

impl Change {
    /// Whether this is what became of the command, and not just its way to the site that decides it.
    pub fn is_final(&self) -> bool {
        self.outcome.status != Status::Forwarded
    }

    /// Whether something is to be sent once it is stored: commands, or a dead letter.
    pub fn asks_for_something(&self) -> bool {
        let unknown = self.outcome.error.as_ref().is_some_and(|error| error.code == ErrorCode::OutcomeUnknown);
        !self.emits.is_empty() || self.outcome.status == Status::Dead || unknown
    }

    /// Whether it repeats that other entry of its record and command id.
    pub fn repeats_that(&self, other: &Self) -> bool {
        self.repeats && !other.repeats && other.is_final() && self.fingerprint == other.fingerprint
    }

    /// Whether it is about a command that this site's own log took.
    pub fn was_taken_at(&self, site: &SiteName) -> bool {
        self.forwarded.as_ref().is_none_or(|place| place.from == *site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_limit() {
        for text in ["x", "é", "✈"] {
            let message = Refusal::new(ErrorCode::Invalid, text.repeat(100_000)).message;
            assert!(message.len() <= MAX_REFUSAL_MESSAGE_BYTES && message.ends_with('…'), "{}", message.len());
        }
        let whole = "x".repeat(MAX_REFUSAL_MESSAGE_BYTES);
        assert_eq!(Refusal::new(ErrorCode::Invalid, whole.clone()).message, whole);
    }
}
