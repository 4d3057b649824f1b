//! What a toolkit user writes: records, commands and their rules.
//!
//! A decision is a pure function: record, command and [`DecisionContext`] in, [`Verdict`] out. No clock, no randomness, no
//! I/O, so that the same log always gives the same result. [`Command`] is the typed face; [`Decider`] is the one the
//! toolkit calls, with JSON on both sides, and what services with kinds made at run time implement.

use std::fmt::Display;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::{CommandId, RecordId};
use crate::json::Json;
use crate::name::{CommandName, KindName, SiteName};
use crate::number::{LogTime, RecordVersion};
use crate::outcome::{EmittedCommand, ErrorCode, Refusal};

/// A type of record.
pub trait Record: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The kind's name: a subject token such as `flight`.
    const KIND: &'static str;
    /// The version of this schema; raise it when readers of the old one would misread the new one.
    const SCHEMA: u32 = 1;
}

/// A business rule's "no". Final: the same command gets the same answer for as long as outcomes are kept.
pub trait Rejection: Serialize + Display {
    /// A stable code for programs, `snake_case`.
    fn code(&self) -> &'static str;
}

/// A rejection type for commands that are never rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum Never {}

impl Rejection for Never {
    fn code(&self) -> &'static str {
        match *self {}
    }
}

/// A request to change a record of one type. Its fields are the fields of the client's request beside `id` and
/// `if_version`; use `#[serde(deny_unknown_fields)]` so that a misspelt field is refused and not ignored.
pub trait Command: DeserializeOwned + JsonSchema + Send + 'static {
    /// The command's name: a subject token such as `depart`.
    const NAME: &'static str;
    /// The record that it changes.
    type Record: Record;
    /// What the caller gets when it is accepted.
    type Reply: Serialize + JsonSchema;
    /// Why it may be refused.
    type Rejection: Rejection;

    /// The rule. `record` is nothing where the record does not exist.
    fn decide(self, record: Option<Self::Record>, context: &DecisionContext<'_>) -> Verdict<Self>
    where
        Self: Sized;
}

/// What a rule may know beside the record and the command.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DecisionContext<'a> {
    /// The record's id.
    pub id: &'a RecordId,
    /// The command's id.
    pub command_id: &'a CommandId,
    /// When the log took the command.
    pub log_time: LogTime,
    /// The record's version before this command; 0 where it never existed.
    pub version: RecordVersion,
    /// The site that decides.
    pub site: &'a SiteName,
}

impl<'a> DecisionContext<'a> {
    /// A context of these facts.
    pub fn new(
        id: &'a RecordId,
        command_id: &'a CommandId,
        log_time: LogTime,
        version: RecordVersion,
        site: &'a SiteName,
    ) -> Self {
        Self { id, command_id, log_time, version, site }
    }
}

/// What a rule decides for its command.
pub struct Verdict<C: Command> {
    kind: VerdictKind<C>,
    emits: Vec<EmittedCommand>,
}

enum VerdictKind<C: Command> {
    Accepted { record: C::Record, reply: C::Reply },
    Deleted { reply: C::Reply },
    Unchanged { reply: C::Reply },
    Rejected(C::Rejection),
}

impl<C: Command> Verdict<C> {
    /// The record becomes this.
    pub fn accept(record: C::Record, reply: C::Reply) -> Self {
        Self { kind: VerdictKind::Accepted { record, reply }, emits: Vec::new() }
    }

    /// The record is deleted. Its version goes on counting.
    pub fn delete(reply: C::Reply) -> Self {
        Self { kind: VerdictKind::Deleted { reply }, emits: Vec::new() }
    }

    /// Accepted, and the record stays as it is: no new version.
    pub fn unchanged(reply: C::Reply) -> Self {
        Self { kind: VerdictKind::Unchanged { reply }, emits: Vec::new() }
    }

    /// The rule says no.
    pub fn reject(rejection: C::Rejection) -> Self {
        Self { kind: VerdictKind::Rejected(rejection), emits: Vec::new() }
    }

    /// Asks for another command once this verdict is in the log. Nothing is emitted by a rejection.
    #[must_use]
    pub fn emit(mut self, command: EmittedCommand) -> Self {
        self.emits.push(command);
        self
    }

    /// The new record and the reply, for tests.
    pub fn accepted(self) -> Option<(C::Record, C::Reply)> {
        match self.kind {
            VerdictKind::Accepted { record, reply } => Some((record, reply)),
            _ => None,
        }
    }

