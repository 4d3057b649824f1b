//! What is decided for one command, and the record and outcome that it leads to.

use crate::command::CommandMessage;
use crate::decision::{Decision, RecordChange};
use crate::hash::Hash;
use crate::json::Json;
use crate::name::SiteName;
use crate::number::RecordVersion;
use crate::outcome::{Change, EmittedCommand, ErrorCode, Outcome, Refusal, Status};
use crate::routes::{Incoming, Source};

use super::Fold;

/// What was decided for a command, before it is known to fit.
pub(super) enum Verdict {
    Accepted {
        change: RecordChange,
        reply: Json,
        emits: Vec<EmittedCommand>,
    },
    Refused(Refusal),
    Dead(Refusal),
    /// Another message with the same command id was decided before: by its fingerprint and outcome.
    Repeated(Hash, Outcome),
}

impl Verdict {
    pub(super) fn refuse(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message))
    }

    pub(super) fn dead(reason: &str) -> Self {
        Self::Dead(Refusal::new(ErrorCode::Internal, reason))
    }

    pub(super) fn unknown() -> Self {
        let text = "the copy was rebuilt after this command's outcome may have expired: an operator must judge it";
        Self::Refused(Refusal::new(ErrorCode::OutcomeUnknown, text))
    }
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Accepted { change, reply, emits } => Self::Accepted { change, reply, emits },
            Decision::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

/// The record and the outcome that a verdict leads to.
pub(super) struct Entry {
    pub(super) record: Option<Json>,
    pub(super) version: RecordVersion,
    pub(super) outcome: Outcome,
    emits: Vec<EmittedCommand>,
    /// Of another command with the same id, which this one repeats.
    fingerprint: Option<Hash>,
    /// The record is given to another site.
    pub(super) moves_to: Option<SiteName>,
}

impl Entry {
    pub(super) fn new(fold: &Fold, verdict: Verdict, site: &SiteName) -> Self {
        let with_outcome = |outcome| Self {
            record: fold.current.clone(),
            version: fold.version,
            outcome,
            emits: Vec::new(),
            fingerprint: None,
            moves_to: None,
        };
        let unchanged =
            |status, error| with_outcome(Outcome { status, version: fold.version, reply: None, error: Some(error) });
        match verdict {
            Verdict::Refused(refusal) if refusal.code == ErrorCode::Rejected => unchanged(Status::Rejected, refusal),
            Verdict::Refused(refusal) => unchanged(Status::Refused, refusal),
            Verdict::Dead(refusal) => unchanged(Status::Dead, refusal),
            Verdict::Repeated(fingerprint, outcome) => Self { fingerprint: Some(fingerprint), ..with_outcome(outcome) },
            Verdict::Accepted { change, reply, emits } => {
                let same = || (fold.current.clone(), fold.version, None);
                let (record, version, moves_to) = match change {
                    RecordChange::Unchanged => same(),
                    RecordChange::Becomes(record) => (Some(record), fold.version.next(), None),
                    RecordChange::Deleted => (None, fold.version.next(), None),
                    RecordChange::Moves(to) if to == *site && !fold.base.is_taken() => same(),
                    RecordChange::Moves(to) => (fold.current.clone(), fold.version, Some(to)),
                };
                let outcome = Outcome { status: Status::Applied, version, reply: Some(reply), error: None };
                Self { record, version, emits, moves_to, ..with_outcome(outcome) }
            }
        }
    }

    pub(super) fn change(&self, incoming: &Incoming, message: &CommandMessage) -> Change {
        let forwarded = match &incoming.source {
            Source::Forwarded(place, _) | Source::Returned(place, _) => Some(place.clone()),
            Source::Log => None,
        };
        Change {
            id: Some(message.id.clone()),
            command_id: message.command_id.clone(),
            name: Some(message.name.clone()),
            log: incoming.log,
            sequence: incoming.command.sequence,
            time_ms: incoming.command.time,
            fingerprint: self.fingerprint.unwrap_or_else(|| message.fingerprint()),
            outcome: self.outcome.clone(),
            emits: self.emits.clone(),
            forwarded,
            repeats: self.fingerprint.is_some(),
        }
    }
}
