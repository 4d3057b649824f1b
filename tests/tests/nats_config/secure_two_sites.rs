//! `nats-config/secure-two-sites`: both sites do all that sites do with each other, and neither gets further at the other.

use anyhow::{Context as _, Result, ensure};
use async_nats::RequestErrorKind;
use freehold::{Client, SendOptions, ServiceConfig};
use freehold_core::{CommandId, SiteName};
use freehold_jetstream::{Connection, ProvisionOptions, plan};
use freehold_sandbox::wait_until;
use freehold_tests::place::InstanceProcess;
use freehold_tests::takeover::{give_back, take_over};
use freehold_tests::{counter, workload};
use serde_json::json;

use crate::deployment::{Deployment, SERVICE, SOON, SiteAt};
use crate::peer;
use crate::refusals::{CHANGES, api, ensure_all_refused, violations};
use crate::roles::{Role, Secrets, Who, connect_options};

const EWR: SiteAt = SiteAt { name: "ewr", ports: &[4222] };
const JFK: SiteAt = SiteAt { name: "jfk", ports: &[4223] };
const SITES: [SiteAt; 2] = [EWR, JFK];
/// What each site has of both: a log and a mirror.
const RECORDS: [&str; 2] = ["FH_RECORDS_ewr", "FH_RECORDS_jfk"];
const OTHER_LOGS: [&str; 4] = ["FH_COMMANDS_ewr", "FH_DEADLETTER_ewr", "FH_STRANDED_ewr", "KV_FH_MEMBERS_ewr"];

/// A server with the key of jfk's link, and nothing that keeps anybody from anything. Who is in LINK is on the link itself, who is in
/// READER gets answers, as services do.
const HOSTILE: &str = r#"
server_name: "hostile"
listen: "127.0.0.1:4224"
accounts {
  LINK { users: [ { user: link, password: link } ], exports: [ { service: "JS.ewr.API.>" } ] }
  READER {
    users: [ { user: reader, password: reader } ]
    imports: [ { service: { account: LINK, subject: "JS.ewr.API.>" } } ]
  }
}
leafnodes {
  remotes: [ { urls: ["tls://127.0.0.1:7422"], account: LINK, nkey: $NATS_JFK_LINK_SEED, tls { ca_file: "tls/ca.pem" } } ]
}
"#;
const READ: &str = "JS.ewr.API.STREAM.INFO.FH_RECORDS_ewr";

/// Both sites with their streams, an instance at each, and a caller of each.
struct Given {
    deployment: Deployment,
    secrets: Secrets,
    services: Vec<InstanceProcess>,
    ewr: Client,
    jfk: Client,
}

impl Given {
    async fn new() -> Result<Self> {
        let secrets = Secrets::new(&SITES.map(|site| Some(site.name)))?;
        let mut deployment = Deployment::start_with("secure-two-sites", secrets.setup(None)?).await?;
        for site in SITES {
            let options =
                connect_options(&deployment.directory(), at(site, Role::Operator), &url(&mut deployment, site)?);
            // As `freehold provision` asks it.
            let operator = Connection::open(&options, "operator").await?.in_domain(&site.name.parse()?);
            let kind = counter::definition();
            let mut options =
                ProvisionOptions::new(site.name.parse()?, vec![(kind.name.clone(), kind.shared_settings())]);
            options.sites = names()?;
            options.mirror_consumers = true;
            plan(&operator, &options).await?.carry_out(&operator).await?;
            let again = plan(&operator, &options).await?.steps;
            ensure!(again.is_empty(), "{again:?} is still to be done");
        }
        let (mut services, mut callers) = (Vec::new(), Vec::new());
        for site in SITES {
            let url = url(&mut deployment, site)?;
            let directory = deployment.directory().join(format!("service-{}", site.name));
            std::fs::create_dir(&directory)?;
            let mut config = ServiceConfig::new(site.name.parse()?, "one".parse()?, &url, directory.join("copy"));
            config.nats = connect_options(&deployment.directory(), at(site, Role::Service), &url);
            config.sites = names()?;
            config.provision = false;
            services.push(InstanceProcess::start(SERVICE, &config, &directory).await?);
            let options = connect_options(&deployment.directory(), at(site, Role::Caller), &url);
            callers.push(Client::connect(&options, "caller").await?);
        }
        for (client, record) in [(&callers[0], "jfk-linked"), (&callers[1], "ewr-linked")] {
            let decided = || async { add(client, record, 1).await.is_ok() };
            wait_until("a command is decided by the other site", SOON, decided).await?;
        }
        let [ewr, jfk] = callers.try_into().ok().context("there are two sites")?;
        Ok(Self { deployment, secrets, services, ewr, jfk })
    }

    async fn operator(&mut self, site: SiteAt) -> Result<Client> {
        let url = url(&mut self.deployment, site)?;
        Client::connect(&connect_options(&self.deployment.directory(), at(site, Role::Operator), &url), "operator")
            .await
            .map_err(Into::into)
    }

