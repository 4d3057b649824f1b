//! Requests of clients: a change becomes a command in this site's log and is answered from this instance's own copy; a read is
//! answered from the copy at once.
//!
//! There is one path for first answers, repeats and the commands of dead holders: wait until the copy has the outcome.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use freehold_core::{
    CommandId, CommandMessage, CopyRead, Decider, ErrorCode, Hash, IdError, Json, KindDefinition, KindName, Outcome,
    RecordId, RecordVersion, Refusal, SiteName, Status, StoredOutcome,
};
use freehold_jetstream::{AppendError, CommandLog, RecordsLog, Reply, ReplyHeaders, Request};

use crate::admission::Admission;
use crate::copy::Copy;
use crate::group_worker::describe;
use crate::read_requests;
use crate::wait_mode::WaitMode;

/// The header with the caller's idempotency key, and with the id under which a change was answered.
const COMMAND_ID_HEADER: &str = "Freehold-Command-Id";
/// The header that says how long a caller wants to wait.
const WAIT_HEADER: &str = "Freehold-Wait";
const VERSION_HEADER: &str = "Freehold-Version";
const OWNER_HEADER: &str = "Freehold-Owner";
const TRACE_HEADER: &str = "traceparent";

/// Answers requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RequestHandler {
    pub(crate) site: SiteName,
    pub(crate) definitions: Arc<HashMap<KindName, Arc<KindDefinition>>>,
    pub(crate) copy: Copy,
    pub(crate) commands: CommandLog,
    pub(crate) admission: Arc<Admission>,
    pub(crate) records: RecordsLog,
    /// How many sites have copies beside this one.
    pub(crate) other_sites: usize,
    pub(crate) default_wait: WaitMode,
    pub(crate) least_wait: WaitMode,
    pub(crate) decide_timeout: Duration,
    pub(crate) max_payload_bytes: usize,
}

/// An answer before it is put on the wire.
pub(crate) struct Answer {
    pub(crate) result: Result<Bytes, Refusal>,
    pub(crate) headers: ReplyHeaders,
}

impl Answer {
    pub(crate) fn refuse(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::from(Refusal::new(code, message))
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self { result: Err(refusal), headers: ReplyHeaders::new() }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        match answer.result {
            Ok(body) => Self { body, headers: answer.headers, error: None },
            Err(refusal) => Self::refuse(&refusal, answer.headers),
        }
    }
}

impl RequestHandler {
    /// Answers one request.
    pub(crate) async fn handle(&self, request: Request) {
        let answer = self.answer(&request).await;
        request.respond(answer.into()).await;
    }

