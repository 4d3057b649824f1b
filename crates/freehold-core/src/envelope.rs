//! What the records log carries: updates, results, claims, positions and attempts, and how each is read.
//!
//! These formats are stored at every site and frozen by golden files (`tests/golden/`). Fields are append-only; a reader
//! ignores fields that it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assignment::Member;
use crate::command::CommandMessage;
use crate::hash::{GroupDigest, Hash};
use crate::id::{CommandId, RecordId};
use crate::json::Json;
use crate::name::{InstanceName, KindName, Nonce, SiteName};
use crate::number::{
    CommandLogIncarnation, Epoch, ForwardNumber, Incarnation, LogTime, MembersRevision, RecordVersion, StreamSequence,
};
use crate::outcome::{Change, ForwardPlace, Outcome, Status};

/// Where a message stands in the atomic batch that it was published with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPlace {
    /// From 0.
    pub index: u32,
    /// Messages in the batch; 1 for a message of its own.
    pub size: u32,
}

impl BatchPlace {
    /// The place of a message of its own.
    pub const ALONE: Self = Self { index: 0, size: 1 };
}

/// A new version of a record, on `fh.S.rec.K.G.I`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The life of the records log that this was published in.
    pub log: Incarnation,
    /// The record.
    pub id: RecordId,
    /// Its kind.
    pub kind: KindName,
    /// State-changing commands so far.
    pub version: RecordVersion,
    /// The site that is the record's system of record.
    pub owner: SiteName,
    /// Moves of the ownership so far.
    pub epoch: Epoch,
    /// Log time of the newest command in this update.
    pub time_ms: LogTime,
    /// The state; null when deleted.
    pub record: Option<Json>,
    /// Version of the record's own schema.
    pub schema: u32,
    /// Hash of this version: see [`Update::content_hash`].
    pub hash: Hash,
    /// Hash of the update before this one, where there is one: the chain by which a copy proves that it missed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Hash>,
    /// Place in the atomic batch.
    pub batch: BatchPlace,
    /// Every command that this update decides for its record, in log order.
    pub changes: Vec<Change>,
    /// Where the record was owned elsewhere before: the place in each of those sites' records logs up to which a copy must
    /// have applied it before it decides anything about the record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moved: BTreeMap<SiteName, StreamSequence>,
}

impl Update {
    /// What `hash` must be: over id, version, owner, epoch, time, schema, the previous hash, the record's text, and where it was
    /// owned before.
    pub fn content_hash(&self) -> Hash {
        let moved: Vec<_> = self.moved.iter().map(|(site, sequence)| (site, sequence.0.to_be_bytes())).collect();
        let parts = [
            self.id.as_str().as_bytes(),
            &self.version.0.to_be_bytes(),
            self.owner.as_str().as_bytes(),
            &self.epoch.0.to_be_bytes(),
            &self.time_ms.0.to_be_bytes(),
            &self.schema.to_be_bytes(),
            &self.previous.unwrap_or_default().0.to_be_bytes(),
            self.record.as_ref().map_or("null", Json::as_str).as_bytes(),
        ];
        Hash::of(parts.into_iter().chain(moved.iter().flat_map(|(site, at)| [site.as_str().as_bytes(), at.as_slice()])))
    }
}

/// Outcomes of commands that changed no record, on `fh.S.res.K.G.<claim>-<j>`, and repeats of outcomes whose updates the
/// history limit may soon discard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultMessage {
    /// The life of the records log that this was published in.
    pub log: Incarnation,
    /// The kind.
    pub kind: KindName,
    /// The outcomes, in log order within each record.
    pub changes: Vec<Change>,
    /// The updates whose outcomes this message repeats: from now on a reader that misses them has missed nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carries: Vec<Carried>,
    /// Outcomes of updates in the logs of lost sites, of records that this site has taken over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<Inherited>,
    /// Commands on their way to the owners of their records. A command that has waited for long is repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// Forwarded commands that this site does not decide, since it has given the record away meanwhile: who took them sends
    /// them on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returns: Vec<ForwardPlace>,
}

/// A command on its way to the owner of its record, in the log of the site that took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// From where to where.
    pub place: ForwardPlace,
    /// The epoch in which the record belongs to that site.
    pub epoch: Epoch,
    /// The command.
    pub command: CommandMessage,
    /// Which life of the taking site's command log took it.
    pub log: CommandLogIncarnation,
    /// Its place in that log.
    pub sequence: StreamSequence,
    /// When that log took it.
    pub time_ms: LogTime,
    /// Where it was sent before, and came back from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<ForwardPlace>,
}

