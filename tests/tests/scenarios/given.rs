//! What a scenario starts from: one site with its servers, instances in processes of their own, a client, and ways to look
//! at what is in the logs and in an instance's copy.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream;
use freehold::{Answer, Client, ConnectOptions, ServiceConfig};
use freehold_core::subject;
use freehold_core::{
    CommandId, CommandMessage, CopyRead, ErrorCode, GroupCount, GroupNumber, InstanceName, Json, LoggedCommand,
    MemberList, RecordId, Refusal, StoredOutcome,
};
use freehold_jetstream::{Appended, CommandLog, Members};
use freehold_sandbox::{Sandbox, Site, wait_until};
use freehold_store::{Options, Store};
use freehold_tests::audit::{self, RecordsLog};
use freehold_tests::gate::Gate;
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::{copies, counter, workload};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program that runs an instance.
pub(crate) const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");
/// The site.
pub(crate) const SITE: &str = "ewr";
/// Updates of a record that the log keeps: enough for a test to read back all that happened.
const ALL_HISTORY: u64 = 100_000;
/// How long things may take on a slow machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// When a client asks again: an instance that was killed never answers.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a holder says when the log refuses what it has published.
pub(crate) const REFUSED: &str = "the log has a newer claim";
/// How long the holder is at work where commands are to gather.
pub(crate) const BUSY_MS: u64 = 2_000;

/// One site.
pub(crate) struct Given {
    pub(crate) sandbox: Sandbox,
    pub(crate) client: Client,
    /// JetStream, for looks at what is stored.
    pub(crate) context: jetstream::Context,
    /// When the client asks again.
    pub(crate) ask_again: Duration,
    directory: TempDir,
}

impl Given {
    /// A site with one server.
    pub(crate) async fn one_site() -> Result<Self> {
        Self::at(place::one_site().await?).await
    }

    /// A site with a cluster of three servers.
    pub(crate) async fn one_cluster() -> Result<Self> {
        Self::at(place::one_cluster().await?).await
    }

    async fn at(sandbox: Sandbox) -> Result<Self> {
        let client = place::client(sandbox.site(SITE)).await?;
        let urls: Vec<String> = sandbox.site(SITE).urls();
        let context = jetstream::new(async_nats::connect(urls).await?);
        Ok(Self { sandbox, client, context, ask_again: ASK_AGAIN, directory: tempfile::tempdir()? })
    }

    /// The site.
    pub(crate) fn site(&self) -> &Site {
        self.sandbox.site(SITE)
    }

    /// A gate before the site's first server.
    pub(crate) async fn gate(&self) -> Result<Gate> {
        Gate::open(&self.site().server().url()).await
    }

    /// The configuration of an instance whose log keeps everything.
    pub(crate) fn config(&self, name: &str) -> Result<ServiceConfig> {
        let mut config = place::config(self.site(), name, self.directory.path())?;
        config.history = ALL_HISTORY;
        Ok(config)
    }

    /// An instance.
    pub(crate) async fn process(&self, name: &str) -> Result<InstanceProcess> {
        self.process_of(&self.config(name)?).await
    }

    /// An instance that sees its server through a gate only.
    pub(crate) async fn process_behind(&self, gate: &Gate, name: &str) -> Result<InstanceProcess> {
        let mut config = self.config(name)?;
        config.nats = ConnectOptions::to(gate.url());
        self.process_of(&config).await
    }

    /// An instance with a configuration.
    pub(crate) async fn process_of(&self, config: &ServiceConfig) -> Result<InstanceProcess> {
        let said = [("RUST_LOG", "info,freehold_runtime=debug")];
        InstanceProcess::start_with(SERVICE, config, self.directory.path(), &said).await
    }

    /// An instance of a release with other rules.
    pub(crate) async fn process_with_rules(&self, config: &ServiceConfig, rules: &str) -> Result<InstanceProcess> {
        let said = [("RUST_LOG", "info,freehold_runtime=debug"), ("E2E_RULES", rules)];
        InstanceProcess::start_with(SERVICE, config, self.directory.path(), &said).await
    }

    /// An instance whose files can be kept from growing.
    pub(crate) async fn process_with_file_limits(&self, name: &str) -> Result<InstanceProcess> {
        InstanceProcess::start_with_file_limits(SERVICE, &self.config(name)?, self.directory.path()).await
    }

    /// The directory of the instances' copies.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Appends a command to the log without any instance's help.
    pub(crate) async fn append(&self, id: &str, name: &str, command_id: &str, body: &Value) -> Result<Appended> {
        let id: RecordId = id.parse()?;
        let group = GroupCount::DEFAULT.group_of(&id);
        let command = CommandMessage {
            kind: workload::kind(),
            id,
            name: name.parse()?,
            command_id: CommandId::from_caller(command_id)?,
            if_version: None,
            owner_down: None,
            body: Json::from_value(body)?,
        };
        Ok(CommandLog::new(self.client.connection().clone(), SITE.parse()?).append(group, &command, None).await?)
    }