    /// The rejection, for tests.
    pub fn rejected(self) -> Option<C::Rejection> {
        match self.kind {
            VerdictKind::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordChange {
    /// It stays as it is.
    Unchanged,
    /// It becomes this.
    Becomes(Json),
    /// It is deleted.
    Deleted,
    /// It stays as it is and belongs to another site from now on.
    Moves(SiteName),
}

/// A verdict in the toolkit's own terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The rule accepted the command.
    Accepted {
        /// What becomes of the record.
        change: RecordChange,
        /// The caller's reply.
        reply: Json,
        /// Further commands.
        emits: Vec<EmittedCommand>,
    },
    /// The rule, or the reading of the command or the record, said no.
    Refused(Refusal),
}

/// A command of a kind as the toolkit calls it.
pub trait Decider: Send + Sync + 'static {
    /// The command's name.
    fn name(&self) -> CommandName;

    /// Checks a request's fields before anything is logged.
    fn validate(&self, body: &Json) -> Result<(), Refusal>;

    /// Decides. Must be pure.
    fn decide(&self, body: &Json, record: Option<&Json>, context: &DecisionContext<'_>) -> Decision;

    /// Whether a request without an id gets a minted one, `<site>-<ulid>`.
    fn mints_id(&self) -> bool {
        false
    }

    /// JSON Schema of the request's fields beside `id` and `if_version`.
    fn request_schema(&self) -> serde_json::Value;

    /// JSON Schema of the reply.
    fn reply_schema(&self) -> serde_json::Value;
}

/// A typed command as a [`Decider`].
pub struct TypedCommand<C>(PhantomData<fn() -> C>);

impl<C> Default for TypedCommand<C> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<C: Command> Decider for TypedCommand<C> {
    fn name(&self) -> CommandName {
        match C::NAME.parse() {
            Ok(name) => name,
            Err(error) => panic!("a command's NAME is fixed in the program: {error}"),
        }
    }

    fn validate(&self, body: &Json) -> Result<(), Refusal> {
        read_fields::<C>(body).map(|_| ())
    }

    fn decide(&self, body: &Json, record: Option<&Json>, context: &DecisionContext<'_>) -> Decision {
        let command = match read_fields::<C>(body) {
            Ok(command) => command,
            Err(refusal) => return Decision::Refused(refusal),
        };
        let record = match record.map(Json::read::<C::Record>).transpose() {
            Ok(record) => record,
            Err(error) => {
                let message = format!("the stored record is not what this service reads: {error}");
                return Decision::Refused(Refusal::new(ErrorCode::Internal, message));
            }
        };
        let Verdict { kind, emits } = command.decide(record, context);
        let (change, reply) = match kind {
            VerdictKind::Accepted { record, reply } => match Json::from_value(&record) {
                Ok(record) => (RecordChange::Becomes(record), reply),
                Err(error) => return Decision::Refused(unprintable(&error)),
            },
            VerdictKind::Deleted { reply } => (RecordChange::Deleted, reply),
            VerdictKind::Unchanged { reply } => (RecordChange::Unchanged, reply),
            VerdictKind::Rejected(rejection) => return Decision::Refused(rejected(&rejection)),
        };
        match Json::from_value(&reply) {
            Ok(reply) => Decision::Accepted { change, reply, emits },
            Err(error) => Decision::Refused(unprintable(&error)),
        }
    }

    fn request_schema(&self) -> serde_json::Value {
        schemars::schema_for!(C).to_value()
    }

    fn reply_schema(&self) -> serde_json::Value {
        schemars::schema_for!(C::Reply).to_value()
    }
}

/// A rejection as callers see it: code `rejected`, the rule's own code in `details.rejection`, its fields in
/// `details.reason`.
pub fn rejected(rejection: &impl Rejection) -> Refusal {
    #[derive(Serialize)]
    struct Details<'a, R> {
        rejection: &'static str,
        reason: &'a R,
    }
    Refusal::new(ErrorCode::Rejected, rejection.to_string())
        .with_details(&Details { rejection: rejection.code(), reason: rejection })
}

/// Reads a command. Its fields have names, and mean to this reader what they mean to every other.
fn read_fields<C: Command>(body: &Json) -> Result<C, Refusal> {
    let invalid = |why: &dyn Display| {
        Refusal::new(ErrorCode::Invalid, format!("the request's fields do not fit the command: {why}"))
    };
    if !body.is_object() {
        return Err(invalid(&"they must be a JSON object"));
    }
    if body.has_reserved_key() {
        return Err(invalid(&"keys that start with \"$serde_json::private::\" are reserved"));
    }
    body.read().map_err(|error| invalid(&error))
}

fn unprintable(error: &serde_json::Error) -> Refusal {
    Refusal::new(ErrorCode::Internal, format!("the verdict cannot be printed as JSON: {error}"))
}

/// The kind's name of a record type.
pub fn kind_name<R: Record>() -> KindName {
    match R::KIND.parse() {
        Ok(name) => name,
        Err(error) => panic!("a record's KIND is fixed in the program: {error}"),
    }
}