    async fn answer(&self, request: &Request) -> Answer {
        let mut tokens = request.subject().split('.').skip(1);
        let (kind, endpoint) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
        let Some(definition) = kind.parse().ok().and_then(|kind: KindName| self.definitions.get(&kind).cloned()) else {
            return Answer::refuse(ErrorCode::Invalid, format!("this service has no kind {kind:?}"));
        };
        if let Some(answer) = read_requests::answer(self, &definition, endpoint, request.payload()).await {
            return answer;
        }
        let decider = endpoint.parse().ok().and_then(|name| definition.commands.get(&name));
        let Some(decider) = decider else {
            let known: Vec<_> = definition.commands.keys().map(ToString::to_string).collect();
            let message = format!("{kind} has no command {endpoint:?}; it has {}", known.join(", "));
            return Answer::refuse(ErrorCode::Invalid, message);
        };
        match self.change(&definition, decider.as_ref(), request).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.into(),
        }
    }

    async fn change(
        &self,
        definition: &KindDefinition,
        decider: &dyn Decider,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let wait = self.wait_mode(request.header(WAIT_HEADER))?;
        let command_id = match request.header(COMMAND_ID_HEADER) {
            Some(text) => CommandId::from_caller(text).map_err(|error| invalid_command_id(&error))?,
            None => mint_command_id()?,
        };
        let headers = vec![(COMMAND_ID_HEADER, command_id.to_string())];
        let answer = self.change_as(definition, decider, request, command_id, wait).await;
        Ok(answer.unwrap_or_else(|refusal| Answer { result: Err(refusal), headers }))
    }

    async fn change_as(
        &self,
        definition: &KindDefinition,
        decider: &dyn Decider,
        request: &Request,
        command_id: CommandId,
        wait: WaitMode,
    ) -> Result<Answer, Refusal> {
        let deadline = Instant::now() + self.decide_timeout;
        let command = self.read_command(definition, decider, request.payload(), command_id)?;
        let CommandMessage { kind, id, command_id, .. } = &command;
        if definition.home.home(id).is_none() {
            return Err(Refusal::new(ErrorCode::Invalid, format!("no site may create a record with id {id:?}")));
        }
        // The waiter comes before the look into the copy, so that no commit falls between them.
        let mut waiter = self.copy.waiters.outcome(kind, id, command_id);
        if let Some(outcome) = self.known_outcome(kind, id, command_id)? {
            return Ok(self.confirmed_answer(&command, &outcome, wait, deadline).await);
        }
        let group = definition.settings.groups.group_of(id);
        let admitted = self.admission.admit(request.payload().len()).ok_or_else(log_is_full)?;
        let appended = self.commands.append(group, &command, request.header(TRACE_HEADER)).await;
        drop(admitted);
        let appended = appended.map_err(|error| self.append_refusal(&error, command_id))?;
        if wait == WaitMode::Accepted {
            let body = serde_json::json!({ "accepted": true, "id": id, "command_id": command_id });
            return Ok(Answer { result: Ok(body.to_string().into()), headers: command_headers(&command) });
        }
        match timeout_at(deadline, waiter.wait()).await {
            Ok(outcome) => Ok(self.confirmed_answer(&command, &outcome, wait, deadline).await),
            Err(_) => {
                #[derive(serde::Serialize)]
                struct Details<'a> {
                    command_id: &'a CommandId,
                    sequence: u64,
                }
                let details = Details { command_id, sequence: appended.sequence.0 };
                let text = "the command is in the log and not decided yet: ask for its outcome, or send it again";
                Err(Refusal::new(ErrorCode::OutcomeUnknown, text).with_details(&details))
            }
        }
    }

    fn read_command(
        &self,
        definition: &KindDefinition,
        decider: &dyn Decider,
        payload: &[u8],
        command_id: CommandId,
    ) -> Result<CommandMessage, Refusal> {
        let fields = Fields::read(payload)?;
        let body = Json::from_value(&fields.rest)
            .map_err(|error| Refusal::new(ErrorCode::Internal, format!("printing the fields: {error}")))?;
        decider.validate(&body)?;
        let id = match fields.id {
            Some(id) => id,
            None if decider.mints_id() => self.minted_id(&command_id)?,
            None => return Err(Refusal::new(ErrorCode::Invalid, "\"id\" is missing")),
        };
        let (kind, name) = (definition.name.clone(), decider.name());
        Ok(CommandMessage { kind, id, name, command_id, if_version: fields.if_version, body })
    }

    /// The id of a record whose creation names none. It is a function of the command id, so that a retry finds the record
    /// of the first try.
    fn minted_id(&self, command_id: &CommandId) -> Result<RecordId, Refusal> {
        let ulid = match command_id.as_str().parse::<ulid::Ulid>() {
            Ok(ulid) => ulid,
            Err(_) => ulid::Ulid::from(Hash::of([command_id.as_str().as_bytes()]).0),
        };
        let id = format!("{}-{ulid}", self.site);
        id.parse().map_err(|error| Refusal::new(ErrorCode::Internal, format!("minting an id: {error}")))
    }

    fn known_outcome(
        &self,
        kind: &KindName,
        id: &RecordId,
        command_id: &CommandId,
    ) -> Result<Option<StoredOutcome>, Refusal> {
        let snapshot = self.copy.reader.snapshot().map_err(|error| unreadable_copy(&error))?;
        snapshot.outcome(kind, Some(id), command_id).map_err(|error| unreadable_copy(&error))
    }

    /// The answer to a command that is decided, once as many other sites as asked for have confirmed its outcome. In time or not, the
    /// answer says exactly what is known.
    async fn confirmed_answer(
        &self,
        command: &CommandMessage,
        outcome: &StoredOutcome,
        wait: WaitMode,
        deadline: Instant,
    ) -> Answer {
        let answer = self.outcome_answer(command, outcome);
        let WaitMode::Sites(wanted) = wait else { return answer };
        let confirmations = &self.copy.confirmations;
        let confirmed = confirmations.wait(&command.kind, outcome.sequence, wanted.get());
        // The caller waits for copies of what its own site has logged.
        if outcome.origin == self.site && timeout_at(deadline, confirmed).await.is_ok() {
            return answer;
        }
        #[derive(serde::Serialize)]
        struct Details<'a> {
            command_id: &'a CommandId,
            wanted: usize,
            confirmed: usize,
            outcome: &'a Outcome,
        }
        let count = confirmations.count(&command.kind, outcome.sequence);
        let details = Details {
            command_id: &command.command_id,
            wanted: wanted.get(),
            confirmed: count,
            outcome: &outcome.change.outcome,
        };
        let text = format!(
            "the command is decided, and {count} of {wanted} other sites have confirmed it so far: send it again to go on waiting"
        );
        Answer {
            result: Err(Refusal::new(ErrorCode::Unconfirmed, text).with_details(&details)),
            headers: answer.headers,
        }
    }

    fn wait_mode(&self, header: Option<&str>) -> Result<WaitMode, Refusal> {
        let asked = match header {
            None => self.default_wait,
            Some(text) => {
                text.parse().map_err(|error| Refusal::new(ErrorCode::Invalid, format!("{WAIT_HEADER}: {error}")))?
            }
        };
        let others = self.other_sites;
        match asked {
            WaitMode::Sites(wanted) if wanted.get() > others => Err(Refusal::new(
                ErrorCode::Invalid,
                format!("{WAIT_HEADER}: {asked}, but there are {others} other sites"),
            )),
            asked => Ok(asked.max(self.least_wait)),
        }
    }

    fn outcome_answer(&self, command: &CommandMessage, outcome: &StoredOutcome) -> Answer {
        let mut headers = command_headers(command);
        if outcome.change.fingerprint != command.fingerprint() {
            let text = "this command id stands for another command on this record";
            return Answer { result: Err(Refusal::new(ErrorCode::Conflict, text)), headers };
        }
        let told = &outcome.change.outcome;
        headers.push((VERSION_HEADER, told.version.to_string()));
        headers.push((OWNER_HEADER, outcome.origin.to_string()));
        let result = match (&told.error, told.status) {
            (Some(error), _) => Err(error.clone()),
            (None, Status::Applied) => {
                let reply = told.reply.as_ref().map_or("null", Json::as_str);
                Ok(Bytes::copy_from_slice(reply.as_bytes()))
            }
            (None, _) => Err(Refusal::new(ErrorCode::Internal, "the outcome gives no reason")),
        };
        Answer { result, headers }
    }

    fn append_refusal(&self, error: &AppendError, command_id: &CommandId) -> Refusal {
        match error {
            AppendError::Full => log_is_full(),
            AppendError::TooLarge => {
                let limit = self.max_payload_bytes;
                Refusal::new(ErrorCode::TooLarge, format!("the command exceeds the {limit} bytes of one message"))
            }
            AppendError::NoLog => Refusal::new(ErrorCode::Busy, "the command log is not there: nothing was kept"),
            error => {
                tracing::warn!(error = describe(error), "a command may have been taken or not");
                #[derive(serde::Serialize)]
                struct Details<'a> {
                    command_id: &'a CommandId,
                }
                let text = "the command log did not answer: send the command again with the same command id";
                Refusal::new(ErrorCode::OutcomeUnknown, text).with_details(&Details { command_id })
            }
        }
    }
}