    /// Appends an `add` again and again until the log takes it a second time: until the server has forgotten it.
    pub(crate) async fn append_again(&self, id: &str, command_id: &str) -> Result<()> {
        let body = json!({ "amount": 1 });
        let forgotten =
            || async { self.append(id, "add", command_id, &body).await.is_ok_and(|taken| !taken.duplicate) };
        Ok(wait_until("the server forgets the message id", SOON, forgotten).await?)
    }

    /// Asks one time.
    pub(crate) async fn ask(&self, id: &str, name: &str, command_id: &str, body: &Value) -> Result<Answer> {
        workload::send_once(&self.client, name, &with_id(id, body), command_id, SOON).await
    }

    /// Asks until there is an answer.
    pub(crate) async fn tell(&self, id: &str, name: &str, command_id: &str, body: &Value) -> Result<Answer> {
        workload::send_asking_again(&self.client, name, &with_id(id, body), command_id, self.ask_again).await
    }

    /// Adds 1 and checks that the answer is what the first answer must be.
    pub(crate) async fn add_is_answered(&self, id: &str, command_id: &str, changes: u64) -> Result<()> {
        let answer = self.tell(id, "add", command_id, &json!({ "amount": 1 })).await?;
        let total: counter::Total = workload::reply(&answer).with_context(|| format!("{id}: {command_id}"))?;
        ensure!(total.changes == changes, "{id}: {command_id} was answered {total:?}, not change {changes}");
        ensure!(answer.version.map(|version| version.0) == Some(changes), "{id}: {command_id}: {answer:?}");
        Ok(())
    }

    /// Has the holder of a record at work on it for some time; gives way when it has begun.
    pub(crate) async fn keep_busy(&self, holder: &InstanceProcess, id: &str, command_id: &str) -> Result<()> {
        let before = said(holder, counter::SLOW)?;
        self.append(id, "add", command_id, &json!({ "amount": 1, "slow_ms": BUSY_MS })).await?;
        wait_said(holder, counter::SLOW, before).await
    }

    /// Adds 1 to records of one group so that one flush decides all of them: they gather while the holder is at work on
    /// another record of the group.
    pub(crate) async fn gather_while_busy(
        &self,
        holder: &InstanceProcess,
        busy: &str,
        ids: &[String],
        command_id: &str,
    ) -> Result<()> {
        self.keep_busy(holder, busy, "busy").await?;
        for id in ids {
            self.append(id, "add", command_id, &json!({ "amount": 1 })).await?;
        }
        Ok(())
    }

    /// Waits until the log says that an instance holds all groups that a test names.
    pub(crate) async fn wait_held(&self, name: &str, groups: &[GroupNumber]) -> Result<()> {
        let held = || async {
            let holders = self.holders().await.unwrap_or_default();
            groups.iter().all(|group| holders.get(&group.0).is_some_and(|holder| holder == name))
        };
        wait_until(&format!("{name} has claimed {groups:?}"), SOON, held).await?;
        Ok(())
    }

    /// Waits until two instances share the groups.
    pub(crate) async fn wait_shared(&self) -> Result<()> {
        let shared = || async {
            let holders = self.holders().await.unwrap_or_default();
            let held = |name: &str| holders.values().filter(|holder| *holder == name).count();
            held("one") == 32 && held("two") == 32
        };
        wait_until("the groups are shared", SOON, shared).await?;
        Ok(())
    }

    /// How often an instance has claimed a group.
    pub(crate) async fn claims_of(&self, name: &str) -> Result<usize> {
        let log = self.claims().await?;
        let claims = GroupCount::DEFAULT.groups().flat_map(|group| log.claims(group));
        Ok(claims.filter(|(_, claim)| claim.instance.as_str() == name).count())
    }

    /// How many commands the log has taken.
    pub(crate) async fn commands_stored(&self) -> Result<u64> {
        let mut stream = self.context.get_stream(subject::commands_stream(&SITE.parse()?)).await?;
        Ok(stream.info().await?.state.last_sequence)
    }

    /// The dead letters, as JSON.
    pub(crate) async fn dead_letters(&self) -> Result<Vec<Value>> {
        let letters = audit::read_stream(&self.urls(), &subject::dead_letter_stream(&SITE.parse()?), "").await?;
        letters.iter().map(|letter| Ok(serde_json::from_slice(&letter.payload)?)).collect()
    }

    /// Who holds each group by the newest claims.
    async fn holders(&self) -> Result<BTreeMap<u16, String>> {
        Ok(RecordsLog::read_newest_claims(&self.urls(), SITE).await?.holders())
    }

    /// How many groups are held by whom the member list names.
    pub(crate) async fn held_as_listed(&self) -> Result<usize> {
        let (list, holders) = (self.members().await?, self.holders().await?);
        let named = |(group, holder): (u16, &Option<InstanceName>)| {
            holder.as_ref().is_some_and(|name| holders.get(&group).is_some_and(|held| held == name.as_str()))
        };
        Ok((0..).zip(&list.groups).filter(|place| named(*place)).count())
    }

