//! What an instance tells operators about its own copy, on its private subjects: probes, digests, records of a group.
//!
//! Requests and answers are JSON. They are for comparing copies (`freehold verify`), not for clients.

use serde::{Deserialize, Serialize};

use freehold_core::{GroupDigest, GroupNumber, Hash, KindName, RecordId, RecordVersion, SiteName, StreamSequence};
use freehold_jetstream::{ApiError, Connection};

use crate::copy::Copy;
use crate::membership::Identity;

/// Asks for the digests of a kind, on `….digest`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DigestRequest {
    /// The kind.
    pub kind: KindName,
}

/// The digests of one kind in one instance's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestAnswer {
    /// One entry an origin.
    pub origins: Vec<OriginDigest>,
}

/// The digests of what one origin's log has brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginDigest {
    /// The origin.
    pub origin: SiteName,
    /// How far its log is applied.
    pub applied: StreamSequence,
    /// By group number; groups behind the last are empty.
    pub groups: Vec<GroupDigest>,
}

/// Asks for the records of a group, on `….records`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupRecordsRequest {
    /// The kind.
    pub kind: KindName,
    /// The origin.
    pub origin: SiteName,
    /// The group.
    pub group: GroupNumber,
    /// Where the last page ended.
    pub after: Option<RecordId>,
}

/// A page of a group's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecordsAnswer {
    /// In the byte order of ids.
    pub records: Vec<GroupRecord>,
    /// Where the next page starts; nothing at the end.
    pub resume_after: Option<RecordId>,
}

/// One record in a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The record.
    pub id: RecordId,
    /// Its version.
    pub version: RecordVersion,
    /// Hash of its newest update.
    pub hash: Hash,
}

/// Records in one page of a comparison.
const PAGE_RECORDS: usize = 500;

/// What may go wrong is told to who asks.
#[derive(Serialize)]
struct Failure {
    error: String,
}

/// Starts to answer.
pub(crate) async fn start(connection: &Connection, identity: &Identity, copy: &Copy) -> Result<(), ApiError> {
    connection.answer(identity.subject("probe"), |_| Vec::new()).await?;
    let answering = copy.clone();
    connection
        .answer(identity.subject("digest"), move |request| reply(request, |request| digests(&answering, &request)))
        .await?;
    let answering = copy.clone();
    connection
        .answer(identity.subject("records"), move |request| reply(request, |request| records(&answering, &request)))
        .await
}

fn digests(copy: &Copy, request: &DigestRequest) -> Result<DigestAnswer, freehold_store::Error> {
    let snapshot = copy.reader.snapshot()?;
    let mut origins = Vec::new();
    for (origin, state) in snapshot.origins()? {
        let groups = snapshot.digests(&origin, &request.kind)?;
        origins.push(OriginDigest { origin, applied: state.applied, groups });
    }
    Ok(DigestAnswer { origins })
}

fn records(copy: &Copy, request: &GroupRecordsRequest) -> Result<GroupRecordsAnswer, freehold_store::Error> {
    let GroupRecordsRequest { kind, origin, group, after } = request;
    let page = copy.reader.snapshot()?.records_of_group(origin, kind, *group, after.as_ref(), PAGE_RECORDS)?;
    let record = |summary: freehold_store::RecordSummary| GroupRecord {
        id: summary.id,
        version: summary.version,
        hash: summary.hash,
    };
    Ok(GroupRecordsAnswer { records: page.items.into_iter().map(record).collect(), resume_after: page.resume_after })
}

fn reply<Q: for<'a> Deserialize<'a>, A: Serialize>(
    request: &[u8],
    answer: impl FnOnce(Q) -> Result<A, freehold_store::Error>,
) -> Vec<u8> {
    let failed = |error: &dyn std::error::Error| Failure { error: error.to_string() };
    let printed = match serde_json::from_slice(request) {
        Err(error) => serde_json::to_vec(&failed(&error)),
        Ok(request) => match answer(request) {
            Ok(answer) => serde_json::to_vec(&answer),
            Err(error) => serde_json::to_vec(&failed(&error)),
        },
    };
    printed.unwrap_or_default()
}
