//! Requests of clients: a change becomes a command in this site's log and is answered from this instance's own copy; a read is
//! answered from the copy at once.
//!
//! There is one path for first answers, repeats and the commands of dead holders: wait until the copy has the outcome.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use freehold_core::{
    CommandId, CommandMessage, CopyRead, Decider, ErrorCode, Hash, IdError, Incarnation, Json, KindDefinition,
    KindName, Outcome, OwnerDown, REHOME_COMMAND, RecordId, RecordVersion, Refusal, RehomeCommand, SiteName, Status,
    StoredOutcome,
};
use freehold_jetstream::{AppendError, CommandLog, Connection, RecordsLog, Reply, ReplyHeaders, Request};

use crate::admission::Admission;
use crate::copy::Copy;
use crate::group_worker::describe;
use crate::metrics::RequestMetrics;
use crate::operator_requests;
use crate::read_requests::{self, Look};
use crate::takeover_requests;
use crate::wait_mode::WaitMode;

/// The header with the caller's idempotency key, and with the id under which a change was answered.
pub(crate) const COMMAND_ID_HEADER: &str = "Freehold-Command-Id";
/// The header that says how long a caller wants to wait.
const WAIT_HEADER: &str = "Freehold-Wait";
const VERSION_HEADER: &str = "Freehold-Version";
const OWNER_HEADER: &str = "Freehold-Owner";
const TRACE_HEADER: &str = "traceparent";
/// The header that says what to do where another site owns the record and cannot be reached.
const OWNER_DOWN_HEADER: &str = "Freehold-Owner-Down";
/// How often a request looks whether the owner of its record is away.
const OWNER_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests.
pub(crate) struct RequestHandler {
    pub(crate) site: SiteName,
    pub(crate) definitions: Arc<HashMap<KindName, Arc<KindDefinition>>>,
    pub(crate) copy: Copy,
    pub(crate) commands: CommandLog,
    pub(crate) admission: Arc<Admission>,
    pub(crate) records: RecordsLog,
    pub(crate) connection: Connection,
    pub(crate) sites: Vec<SiteName>,
    /// The life of this site's log.
    pub(crate) log: Incarnation,
    /// How many sites have copies beside this one.
    pub(crate) other_sites: usize,
    pub(crate) default_wait: WaitMode,
    pub(crate) least_wait: WaitMode,
    pub(crate) decide_timeout: Duration,
    pub(crate) max_payload_bytes: usize,
    pub(crate) metrics: RequestMetrics,
}

/// What a request is for, by its subject.
struct Address<'a> {
    by_operator: bool,
    kind: &'a str,
    endpoint: &'a str,
}

impl<'a> Address<'a> {
    fn of(request: &'a Request) -> Self {
        let mut tokens = request.subject().rsplit('.');
        let (endpoint, kind) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
        Self { by_operator: request.subject().starts_with("fh."), kind, endpoint }
    }
}

/// What goes with a command, from its caller's headers.
struct Terms {
    command_id: CommandId,
    /// The caller gave no id: nobody can have sent the command before.
    is_minted: bool,
    owner_down: Option<OwnerDown>,
    wait: WaitMode,
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
    pub(crate) async fn handle(&self, request: Request, arrived: Instant) {
        let answer = self.answer(&request).await;
        self.respond(request, answer, arrived).await;
    }

    /// Whether a request reads one record.
    pub(crate) fn is_read_of_record(&self, request: &Request) -> bool {
        let Address { by_operator, endpoint, .. } = Address::of(request);
        !by_operator && endpoint == read_requests::GET
    }

    /// Answers reads of records that have arrived together, all from one look at the copy, but for those that wait for a version. Each has a
    /// permit, which goes with its answer.
    pub(crate) async fn handle_reads(&self, requests: Vec<(Request, OwnedSemaphorePermit)>, arrived: Instant) {
        let look = Look::take(self);
        let answer = |request: &Request| match &look {
            Ok(look) => match self.definition(Address::of(request).kind) {
                Ok(definition) => read_requests::get_at_once(self, look, &definition.name, request.payload()),
                Err(refusal) => Some(refusal.into()),
            },
            Err(refusal) => Some(refusal.clone().into()),
        };
        let answers: Vec<_> = requests.iter().map(|(request, _)| answer(request)).collect();
        // Answers can wait for the connection: the copy could not reuse what is looked at.
        drop(look);
        let mut waiting = Vec::new();
        for ((request, permit), answer) in requests.into_iter().zip(answers) {
            match answer {
                Some(answer) => self.respond(request, answer, arrived).await,
                None => waiting.push((request, permit)),
            }
        }
        let wait = |(request, permit)| async move {
            self.handle(request, arrived).await;
            drop(permit);
        };
        join_all(waiting.into_iter().map(wait)).await;
    }