    /// Changes who is to hold which group, as a change of the members would.
    pub(crate) async fn assign(&self, holder: impl Fn(u16) -> &'static str) -> Result<MemberList> {
        let members = Members::open(self.client.connection(), &SITE.parse()?).await?;
        loop {
            let entry = members.read(&workload::kind()).await?;
            let mut list = entry.list.clone().context("there are no members")?;
            list.revision = list.revision.next();
            for (group, held) in (0..).zip(list.groups.iter_mut()) {
                *held = Some(holder(group).parse::<InstanceName>()?);
            }
            if members.replace(&workload::kind(), &entry, &list).await? {
                return Ok(list);
            }
        }
    }

    /// Who is on the member list.
    pub(crate) async fn members(&self) -> Result<MemberList> {
        let members = Members::open(self.client.connection(), &SITE.parse()?).await?;
        members.read(&workload::kind()).await?.list.context("there are no members")
    }

    /// Waits until the copies of instances are the same and have so many records.
    pub(crate) async fn wait_same(&self, instances: &[&InstanceProcess], records: u64) -> Result<()> {
        let asked: Vec<_> = instances.iter().map(|instance| (&self.client, SITE, *instance)).collect();
        copies::wait_same(&asked, records).await.map(drop)
    }

    /// What the records log says.
    pub(crate) async fn log(&self) -> Result<RecordsLog> {
        RecordsLog::read(&self.urls(), SITE).await
    }

    /// What the records log says of claims.
    async fn claims(&self) -> Result<RecordsLog> {
        RecordsLog::read_claims(&self.urls(), SITE).await
    }

    /// What the command log says.
    pub(crate) async fn commands(&self) -> Result<Vec<LoggedCommand>> {
        audit::commands(&self.urls(), SITE).await
    }

    /// Whether the command log has a command.
    pub(crate) async fn is_logged(&self, id: &str, command_id: &str) -> Result<bool> {
        let is = |command: &LoggedCommand| {
            let message = command.message.as_ref();
            message.is_ok_and(|message| message.id.as_str() == id && message.command_id.as_str() == command_id)
        };
        Ok(self.commands().await?.iter().any(is))
    }

    /// What the copy of an instance that does not run knows of a command.
    pub(crate) fn outcome_in_copy(&self, name: &str, id: &str, command_id: &str) -> Result<Option<StoredOutcome>> {
        // A copy of the copy is opened: opening mends what a kill has left, and the instance is to do that itself.
        let file = self.directory.path().join(format!("{SITE}-{name}.redb"));
        let aside = self.directory.path().join(format!("{name}-aside.redb"));
        std::fs::copy(&file, &aside).with_context(|| file.display().to_string())?;
        let store = Store::open(&Options::new(aside, SITE.parse()?, name.parse()?))?;
        let (id, command_id) = (id.parse()?, CommandId::from_caller(command_id)?);
        Ok(store.reader().snapshot()?.outcome(&workload::kind(), Some(&id), &command_id)?)
    }

    fn urls(&self) -> String {
        place::urls(self.site())
    }
}

/// How often an instance has said something in its log.
pub(crate) fn said(instance: &InstanceProcess, text: &str) -> Result<usize> {
    let log = std::fs::read(instance.process().log_path())?;
    Ok(String::from_utf8_lossy(&log).matches(text).count())
}

/// Waits until an instance has said something more often than before.
pub(crate) async fn wait_said(instance: &InstanceProcess, text: &str, before: usize) -> Result<()> {
    let more = || async { said(instance, text).is_ok_and(|count| count > before) };
    wait_until(&format!("{} says {text:?}", instance.name), SOON, more).await?;
    Ok(())
}

/// The group of a record.
pub(crate) fn group_of(id: &str) -> Result<GroupNumber> {
    Ok(GroupCount::DEFAULT.group_of(&id.parse()?))
}

/// Ids of so many records of one group.
pub(crate) fn records_of_one_group(prefix: &str, count: usize) -> Result<Vec<String>> {
    let group = group_of(&format!("{SITE}-{prefix}-0"))?;
    let ids = (0..).map(|number| format!("{SITE}-{prefix}-{number}"));
    Ok(ids.filter(|id| group_of(id).is_ok_and(|found| found == group)).take(count).collect())
}

/// A record's id as subjects have it.
pub(crate) fn token(id: &str) -> Result<String> {
    Ok(id.parse::<RecordId>()?.token().to_string())
}

/// The rejection that an answer is.
pub(crate) fn rejection(answer: &Answer) -> Result<Refusal> {
    match &answer.result {
        Err(refusal) if refusal.code == ErrorCode::Rejected => Ok(refusal.clone()),
        other => bail!("no rejection, but {other:?}"),
    }
}

pub(crate) fn with_id(id: &str, body: &Value) -> Value {
    let mut body = body.clone();
    body["id"] = json!(id);
    body
}
