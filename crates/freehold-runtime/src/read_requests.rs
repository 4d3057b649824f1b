//! Reads: always local, from this instance's own copy, or, for the history, from this site's log or mirror.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use freehold_core::subject::RecordsSubject;
use freehold_core::{
    CommandId, CommandName, CopyRead, Epoch, ErrorCode, Json, KindDefinition, KindName, LogTime, RecordId, RecordState,
    RecordVersion, RecordsBody, Refusal, SiteName, Status, StoredOutcome, Takeovers, read_body,
};
use freehold_jetstream::ReplyHeaders;
use freehold_store::Snapshot;

use crate::group_worker::describe;
use crate::request_handler::{Answer, RequestHandler, record_headers, unreadable_copy};

/// Endpoints that every kind has beside its commands; no command may have one of these names.
pub const RESERVED_ENDPOINTS: [&str; 4] = [GET, "list", "history", "outcome"];

/// The endpoint that reads one record.
pub(crate) const GET: &str = "get";
/// How old the copy of another site's record is, in milliseconds.
const AGE_HEADER: &str = "Freehold-Age-Ms";
/// How long a read waits for `min_version` unless it says otherwise, and at most.
const DEFAULT_VERSION_WAIT_MS: u64 = 2_000;
const MAX_VERSION_WAIT_MS: u64 = 30_000;
/// Records in a page unless the request says otherwise, and at most.
const DEFAULT_PAGE_RECORDS: usize = 100;
const MAX_PAGE_RECORDS: usize = 1_000;
/// Kept free in a page for the cursor and the braces around the records.
const PAGE_RESERVE_BYTES: usize = 8_192;
/// Updates that a history shows.
const MAX_HISTORY_UPDATES: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetRequest {
    id: RecordId,
    min_version: Option<RecordVersion>,
    timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListRequest {
    #[serde(default)]
    prefix: String,
    limit: Option<usize>,
    cursor: Option<RecordId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryRequest {
    id: RecordId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeRequest {
    command_id: CommandId,
    id: Option<RecordId>,
}

/// A record as callers see it.
#[derive(Serialize)]
struct RecordView<'a> {
    id: &'a RecordId,
    kind: &'a KindName,
    version: RecordVersion,
    owner: &'a SiteName,
    epoch: Epoch,
    updated_at: String,
    record: &'a Option<Json>,
}

#[derive(Serialize)]
struct OutcomeView<'a> {
    command_id: &'a CommandId,
    id: &'a Option<RecordId>,
    name: &'a Option<CommandName>,
    status: Status,
    version: RecordVersion,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: &'a Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: &'a Option<Refusal>,
    owner: &'a SiteName,
    decided_at: String,
}

/// The reads of a kind with JSON Schemas of request and reply.
pub(crate) fn schemas(
    kind: &KindName,
    record: &serde_json::Value,
) -> Vec<(&'static str, serde_json::Value, serde_json::Value)> {
    use serde_json::json;
    let mut record = record.clone();
    if let Some(schema) = record.as_object_mut() {
        // A schema of its own within another one: without an id, its references would point into the outer one.
        schema.entry("$id").or_insert_with(|| format!("urn:freehold:record:{kind}").into());
    }
    let id = json!({ "type": "string", "minLength": 1, "maxLength": 255 });
    let optional_id = json!({ "type": ["string", "null"], "minLength": 1, "maxLength": 255 });
    let version = json!({ "type": "integer", "minimum": 0 });
    let optional_number = json!({ "type": ["integer", "null"], "minimum": 0 });
    let time = json!({ "type": "string", "format": "date-time" });
    let text = json!({ "type": "string" });
    let status = json!({ "enum": ["applied", "rejected", "refused", "dead"] });
    let view = json!({ "type": "object", "properties": {
        "id": id, "kind": text, "version": version, "owner": text, "epoch": version, "updated_at": time, "record": record,
    }});
    let command = json!({ "type": "object", "properties": {
        "command_id": text, "name": { "type": ["string", "null"] }, "status": status, "version": version,
    }});
    let request = |required: &[&str], properties: serde_json::Value| json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties });
    vec![
        (
            GET,
            request(&["id"], json!({ "id": id, "min_version": optional_number, "timeout_ms": optional_number })),
            view.clone(),
        ),
        (
            "list",
            request(
                &[],
                json!({
                    "prefix": text, "cursor": optional_id,
                    "limit": { "type": ["integer", "null"], "minimum": 1, "maximum": MAX_PAGE_RECORDS },
                }),
            ),
            json!({ "type": "object", "properties": {
                "records": { "type": "array", "items": view }, "cursor": optional_id,
            }}),
        ),
        (
            "history",
            request(&["id"], json!({ "id": id })),
            json!({ "type": "object", "properties": { "versions": { "type": "array", "items": {
                "type": "object", "properties": {
                    "version": version, "updated_at": time, "record": { "anyOf": [record, { "type": "null" }] },
                    "commands": { "type": "array", "items": command },
            }}}}}),
        ),
        (
            "outcome",
            request(&["command_id"], json!({ "command_id": text, "id": optional_id })),
            json!({ "type": "object", "properties": {
                "command_id": text, "id": optional_id, "name": { "type": ["string", "null"] }, "status": status,
                "version": version, "reply": true, "error": { "type": "object" }, "owner": text, "decided_at": time,
            }}),
        ),
    ]
}