    /// A connection as somebody, to a site that need not be his own.
    async fn plain(&mut self, who: Who, to: SiteAt) -> Result<async_nats::Client> {
        let url = url(&mut self.deployment, to)?;
        self.secrets.plain(&self.deployment.directory(), who, &url).await
    }

    fn log(&self, site: SiteAt) -> Result<&std::path::Path> {
        Ok(self.deployment.server(&format!("{}.conf", site.name))?.log_path())
    }
}

fn at(site: SiteAt, role: Role) -> Who {
    Who { site: Some(site.name), role }
}

fn url(deployment: &mut Deployment, site: SiteAt) -> Result<String> {
    Ok(deployment.urls(site)?.replace("nats://", "tls://"))
}

fn names() -> Result<Vec<SiteName>> {
    SITES.iter().map(|site| Ok(site.name.parse()?)).collect()
}

async fn add(client: &Client, record: &str, number: u64) -> Result<()> {
    let body = json!({ "id": record, "amount": 1, "client": "me", "number": number });
    let answer = workload::send(client, "add", &body, None).await?;
    workload::reply::<counter::Total>(&answer).with_context(|| format!("{record} {number}")).map(drop)
}

/// The same until the other site has it, too.
async fn add_confirmed(client: &Client, record: &str, number: u64) -> Result<()> {
    let body = json!({ "id": record, "amount": 1, "client": "me", "number": number }).to_string();
    let command_id = Some(CommandId::from_caller(&format!("{record}-{number}"))?);
    let options = SendOptions { command_id, wait: Some("sites=1".to_owned()), ..SendOptions::default() };
    let confirmed = || async {
        let answer = client.request(&workload::kind(), "add", body.clone().into(), &options).await;
        answer.is_ok_and(|answer| answer.result.is_ok())
    };
    wait_until("the other site has it, too", SOON, confirmed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sites_work_with_each_other_without_meeting_a_refusal() -> Result<()> {
    let mut given = Given::new().await?;
    for number in 1..=20 {
        add(&given.ewr, "ewr-1", number).await?;
        add(&given.jfk, "jfk-1", number).await?;
        // Decided by the other site.
        add(&given.ewr, "jfk-2", number).await?;
        add(&given.jfk, "ewr-2", number).await?;
    }
    add_confirmed(&given.ewr, "ewr-1", 21).await?;
    for (record, version) in [("ewr-1", 21), ("jfk-1", 20), ("ewr-2", 20), ("jfk-2", 20)] {
        for client in [&given.ewr, &given.jfk] {
            let counter = workload::read_at_least(client, record, version).await?;
            ensure!(counter.changes == version && counter.breaches.is_empty(), "{record}: {counter:?}");
        }
    }

    // The link breaks, and what was sent meanwhile is copied when it is there again.
    let ewr_server = given.deployment.server("ewr.conf")?;
    ewr_server.kill().await?;
    for number in 21..=30 {
        add(&given.jfk, "jfk-1", number).await?;
    }
    ewr_server.restart().await?;
    let copied = || async { workload::changes(&given.ewr, "jfk-1").await.is_ok_and(|changes| changes == 30) };
    wait_until("what was decided meanwhile is copied", SOON, copied).await?;

    add_confirmed(&given.jfk, "jfk-1", 31).await?;

    // A site is lost, taken over, comes back as a copy, and gets its records again.
    let jfk_server = given.deployment.server("jfk.conf")?;
    given.services[1].process().kill().await?;
    jfk_server.kill().await?;
    let operator = given.operator(EWR).await?;
    let taken = take_over(&operator, "jfk", &["ewr"]).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    ensure!(taken.answer.is_ready, "{taken:?}");
    add(&given.ewr, "jfk-1", 32).await?;
    given.deployment.server("jfk.conf")?.restart().await?;
    let url = url(&mut given.deployment, JFK)?;
    let directory = given.deployment.directory();
    let up = || async { given.secrets.plain(&directory, at(JFK, Role::Operator), &url).await.is_ok() };
    wait_until("the server is up", SOON, up).await?;
    given.services[1].restart().await?;
    let copied = || async { workload::changes(&given.jfk, "jfk-1").await.is_ok_and(|changes| changes == 32) };
    wait_until("what was decided meanwhile is copied", SOON, copied).await?;
    let home = || async { give_back(&operator, "ewr", "jfk", &["jfk-1".to_owned()]).await.is_ok() };
    wait_until("the record is given back", SOON, home).await?;
    let owned = || async {
        let body = json!({ "id": "jfk-1", "amount": 1 });
        let answer = workload::send(&given.jfk, "add", &body, None).await;
        answer.is_ok_and(|answer| answer.owner.is_some_and(|owner| owner.as_str() == "jfk"))
    };
    wait_until("its own site decides again", SOON, owned).await?;
    let version = workload::read(&given.jfk, "jfk-1").await?.changes;
    ensure!(workload::read_at_least(&given.ewr, "jfk-1", version).await?.breaches.is_empty());

    for site in SITES {
        let refused = violations(given.log(site)?)?;
        ensure!(refused.is_empty(), "at {}: {refused:#?}", site.name);
    }
    Ok(())
}

/// Whatever a site's own server lets through: who has the key of its link asks the other server himself.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_may_read_at_the_other_and_do_nothing_else() -> Result<()> {
    let mut given = Given::new().await?;
    add(&given.ewr, "ewr-1", 1).await?;
    add(&given.jfk, "ewr-1", 2).await?;
    let own = given.plain(at(EWR, Role::Operator), EWR).await?;
    let before = peer::logs(&own, "ewr").await?;

    // Each role of jfk, at its own server: what is ewr's is refused there.
    let changes: Vec<_> = CHANGES.iter().copied().chain(["CONSUMER.CREATE", "CONSUMER.MSG.NEXT"]).collect();
    let all: Vec<_> = RECORDS.iter().chain(&OTHER_LOGS).copied().collect();
    let at_ewr = |subject: String| subject.replacen("$JS.", "$JS.ewr.", 1);
    let mut refused: Vec<_> = api(&all, &changes).into_iter().map(at_ewr).collect();
    refused.extend(api(&OTHER_LOGS, &["STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"]).into_iter().map(at_ewr));
    refused.extend(peer::subjects("ewr"));
    refused.extend(["fh.ewr.adm.counter.rehome", "fh.ewr.ins.one.x.digest", "fh.ewr.mirror.jfk"].map(str::to_owned));
    let log = given.log(JFK)?.to_owned();
    for role in [Role::Service, Role::Operator, Role::Caller] {
        let client = given.plain(at(JFK, role), JFK).await?;
        ensure_all_refused(&client, &log, &refused).await.with_context(|| format!("{role:?}"))?;
        let stranger = given.plain(at(JFK, role), EWR).await;
        ensure!(stranger.is_err(), "{role:?} of jfk is let in at ewr");
    }

    // Somebody has jfk's server in hand, and the key of its link.
    given.deployment.add_server("hostile.conf", HOSTILE).await?;
    let url = given.deployment.urls(SiteAt { name: "jfk", ports: &[4224] })?;
    let connect =
        |who: &str| async_nats::ConnectOptions::with_user_and_password(who.into(), who.into()).connect(url.clone());
    let (hostile, reader) = (connect("link").await?, connect("reader").await?);
    let reads = || async { reader.request(READ, "".into()).await.is_ok_and(|answer| !answer.payload.is_empty()) };
    wait_until("the hostile server is linked", SOON, reads).await?;
    // It reaches nobody with anything that changes something, and with no log or service.
    let named = |subject: String| subject.replacen("$JS.API.", "JS.ewr.API.", 1);
    let mut nobody: Vec<_> = api(&all, &changes).into_iter().map(named).collect();
    nobody.extend(api(&OTHER_LOGS, &["STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"]).into_iter().map(named));
    nobody.extend(peer::subjects("ewr"));
    nobody.extend(["fh.ewr.adm.counter.rehome", "fh.ewr.ins.one.x.digest", "freehold.counter.add"].map(str::to_owned));
    for subject in nobody {
        let answer = hostile.request(subject.clone(), "{}".into()).await;
        let refused = answer.as_ref().is_err_and(|error| error.kind() == RequestErrorKind::NoResponders);
        ensure!(refused, "{subject}: {answer:?}");
    }
    // What it may ask, with a place in a log of ewr for the answer.
    let asked = [
        (READ, ""),
        ("JS.ewr.API.STREAM.MSG.GET.FH_RECORDS_ewr", r#"{"seq":1}"#),
        ("JS.ewr.API.DIRECT.GET.FH_RECORDS_ewr", r#"{"seq":1,"batch":10}"#),
        ("JS.ewr.API.CONSUMER.RESET.FH_RECORDS_ewr.FH_MIRROR_jfk", r#"{"seq":1}"#),
        ("$JS.FC.FH_RECORDS_ewr.any.1", ""),
    ];
    for (request, body) in asked {
        for place in peer::subjects("ewr") {
            hostile.publish_with_reply(request, place, body.into()).await?;
        }
    }
    hostile.flush().await?;
    // Behind all of those on the link.
    ensure!(reads().await, "the last request was not answered");
    peer::ensure_nothing_stored(&own, "ewr").await?;
    peer::ensure_kept(&own, "ewr", &before).await?;
    for number in 3..=10 {
        add(&given.jfk, "ewr-1", number).await?;
    }
    let counter = workload::read_at_least(&given.jfk, "ewr-1", 10).await?;
    ensure!(counter.changes == 10 && counter.breaches.is_empty(), "{counter:?}");

    // That a place in a log would be seen: within the account it is taken, which is why no other site is in it.
    own.publish_with_reply("$JS.API.STREAM.INFO.FH_RECORDS_ewr", "fh.ewr.dead.counter.63.forged", "".into()).await?;
    let seen = || async { peer::ensure_nothing_stored(&own, "ewr").await.is_err() };
    wait_until("an answer is found in a log", SOON, seen).await?;
    Ok(())
}
