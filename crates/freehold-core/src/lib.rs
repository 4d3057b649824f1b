//! The pure part of Freehold: ids, groups, envelopes, decisions, flushes, ownership, assignment.
//!
//! Nothing here reads a clock, draws a random number, touches a network or a disk, or knows async: everything is a function of
//! its arguments, so that the simulation in `tests/` can drive the very code that runs in production through any
//! order of crashes, delays and duplicates.

mod apply;
mod assignment;
mod command;
mod copy;
mod decision;
mod envelope;
mod flush;
mod given;
mod group;
mod hash;
mod holder;
mod id;
mod json;
mod kind;
mod name;
mod number;
mod outcome;
mod overlay;
mod rehome;
mod routes;
pub mod subject;
mod takeover;
mod text;

pub use apply::{
    Anomaly, Applied, LogMessage, TakeoverEffect, TakeoverMessage, apply, apply_takeover, learn_takeover, read_body,
};
pub use assignment::{Member, MemberList, NameTaken};
pub use command::{CommandMessage, LoggedCommand, OwnerDown, OwnerDownError};
pub use copy::{
    CopyRead, CopyWrite, ForwardState, GroupState, Lane, LastUpdate, OutcomeOf, RecordPlace, RecordState, Retention,
    StoredOutcome, Uncarried, home_right_owner, may_expire,
};
pub use decision::{
    Command, Decider, Decision, DecisionContext, Never, Record, RecordChange, Rejection, TypedCommand, Verdict,
    kind_name, rejected,
};
pub use envelope::{
    Attempt, BatchPlace, Carried, Claim, Confirmation, DeadLetter, DecidedCommand, Forward, Inherited, Position,
    RecordsBody, ResultMessage, Update,
};
pub use flush::{
    ENVELOPE_RESERVE_BYTES, Emission, FlushContext, FlushMessage, MAX_CARRY_MESSAGES, MAX_FLUSH_COMMANDS, MAX_PANICS,
};
pub use given::{Given, When, given, given_nothing};
pub use group::{GroupCount, GroupCountError, GroupNumber, MAX_GROUP_COUNT};
pub use hash::{GroupDigest, Hash, HashError};
pub use holder::{
    CommandLogCheck, Effect, EmitFailure, Event, Holder, HolderOptions, MAX_ATTEMPTS, MAX_SURVIVED_ATTEMPTS,
    PublishFailure, ReleaseReason,
};
pub use id::{CommandId, HomeRight, IdError, MAX_COMMAND_ID_BYTES, MAX_RECORD_ID_BYTES, RecordId, SubjectToken};
pub use json::Json;
pub use kind::{GroupHash, HomeRule, Kind, KindDefinition, KindSettings};
pub use name::{CommandName, InstanceName, KindName, MAX_NAME_BYTES, NameError, Nonce, SiteName};
pub use number::{
    CommandLogIncarnation, Epoch, ForwardNumber, Incarnation, LogTime, MembersRevision, RecordVersion, StreamSequence,
    Term,
};
pub use outcome::{
    Change, EmittedCommand, ErrorCode, ForwardPlace, MAX_REFUSAL_MESSAGE_BYTES, Outcome, Refusal, Status,
};
pub use rehome::{REHOME_COMMAND, Rehome, RehomeCommand, Rehomed};
pub use routes::MAX_FORWARDS_UNDER_WAY;
pub use takeover::{Ballot, Life, Seal, Stranded, Taken, Takeover, Takeovers};