impl Forward {
    /// The entry that says that the command is on its way.
    pub fn change(&self) -> Change {
        Change {
            id: Some(self.command.id.clone()),
            command_id: self.command.command_id.clone(),
            name: Some(self.command.name.clone()),
            log: self.log,
            sequence: self.sequence,
            time_ms: self.time_ms,
            fingerprint: self.command.fingerprint(),
            outcome: Outcome { status: Status::Forwarded, version: RecordVersion(0), reply: None, error: None },
            emits: Vec::new(),
            forwarded: Some(self.place.clone()),
            repeats: false,
        }
    }
}

/// An update whose outcomes a result message repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The record.
    pub id: RecordId,
    /// The update's place in the records log.
    pub sequence: StreamSequence,
}

/// The outcomes of an update that counts in the log of a lost site. What that site has logged since, which does not count, may make
/// its log drop the update: whoever reads the log later finds its outcomes here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// The lost site.
    pub origin: SiteName,
    /// The update's place in its log.
    pub sequence: StreamSequence,
    /// When that log took it.
    pub time_ms: LogTime,
    /// What it decided.
    pub changes: Vec<Change>,
}

/// The message by which an instance holds a group, on `fh.S.ctl.claim.K.G`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The life of the records log that this was published in.
    pub log: Incarnation,
    /// Who claims.
    pub instance: InstanceName,
    /// Which life of it.
    pub nonce: Nonce,
    /// The revision of the member list that gave it the group.
    pub members: MembersRevision,
}

impl Claim {
    /// The life of the instance that claims.
    pub fn life(&self) -> Member {
        Member { instance: self.instance.clone(), nonce: self.nonce.clone() }
    }
}

/// How far a group is decided, on `fh.S.ctl.pos.K.G`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The life of the group's command log.
    pub log: CommandLogIncarnation,
    /// The last command up to which everything is decided, stored and emitted; nothing at the start of a log's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<DecidedCommand>,
    /// Where the log was rewound: what its earlier lives had logged up to this time was decided in them, though the outcomes
    /// may have been dropped since. 0 in a log's first life.
    #[serde(default, skip_serializing_if = "is_start_of_time")]
    pub decided_until_ms: LogTime,
    /// The last number of a command that was forwarded, by where to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sent: BTreeMap<SiteName, ForwardNumber>,
    /// The last number of a forwarded command that was decided or returned, by where from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub received: BTreeMap<SiteName, ForwardNumber>,
    /// Forwarded commands that came back and were decided here, of which all that their outcomes ask for was sent since the last
    /// position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<ForwardPlace>,
    /// The digest of the group's records in this log, where nothing of the group can lie between what it was taken of and this
    /// message: every copy must have the same when it comes here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<GroupDigest>,
}

fn is_start_of_time(time: &LogTime) -> bool {
    *time == LogTime::default()
}

/// A decided command as the rewind check compares it with the command log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedCommand {
    /// Its place in the log.
    pub sequence: StreamSequence,
    /// Its id.
    pub command_id: CommandId,
    /// When the log took it.
    pub time_ms: LogTime,
}

/// A try at a command that may kill its holder, logged before the try, on `fh.S.ctl.try.K.G`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The life of the group's command log.
    pub log: CommandLogIncarnation,
    /// The command.
    pub command: DecidedCommand,
    /// Which try, from 1.
    pub number: u32,
}

/// How much of another site's log a site has, on `fh.S.ctl.copy.K.<origin>`: everything of the kind up to here is in the site's mirror
/// and committed to the copy of one of its instances. Cumulative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The life of the origin's log.
    pub log: Incarnation,
    /// The last message with updates or outcomes.
    pub position: StreamSequence,
}

/// A command that could not be processed, on `fh.S.dead.K.G`: what the log took and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The kind.
    pub kind: KindName,
    /// The command's entry in the records log.
    pub change: Change,
    /// The command as the log took it, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Json>,
}

/// A message of the records log, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordsBody {
    /// A new version of a record.
    Update(Box<Update>),
    /// Outcomes that changed no record.
    Result(ResultMessage),
    /// A claim.
    Claim(Claim),
    /// A position.
    Position(Position),
    /// An attempt.
    Attempt(Attempt),
}
