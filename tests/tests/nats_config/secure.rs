//! `nats-config/secure`: each role does its work, and finds every other door shut.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, ServiceConfig};
use freehold_jetstream::{Connection, ProvisionOptions, plan};
use freehold_sandbox::wait_until;
use freehold_tests::place::InstanceProcess;
use freehold_tests::{counter, workload};
use futures::StreamExt;
use serde_json::json;

use crate::deployment::{Deployment, SERVICE, SOON, SiteAt, contains};
use crate::peer;
use crate::refusals::{CHANGES, api, ensure_all_refused, violations};
use crate::roles::{Role, Secrets, Who, connect_options};

const EWR: SiteAt = SiteAt { name: "ewr", ports: &[4222] };
const LOGS: [&str; 4] = ["FH_COMMANDS_ewr", "FH_RECORDS_ewr", "FH_DEADLETTER_ewr", "KV_FH_MEMBERS_ewr"];
/// Members that the service's answers have, and its claims and positions have not.
const ANSWERS: [&str; 4] = ["\"record\"", "\"versions\"", "\"code\"", "\"type\""];

/// The deployment with its streams and two instances.
struct Given {
    deployment: Deployment,
    secrets: Secrets,
    url: String,
    services: Vec<InstanceProcess>,
    caller: Client,
}

impl Given {
    async fn new(left_out: Option<fn(&str) -> bool>) -> Result<Self> {
        let secrets = Secrets::new(&[None])?;
        let mut deployment = Deployment::start_with("secure", secrets.setup(left_out)?).await?;
        let url = deployment.urls(EWR)?.replace("nats://", "tls://");
        let operator =
            Connection::open(&connect_options(&deployment.directory(), Role::Operator, &url), "operator").await?;
        let kind = counter::definition();
        let options = ProvisionOptions::new(EWR.name.parse()?, vec![(kind.name.clone(), kind.shared_settings())]);
        plan(&operator, &options).await?.carry_out(&operator).await?;
        let mut services = Vec::new();
        for name in ["one", "two"] {
            let directory = deployment.directory().join(format!("service-{name}"));
            std::fs::create_dir(&directory)?;
            let mut config = ServiceConfig::new(EWR.name.parse()?, name.parse()?, &url, directory.join("copy"));
            config.nats = connect_options(&deployment.directory(), Role::Service, &url);
            config.provision = false;
            // So that the purge of decided commands is seen.
            config.audit_window_ms = 1_000;
            services.push(InstanceProcess::start(SERVICE, &config, &directory).await?);
        }
        let caller = Client::connect(&connect_options(&deployment.directory(), Role::Caller, &url), "caller").await?;
        Ok(Self { deployment, secrets, url, services, caller })
    }

    async fn plain(&self, role: Role) -> Result<async_nats::Client> {
        self.secrets.plain(&self.deployment.directory(), role, &self.url).await
    }

    async fn add(&self, number: u64) -> Result<()> {
        let body = json!({ "id": "ewr-1", "amount": 1, "client": "me", "number": number });
        workload::reply::<counter::Total>(&workload::send(&self.caller, "add", &body, None).await?).map(drop)
    }

    /// What the server has refused so far.
    fn violations(&self) -> Result<Vec<String>> {
        violations(self.deployment.server("ewr.conf")?.log_path())
    }

    async fn all_refused(&self, role: Role, subjects: &[String]) -> Result<()> {
        let log = self.deployment.server("ewr.conf")?.log_path();
        ensure_all_refused(&self.plain(role).await?, log, subjects).await.with_context(|| format!("{role:?}"))
    }