/// The fields of a request to change.
struct Fields<'a> {
    id: Option<RecordId>,
    if_version: Option<RecordVersion>,
    rest: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, Refusal> {
        let invalid = |message: String| Refusal::new(ErrorCode::Invalid, message);
        let parsed = serde_json::from_slice::<Members<'a>>(payload);
        let Members(mut rest) = parsed.map_err(|error| invalid(format!("the request cannot be read: {error}")))?;
        let id = match rest.remove("id") {
            None => None,
            Some(id) => {
                let text = serde_json::from_str::<String>(id.get());
                let text = text.map_err(|_| invalid("\"id\" is not a string".to_owned()))?;
                Some(text.parse().map_err(|error: IdError| invalid(format!("\"id\": {error}")))?)
            }
        };
        let if_version = match rest.remove("if_version") {
            None => None,
            Some(version) => {
                let version = serde_json::from_str::<u64>(version.get());
                let version = version.map_err(|_| invalid("\"if_version\" is no whole number".to_owned()))?;
                Some(RecordVersion(version))
            }
        };
        Ok(Self { id, if_version, rest })
    }
}

/// The members of a JSON object. One that occurs twice is refused: two readers would disagree on what was asked.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("{key:?} occurs twice")));
                    }
                    members.insert(key, value);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

fn log_is_full() -> Refusal {
    Refusal::new(ErrorCode::Busy, "the command log is full: nothing was kept")
}

fn mint_command_id() -> Result<CommandId, Refusal> {
    CommandId::from_caller(&ulid::Ulid::generate().to_string()).map_err(|error| invalid_command_id(&error))
}

fn invalid_command_id(error: &IdError) -> Refusal {
    Refusal::new(ErrorCode::Invalid, format!("{COMMAND_ID_HEADER}: {error}"))
}

fn command_headers(command: &CommandMessage) -> ReplyHeaders {
    vec![(COMMAND_ID_HEADER, command.command_id.to_string())]
}

pub(crate) fn unreadable_copy(error: &freehold_store::Error) -> Refusal {
    tracing::error!(error = describe(error), "the copy cannot be read");
    Refusal::new(ErrorCode::Internal, "this instance's copy cannot be read: ask again, another instance may answer")
}

/// The headers of a reply about a record.
pub(crate) fn record_headers(version: RecordVersion, owner: &SiteName) -> ReplyHeaders {
    vec![(VERSION_HEADER, version.to_string()), (OWNER_HEADER, owner.to_string())]
}