    async fn respond(&self, request: Request, answer: Answer, arrived: Instant) {
        self.metrics.note(request.subject(), &answer, arrived.elapsed());
        request.respond(answer.into()).await;
    }

    fn definition(&self, kind: &str) -> Result<&Arc<KindDefinition>, Refusal> {
        let known = kind.parse::<KindName>().ok().and_then(|kind| self.definitions.get(&kind));
        known.ok_or_else(|| Refusal::new(ErrorCode::Invalid, format!("this service has no kind {kind:?}")))
    }

    async fn answer(&self, request: &Request) -> Answer {
        let Address { by_operator, kind, endpoint } = Address::of(request);
        let definition = match self.definition(kind) {
            Ok(definition) => Arc::clone(definition),
            Err(refusal) => return refusal.into(),
        };
        if by_operator {
            // Each request's task has room for what its answer needs at most: what is rare has its own.
            let answer = Box::pin(self.answer_operator(&definition, endpoint, request)).await;
            return answer.unwrap_or_else(Answer::from);
        }
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

    async fn answer_operator(
        &self,
        definition: &KindDefinition,
        endpoint: &str,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        match endpoint {
            REHOME_COMMAND => self.change(definition, &RehomeCommand, request).await,
            operator_requests::REHOME_RIGHT => operator_requests::rehome_right(self, definition, request).await,
            takeover_requests::LOSS => takeover_requests::loss(self, request).await,
            takeover_requests::SEAL => takeover_requests::seal(self, request).await,
            takeover_requests::TAKE_OVER => takeover_requests::take_over(self, request).await,
            _ => Ok(Answer::refuse(ErrorCode::Invalid, format!("an operator has no command {endpoint:?}"))),
        }
    }

    async fn change(
        &self,
        definition: &KindDefinition,
        decider: &dyn Decider,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let wait = self.wait_mode(request.header(WAIT_HEADER))?;
        let owner_down = request.header(OWNER_DOWN_HEADER).map(owner_down).transpose()?;
        let (command_id, is_minted) = match request.header(COMMAND_ID_HEADER) {
            Some(text) => (CommandId::from_caller(text).map_err(|error| invalid_command_id(&error))?, false),
            None => (mint_command_id()?, true),
        };
        let headers = vec![(COMMAND_ID_HEADER, command_id.to_string())];
        let terms = Terms { command_id, is_minted, owner_down, wait };
        let answer = self.change_on(terms, definition, decider, request).await;
        Ok(answer.unwrap_or_else(|refusal| Answer { result: Err(refusal), headers }))
    }

    async fn change_on(
        &self,
        terms: Terms,
        definition: &KindDefinition,
        decider: &dyn Decider,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let Terms { command_id, is_minted, owner_down, wait } = terms;
        let deadline = Instant::now() + self.decide_timeout;
        let command = self.read_command(definition, decider, request.payload(), command_id)?;
        let command = CommandMessage { owner_down, ..command };
        let CommandMessage { kind, id, command_id, .. } = &command;
        if definition.home.home(id).is_none() {
            return Err(Refusal::new(ErrorCode::Invalid, format!("no site may create a record with id {id:?}")));
        }
        // The waiter comes before the look into the copy, so that no commit falls between them.
        let mut waiter = self.copy.waiters.outcome(kind, id, command_id);
        let known = if is_minted { None } else { self.known_outcome(kind, id, command_id)? };
        if let Some(outcome) = known {
            return Ok(self.confirmed_answer(&command, &outcome, wait, deadline).await);
        }
        let group = definition.settings.groups.group_of(id);
        let admitted = self.admission.admit(request.payload().len()).ok_or_else(log_is_full)?;
        let appended = self.commands.append(group, &command, request.header(TRACE_HEADER)).await;
        drop(admitted);
        let appended = appended.map_err(|error| self.append_refusal(&error, command_id))?;
        if wait == WaitMode::Accepted {
            return Ok(accepted_answer(&command));
        }
        let decided = tokio::select! {
            decided = timeout_at(deadline, waiter.wait()) => decided.ok(),
            () = self.waits_for_its_owner(definition, &command) => return Ok(accepted_answer(&command)),
        };
        match decided {
            Some(outcome) => Ok(self.confirmed_answer(&command, &outcome, wait, deadline).await),
            None => {
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
        let if_version = fields.if_version;
        Ok(CommandMessage { kind, id, name, command_id, if_version, owner_down: None, body })
    }

    /// Returns when the command is in the log on its way to a site that does not answer: then its caller is told that it is kept.
    async fn waits_for_its_owner(&self, definition: &KindDefinition, command: &CommandMessage) {
        if command.owner_down == Some(OwnerDown::Fail) || self.other_sites == 0 {
            std::future::pending().await
        }
        loop {
            tokio::time::sleep(OWNER_PAUSE).await;
            let unreachable = self.copy.unreachable();
            if unreachable.is_empty() {
                continue;
            }
            let on_its_way = self.stored_outcome(&command.kind, &command.id, &command.command_id);
            let to = on_its_way.ok().flatten().filter(|it| !it.change.is_final()).and_then(|it| it.change.forwarded);
            if to.is_some_and(|place| place.from == self.site && unreachable.contains(&place.to)) {
                tracing::debug!(kind = %definition.name, command_id = %command.command_id, "kept for an owner that is away");
                return;
            }
        }
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

    /// What the command was decided; nothing while it is on its way.
    pub(crate) fn known_outcome(
        &self,
        kind: &KindName,
        id: &RecordId,
        command_id: &CommandId,
    ) -> Result<Option<StoredOutcome>, Refusal> {
        // What nobody but this copy has would be undone where the site that decided it is lost: then the command must be in this
        // site's log, too. What this site has forwarded is.
        let is_safe = |outcome: &StoredOutcome| {
            let StoredOutcome { origin, sequence, change, .. } = outcome;
            change.forwarded.as_ref().is_some_and(|place| place.from == self.site)
                || *origin == self.site
                || self.copy.losses.is_cut(origin)
                || self.copy.is_mirrored(origin, *sequence)
        };
        let stored = self.stored_outcome(kind, id, command_id)?;
        Ok(stored.filter(|outcome| outcome.change.is_final() && is_safe(outcome)))
    }

    fn stored_outcome(
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
        let confirmed = confirmations.wait(&outcome.origin, &command.kind, outcome.sequence, wanted.get());
        if timeout_at(deadline, confirmed).await.is_ok() {
            return answer;
        }
        #[derive(serde::Serialize)]
        struct Details<'a> {
            command_id: &'a CommandId,
            wanted: usize,
            confirmed: usize,
            outcome: &'a Outcome,
        }
        let count = confirmations.count(&outcome.origin, &command.kind, outcome.sequence);
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

    pub(crate) fn append_refusal(&self, error: &AppendError, command_id: &CommandId) -> Refusal {
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
                let id: RecordId = text.parse().map_err(|error: IdError| invalid(format!("\"id\": {error}")))?;
                if id.is_reserved() {
                    return Err(invalid("\"id\": ids that start like this are reserved".to_owned()));
                }
                Some(id)
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

fn owner_down(text: &str) -> Result<OwnerDown, Refusal> {
    text.parse().map_err(|error| Refusal::new(ErrorCode::Invalid, format!("{OWNER_DOWN_HEADER}: {error}")))
}

/// The command is kept; what becomes of it is told later.
fn accepted_answer(command: &CommandMessage) -> Answer {
    let body = serde_json::json!({ "accepted": true, "id": command.id, "command_id": command.command_id });
    Answer { result: Ok(body.to_string().into()), headers: command_headers(command) }
}

fn log_is_full() -> Refusal {
    Refusal::new(ErrorCode::Busy, "the command log is full: nothing was kept")
}

pub(crate) fn mint_command_id() -> Result<CommandId, Refusal> {
    CommandId::from_caller(&ulid::Ulid::generate().to_string()).map_err(|error| invalid_command_id(&error))
}

pub(crate) fn invalid_command_id(error: &IdError) -> Refusal {
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