    /// The logs are all there, with nothing in them that is not the service's.
    async fn ensure_untouched(&self, records: u64) -> Result<()> {
        let operator = self.plain(Role::Operator).await?;
        peer::ensure_nothing_stored(&operator, EWR.name).await?;
        let jetstream = async_nats::jetstream::new(operator);
        for name in LOGS {
            jetstream.get_stream(name).await?;
        }
        let counter = workload::read_at_least(&self.caller, "ewr-1", records).await?;
        ensure!(counter.changes == records && counter.breaches.is_empty(), "{counter:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_its_work_without_meeting_a_refusal() -> Result<()> {
    let mut given = Given::new(None).await?;
    for number in 1..=20 {
        given.add(number).await?;
    }
    let there = || async {
        let answers = given.caller.ask_all("$SRV.PING.counters", Duration::from_millis(200)).await;
        answers.is_ok_and(|answers| answers.len() == 2)
    };
    wait_until("a caller discovers both instances", SOON, there).await?;
    let history = json!({ "id": "ewr-1" }).to_string();
    let options = freehold::SendOptions::default();
    let history = given.caller.request(&workload::kind(), "history", history.into(), &options).await?;
    ensure!(history.result.is_ok(), "{history:?}");
    // What cannot be decided becomes a dead letter, and decided commands are purged.
    let dead = workload::send(&given.caller, "poison", &json!({ "id": "ewr-2", "how": "panic" }), None).await?;
    ensure!(dead.result.is_err(), "{dead:?}");
    let operator = given.plain(Role::Operator).await?;
    let letter = || async {
        let logs = peer::logs(&operator, EWR.name).await.unwrap_or_default();
        logs.iter().any(|(name, _, messages)| name.contains("DEADLETTER") && *messages == 1)
    };
    wait_until("there is a dead letter", SOON, letter).await?;
    let purged = || async {
        let logs = peer::logs(&operator, EWR.name).await.unwrap_or_default();
        logs.iter().any(|(name, first, _)| name.contains("COMMANDS") && *first > 1)
    };
    wait_until("decided commands are purged", SOON, purged).await?;
    // After a restart everything that was subscribed to is made again.
    let server = given.deployment.server("ewr.conf")?;
    server.kill().await?;
    server.restart().await?;
    for number in 21..=30 {
        given.add(number).await?;
    }
    // Instances ask one another, claim, and take over.
    given.services[0].process().kill().await?;
    for number in 31..=40 {
        given.add(number).await?;
    }
    given.services[0].restart().await?;
    given.services[1].process().stop().await?;
    for number in 41..=50 {
        given.add(number).await?;
    }
    given.ensure_untouched(50).await?;
    let violations = given.violations()?;
    ensure!(violations.is_empty(), "{violations:#?}");

    let data = given.deployment.directory().join("data");
    ensure!(data.join("ewr").is_dir(), "there is no store");
    ensure!(!contains(&data, "\"last\":{\"me\"")?, "a record is in the store in the clear");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_role_gets_further_than_its_work() -> Result<()> {
    let given = Given::new(None).await?;
    given.add(1).await?;
    let reads = ["STREAM.INFO", "STREAM.MSG.GET", "CONSUMER.CREATE", "DIRECT.GET"];
    let mut for_caller = peer::subjects("ewr");
    for_caller.extend(api(&LOGS, &CHANGES));
    for_caller.extend(api(&LOGS, &reads));
    let others = [
        "$JS.API.INFO",
        "$JS.FC.x",
        "$KV.FH_MEMBERS_ewr.counter",
        "fh.ewr.ins.one.x.digest",
        "fh.ewr.adm.counter.rehome",
    ];
    for_caller.extend(others.iter().chain(&["_R_.any", "$SYS.REQ.SERVER.PING"]).map(|it| (*it).to_owned()));
    given.all_refused(Role::Caller, &for_caller).await?;

    // The command log is the service's to purge and its watch of the members to end; nothing else is to be changed.
    let allowed = ["$JS.API.STREAM.PURGE.FH_COMMANDS_ewr", "$JS.API.CONSUMER.DELETE.KV_FH_MEMBERS_ewr.any"];
    let mut for_service = api(&LOGS, &CHANGES);
    for_service.retain(|subject| !allowed.contains(&subject.as_str()));
    for_service.extend(peer::subjects("jfk"));
    for_service.extend(peer::subjects("ewr").into_iter().filter(|subject| subject.contains(".fwd.")));
    for_service.extend(["freehold.counter.add", "$SRV.PING", "$KV.OTHER.key"].map(str::to_owned));
    given.all_refused(Role::Service, &for_service).await?;

    let mut for_operator = peer::subjects("ewr");
    for_operator.extend(["freehold.counter.add", "$KV.FH_MEMBERS_ewr.counter", "_R_.any"].map(str::to_owned));
    given.all_refused(Role::Operator, &for_operator).await?;

    let caller = given.plain(Role::Caller).await?;
    for subject in [">", "fh.>", "freehold.>", "$SRV.>", "$JS.>", "_R_.>"] {
        let _subscription = caller.subscribe(subject).await?;
        let refused = || async {
            let named = format!("Subject \"{subject}\"");
            let violations = given.violations().unwrap_or_default();
            violations.iter().any(|line| line.contains("Subscription Violation") && line.contains(&named))
        };
        wait_until(&format!("a caller may not listen to {subject}"), SOON, refused).await?;
    }

    ensure!(given.plain(Role::Stranger).await.is_err(), "a stranger is let in");
    let nobody =
        async_nats::ConnectOptions::new().add_root_certificates(given.deployment.directory().join("tls/ca.pem"));
    ensure!(nobody.connect(&given.url).await.is_err(), "nobody is let in");
    let mut unsure = connect_options(&given.deployment.directory(), Role::Caller, &given.url);
    unsure.tls_ca_file = None;
    let unsure = Client::connect(&unsure, "without an authority").await;
    ensure!(unsure.is_err(), "a server is trusted that nobody has certified");
    given.ensure_untouched(1).await
}

/// What `freehold doctor` says of a role's permissions, and of the server's disk.
async fn doctor(given: &mut Given, role: Role, asked: &str) -> Result<serde_json::Value> {
    let monitoring = given.deployment.monitoring(8222)?;
    let directory = given.deployment.directory();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_e2e-freehold"))
        .args(["--url", &given.url, "--json", "doctor", "--site", "ewr", "--sites", "ewr", "--role", asked])
        .args(["--monitoring", &monitoring])
        .env("FREEHOLD_NATS__TLS_CA_FILE", directory.join("tls/ca.pem"))
        .env("FREEHOLD_NATS__NKEY_SEED_FILE", directory.join(format!("{}.seed", Who::from(role).name())))
        .output()
        .await?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_a_role_may_not_do_that_it_must() -> Result<()> {
    let mut given = Given::new(None).await?;
    for (role, asked, lacks) in [
        (Role::Operator, "operator", None),
        (Role::Service, "service", None),
        (Role::Service, "operator", Some("publish $JS.API.>")),
        (Role::Operator, "service", Some("publish fh.ewr.cmd.>")),
    ] {
        let report = doctor(&mut given, role, asked).await?;
        let findings = report["findings"].as_array().context("no findings")?;
        let find = |ending: &str| {
            let found = findings.iter().find(|it| it["what"].as_str().is_some_and(|what| what.ends_with(ending)));
            found.with_context(|| format!("{ending} is not in {report}"))
        };
        let found = find(&format!("permissions of {asked}"))?;
        let is_right = match lacks {
            None => found["weight"] == "fine",
            Some(lacks) => found["weight"] == "mend" && found["found"].as_str().is_some_and(|it| it.contains(lacks)),
        };
        ensure!(is_right, "{role:?} as {asked}: {found}");
        ensure!(find(": sync_interval")?["found"] == "always", "{report}");
    }
    Ok(())
}

/// Even a caller who may publish and listen to everything stays in the callers' account: a place for the answer that is a
/// log's subject is a place there, and the log does not get it.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_place_for_the_answer_stays_in_the_callers_account() -> Result<()> {
    let limits: fn(&str) -> bool = |line| {
        line == "          publish: [\"freehold.>\", \"$SRV.>\"]\n" || line == "          subscribe: [\"_INBOX.>\"]\n"
    };
    let given = Given::new(Some(limits)).await?;
    given.add(1).await?;
    let caller = given.plain(Role::Caller).await?;
    let mut heard = caller.subscribe("fh.>").await?;
    caller.flush().await?;
    let requests = [
        ("freehold.counter.get", r#"{"id":"ewr-1"}"#, 1),
        ("freehold.counter.history", r#"{"id":"ewr-1"}"#, 1),
        ("freehold.counter.nothing", "{}", 1),
        // Both instances answer.
        ("$SRV.INFO", "", 2),
    ];
    let places: Vec<_> = peer::subjects("ewr");
    let mut expected = 0;
    for place in &places {
        for (request, body, answers) in requests {
            caller.publish_with_reply(request, place.clone(), body.into()).await?;
            expected += answers;
        }
        caller.publish(place.clone(), "direct".into()).await?;
        expected += 1;
    }
    for place in &places {
        let changes = api(&LOGS, &CHANGES);
        let through_the_domain = changes.iter().map(|subject| subject.replacen("$JS.", "$JS.ewr.", 1));
        for subject in changes.iter().cloned().chain(through_the_domain) {
            caller.publish_with_reply(subject, place.clone(), "{}".into()).await?;
        }
    }
    caller.flush().await?;
    let answers = async {
        let mut answers = 0;
        while let Some(message) = heard.next().await {
            // Requests that go nowhere are answered by the server itself, without a body.
            answers += usize::from(message.status.is_none());
            if answers == expected {
                break;
            }
        }
        answers
    };
    let heard = tokio::time::timeout(SOON, answers).await;
    ensure!(heard.is_ok(), "not all of {expected} answers came back into the callers' account");
    let operator = given.plain(Role::Operator).await?;
    for (name, _, messages) in peer::logs(&operator, EWR.name).await? {
        ensure!(messages > 0 || name.contains("DEADLETTER"), "{name} is empty");
        let jetstream = async_nats::jetstream::new(operator.clone());
        let stream = jetstream.get_stream(&name).await?;
        for place in &places {
            // Of these subjects the service itself uses those of claims and positions.
            let Ok(message) = stream.get_last_raw_message_by_subject(place).await else { continue };
            let text = String::from_utf8_lossy(&message.payload);
            let own = [".ctl.claim.", ".ctl.pos."].iter().any(|family| place.contains(family));
            let forged = ANSWERS.iter().any(|member| text.contains(member)) || text == "direct";
            ensure!(own && !forged, "{place} is stored: {text}");
        }
    }
    given.ensure_untouched(1).await
}