/// Answers a read; nothing where the endpoint is none.
pub(crate) async fn answer(
    handler: &RequestHandler,
    definition: &KindDefinition,
    endpoint: &str,
    payload: &[u8],
) -> Option<Answer> {
    let answered = match endpoint {
        GET => get(handler, definition, payload).await,
        "list" => list(handler, definition, payload),
        "history" => history(handler, definition, payload).await,
        "outcome" => outcome(handler, definition, payload),
        _ => return None,
    };
    Some(answered.unwrap_or_else(Answer::from))
}

/// The copy at one moment.
pub(crate) struct Look {
    snapshot: Snapshot,
    pub(crate) takeovers: Takeovers,
}

impl Look {
    pub(crate) fn take(handler: &RequestHandler) -> Result<Self, Refusal> {
        let snapshot = handler.copy.reader.snapshot().map_err(|error| unreadable_copy(&error))?;
        let takeovers = snapshot.takeovers().map_err(|error| unreadable_copy(&error))?;
        Ok(Self { snapshot, takeovers })
    }

    /// A record, seen through the takeovers.
    fn record(&self, kind: &KindName, id: &RecordId) -> Result<Option<RecordState>, Refusal> {
        let mut state = self.snapshot.record(kind, id).map_err(|error| unreadable_copy(&error))?;
        state.iter_mut().for_each(|state| _ = self.takeovers.see_record(state));
        Ok(state)
    }
}

/// Answers the read of a record; nothing where it has to wait for a version.
pub(crate) fn get_at_once(handler: &RequestHandler, look: &Look, kind: &KindName, payload: &[u8]) -> Option<Answer> {
    let answered = read(payload).and_then(|request: GetRequest| {
        let state = look.record(kind, &request.id)?;
        let has_to_wait = request.min_version.is_some_and(|wanted| version_of(&state) < wanted);
        if has_to_wait { Ok(None) } else { found(handler, kind, &request.id, state).map(Some) }
    });
    answered.transpose().map(|answered| answered.unwrap_or_else(Answer::from))
}

async fn get(handler: &RequestHandler, definition: &KindDefinition, payload: &[u8]) -> Result<Answer, Refusal> {
    let request: GetRequest = read(payload)?;
    let kind = &definition.name;
    let look = || Look::take(handler)?.record(kind, &request.id);
    let Some(wanted) = request.min_version else { return found(handler, kind, &request.id, look()?) };
    // The wait comes before the look, so that no commit falls between them.
    let waiter = handler.copy.waiters.version(kind, &request.id, wanted);
    let mut state = look()?;
    if version_of(&state) < wanted {
        let wait = request.timeout_ms.unwrap_or(DEFAULT_VERSION_WAIT_MS).min(MAX_VERSION_WAIT_MS);
        // However the wait ends, the copy is looked at again and says what it has.
        let _ = timeout(Duration::from_millis(wait), waiter).await;
        state = look()?;
    }
    let version = version_of(&state);
    if version < wanted {
        let text = format!("this copy has version {version}, not {wanted}, and none came in time");
        return Err(Refusal::new(ErrorCode::Busy, text));
    }
    found(handler, kind, &request.id, state)
}

