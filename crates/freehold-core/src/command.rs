//! A command as the command log carries it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::envelope::DecidedCommand;
use crate::hash::Hash;
use crate::id::{CommandId, RecordId};
use crate::json::Json;
use crate::name::{CommandName, KindName};
use crate::number::{CommandLogIncarnation, LogTime, RecordVersion, StreamSequence};

/// The payload of a message on `fh.S.cmd.K.G`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandMessage {
    /// The kind of the record.
    pub kind: KindName,
    /// The record.
    pub id: RecordId,
    /// The command.
    pub name: CommandName,
    /// The command's id within its record.
    pub command_id: CommandId,
    /// The version that the record must have when the command's turn comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<RecordVersion>,
    /// What to do where the owner of the record cannot be reached; the command is kept where that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_down: Option<OwnerDown>,
    /// The command's fields, a JSON object.
    pub body: Json,
}

/// What becomes of a command whose record another site owns while that site cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerDown {
    /// It is kept, and decided when the owner is there again.
    Queue,
    /// It is refused at once (`owner_unreachable`).
    Fail,
}

/// A text is neither `queue` nor `fail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither queue nor fail")]
pub struct OwnerDownError;

impl OwnerDown {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Fail => "fail",
        }
    }
}

impl FromStr for OwnerDown {
    type Err = OwnerDownError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Queue, Self::Fail].into_iter().find(|choice| choice.as_str() == text).ok_or(OwnerDownError)
    }
}

impl CommandMessage {
    /// Hash of the name and the content: what makes two commands with one command id the same command.
    pub fn fingerprint(&self) -> Hash {
        let version = self.if_version.map(|version| version.to_string()).unwrap_or_default();
        Hash::of([self.name.as_str().as_bytes(), version.as_bytes(), self.body.as_str().as_bytes()])
    }

    /// The `Nats-Msg-Id`: the server's duplicate window spans the whole stream, so that only the very same command may
    /// count as a repeat.
    pub fn message_id(&self) -> Hash {
        Hash::of([
            self.kind.as_str().as_bytes(),
            self.id.as_str().as_bytes(),
            self.command_id.as_str().as_bytes(),
            &self.fingerprint().0.to_be_bytes(),
        ])
    }
}

/// A command as its log delivers it.
#[derive(Debug, Clone)]
pub struct LoggedCommand {
    /// Its place in the log.
    pub sequence: StreamSequence,
    /// When the log took it.
    pub time: LogTime,
    /// What it says, or why it cannot be read.
    pub message: Result<CommandMessage, String>,
}

impl LoggedCommand {
    /// Reads a message of the command log. Never fails: what cannot be read is a command too, and is answered.
    pub fn read(sequence: StreamSequence, time: LogTime, payload: &[u8]) -> Self {
        // `serde` alone would take an array, too, its items as the fields in their order.
        let message = match payload.trim_ascii_start().first() {
            Some(b'{') => serde_json::from_slice::<CommandMessage>(payload).map_err(|error| error.to_string()),
            _ => Err("it is no JSON object".to_owned()),
        };
        Self { sequence, time, message }
    }

    /// Whether this is the command that a position, or an outcome, of this life of the log is about. One that could not be
    /// processed as it stood goes by its place, whether or not it can be parsed.
    pub fn is(&self, decided: &DecidedCommand, log: CommandLogIncarnation) -> bool {
        let own_id = self.message.as_ref().is_ok_and(|message| message.command_id == decided.command_id);
        let by_place = || CommandId::of_unreadable(log, self.sequence) == decided.command_id;
        self.sequence == decided.sequence && self.time == decided.time_ms && (own_id || by_place())
    }
}