/// The answer with a record as the copy has it.
fn found(
    handler: &RequestHandler,
    kind: &KindName,
    id: &RecordId,
    state: Option<RecordState>,
) -> Result<Answer, Refusal> {
    let not_found = || Refusal::new(ErrorCode::NotFound, format!("there is no {kind} {:?}", id.as_str()));
    match state {
        None => Err(not_found()),
        Some(state) if state.record.is_none() => {
            Ok(Answer { result: Err(not_found()), headers: copy_headers(handler, &state) })
        }
        Some(state) => {
            Ok(Answer { result: Ok(print(&view(kind, id, &state))?), headers: copy_headers(handler, &state) })
        }
    }
}

/// The headers of a record; for one of another site, how old the copy is, where that is known.
fn copy_headers(handler: &RequestHandler, state: &RecordState) -> ReplyHeaders {
    let mut headers = record_headers(state.version, &state.owner);
    if let Some(age) = handler.copy.age_of(&state.owner) {
        headers.push((AGE_HEADER, age.as_millis().to_string()));
    }
    headers
}

fn list(handler: &RequestHandler, definition: &KindDefinition, payload: &[u8]) -> Result<Answer, Refusal> {
    let request: ListRequest = read(payload)?;
    let kind = &definition.name;
    let limit = request.limit.unwrap_or(DEFAULT_PAGE_RECORDS);
    if limit == 0 || limit > MAX_PAGE_RECORDS {
        return Err(Refusal::new(ErrorCode::Invalid, format!("\"limit\" is 1 to {MAX_PAGE_RECORDS}")));
    }
    let Look { snapshot, takeovers } = Look::take(handler)?;
    let page = snapshot.list(kind, &request.prefix, request.cursor.as_ref(), limit);
    let mut page = page.map_err(|error| unreadable_copy(&error))?;
    page.items.iter_mut().for_each(|(_, state)| _ = takeovers.see_record(state));
    let room = handler.max_payload_bytes.saturating_sub(PAGE_RESERVE_BYTES);
    let (mut records, mut bytes) = (Vec::new(), 0);
    let mut cursor = page.resume_after;
    for (id, state) in &page.items {
        let record = print(&view(kind, id, state))?;
        if bytes + record.len() > room && !records.is_empty() {
            // The page is full: it goes on behind the last record that fits.
            cursor = records.last().map(|(id, _): &(RecordId, Json)| id.clone());
            break;
        }
        bytes += record.len() + 1;
        let text = String::from_utf8(record.into()).map_err(|error| unprintable(&error))?;
        records.push((id.clone(), Json::from_text(text).map_err(|error| unprintable(&error))?));
    }
    #[derive(Serialize)]
    struct Page<'a> {
        records: Vec<&'a Json>,
        cursor: Option<RecordId>,
    }
    let page = Page { records: records.iter().map(|(_, record)| record).collect(), cursor };
    Ok(Answer { result: Ok(print(&page)?), headers: Vec::new() })
}

async fn history(handler: &RequestHandler, definition: &KindDefinition, payload: &[u8]) -> Result<Answer, Refusal> {
    let request: HistoryRequest = read(payload)?;
    let kind = &definition.name;
    // What an owner has not changed yet is in the log of the one before it.
    let look = Look::take(handler)?;
    let origin = match look.record(kind, &request.id)? {
        Some(state) => state.origin,
        None => return Err(Refusal::new(ErrorCode::NotFound, format!("there is no {kind} {:?}", request.id.as_str()))),
    };
    let group = definition.settings.groups.group_of(&request.id);
    let subject = RecordsSubject::update(&origin, kind, group, &request.id);
    let messages = handler.records.history(&subject, MAX_HISTORY_UPDATES).await.map_err(|error| {
        tracing::warn!(error = describe(&error), "a history cannot be read");
        Refusal::new(ErrorCode::Busy, "the log cannot be read now")
    })?;
    #[derive(Serialize)]
    struct Version {
        version: RecordVersion,
        updated_at: String,
        record: Option<Json>,
        commands: Vec<CommandView>,
    }
    #[derive(Serialize)]
    struct CommandView {
        command_id: CommandId,
        name: Option<CommandName>,
        status: Status,
        version: RecordVersion,
    }
    let room = handler.max_payload_bytes.saturating_sub(PAGE_RESERVE_BYTES);
    let (mut versions, mut bytes) = (Vec::new(), 0);
    // The newest are kept where not all fit into one reply.
    for message in messages.iter().rev() {
        let Ok(RecordsBody::Update(update)) = read_body(message) else { continue };
        if look.takeovers.is_void(&origin, message.sequence, Some(&update.log)) {
            continue;
        }
        let command = |change: freehold_core::Change| CommandView {
            command_id: change.command_id,
            name: change.name,
            status: change.outcome.status,
            version: change.outcome.version,
        };
        let version = Version {
            version: update.version,
            updated_at: timestamp(update.time_ms),
            record: update.record,
            commands: update.changes.into_iter().map(command).collect(),
        };
        let printed = Json::from_value(&version).map_err(|error| unprintable(&error))?;
        bytes += printed.as_str().len() + 1;
        if bytes > room && !versions.is_empty() {
            break;
        }
        versions.push(printed);
    }
    versions.reverse();
    let body = print(&std::collections::BTreeMap::from([("versions", versions)]))?;
    Ok(Answer { result: Ok(body), headers: Vec::new() })
}

fn outcome(handler: &RequestHandler, definition: &KindDefinition, payload: &[u8]) -> Result<Answer, Refusal> {
    let request: OutcomeRequest = read(payload)?;
    let kind = &definition.name;
    let snapshot = handler.copy.reader.snapshot().map_err(|error| unreadable_copy(&error))?;
    let found = match &request.id {
        Some(id) => snapshot.outcome(kind, Some(id), &request.command_id).map(|outcome| outcome.into_iter().collect()),
        None => snapshot.outcomes_by_command(kind, &request.command_id),
    };
    let found: Vec<StoredOutcome> = found.map_err(|error| unreadable_copy(&error))?;
    match found.as_slice() {
        [] => Err(Refusal::new(ErrorCode::NotFound, "this copy has no outcome of this command, yet or any more")),
        [one] => Ok(Answer {
            result: Ok(print(&outcome_view(one))?),
            headers: record_headers(one.change.outcome.version, &one.origin),
        }),
        _ => {
            let text = "the command id was used on several records: give \"id\", too";
            Err(Refusal::new(ErrorCode::Invalid, text))
        }
    }
}

fn outcome_view(outcome: &StoredOutcome) -> OutcomeView<'_> {
    let StoredOutcome { change, origin, time, .. } = outcome;
    OutcomeView {
        command_id: &change.command_id,
        id: &change.id,
        name: &change.name,
        status: change.outcome.status,
        version: change.outcome.version,
        reply: &change.outcome.reply,
        error: &change.outcome.error,
        // A command that is on its way belongs to where it goes.
        owner: change.forwarded.as_ref().filter(|_| !change.is_final()).map_or(origin, |place| &place.to),
        decided_at: timestamp(*time),
    }
}

fn version_of(state: &Option<RecordState>) -> RecordVersion {
    state.as_ref().map(|state| state.version).unwrap_or_default()
}

fn view<'a>(kind: &'a KindName, id: &'a RecordId, state: &'a RecordState) -> RecordView<'a> {
    RecordView {
        id,
        kind,
        version: state.version,
        owner: &state.owner,
        epoch: state.epoch,
        updated_at: timestamp(state.time),
        record: &state.record,
    }
}

fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Refusal> {
    // An empty request asks with nothing but defaults.
    let payload = if payload.is_empty() { b"{}" } else { payload };
    let invalid =
        |why: &dyn std::fmt::Display| Refusal::new(ErrorCode::Invalid, format!("the request cannot be read: {why}"));
    // `serde` alone would take an array, too, its items as the fields in their order.
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid(&"it is no JSON object"));
    }
    serde_json::from_slice(payload).map_err(|error| invalid(&error))
}

fn print(value: &impl Serialize) -> Result<Bytes, Refusal> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| unprintable(&error))
}

fn unprintable(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(ErrorCode::Internal, format!("the answer cannot be printed: {error}"))
}

/// A log's time in RFC 3339; the year 9999 and later as the number of milliseconds.
pub(crate) fn timestamp(time: LogTime) -> String {
    let milliseconds = i64::try_from(time.0).ok();
    let timestamp = milliseconds.and_then(|milliseconds| jiff::Timestamp::from_millisecond(milliseconds).ok());
    timestamp.map_or_else(|| time.0.to_string(), |timestamp| format!("{timestamp:.3}"))
}
