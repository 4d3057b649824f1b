//! P4: copies converge after every cut, and say how old they are meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, RunningService};
use freehold_core::{CopyRead as _, CopyWrite as _, GroupCount, Hash, Json, RecordId, RecordPlace, StreamSequence};
use freehold_sandbox::{Sandbox, wait_until};
use freehold_store::{Options, Store};
use freehold_tests::place::InstanceProcess;
use freehold_tests::{counter, place, workload};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
/// How long a link is cut. The server's own mirror often needs longer than this after the link is back.
const CUT: Duration = Duration::from_secs(15);
/// What copies may take to be equal after a heal.
const EQUAL_WITHIN: Duration = Duration::from_secs(5);
const UPDATES: u64 = 500;
/// What there is before a site is added.
const RECORDS: usize = 5_000;

struct Sites {
    sandbox: Sandbox,
    services: Vec<RunningService>,
    ewr: Client,
    jfk: Client,
    _data: tempfile::TempDir,
}

async fn two_sites() -> Result<Sites> {
    let sandbox = Sandbox::builder().site("ewr").site("jfk").cuttable(true).start().await?;
    let data = tempfile::tempdir()?;
    let mut services = Vec::new();
    for name in ["ewr", "jfk"] {
        services.push(service(&sandbox, name, data.path()).await?);
    }
    let (ewr, jfk) = (place::client(sandbox.site("ewr")).await?, place::client(sandbox.site("jfk")).await?);
    Ok(Sites { sandbox, services, ewr, jfk, _data: data })
}

/// Starts the instance of one of the two sites.
async fn service(sandbox: &Sandbox, site: &str, data: &Path) -> Result<RunningService> {
    let mut config = place::config(sandbox.site(site), "one", data)?;
    config.sites = vec!["ewr".parse()?, "jfk".parse()?];
    place::start(config, counter::definition()).await
}

/// The age that one site's service gives its copy of the other's records.
async fn age_ms(client: &Client, origin: &str) -> Result<Option<u64>> {
    let statuses = workload::statuses(client, Duration::from_millis(100)).await?;
    Ok(statuses.iter().map(|status| &status["age_ms"][origin]).find(|age| !age.is_null()).and_then(|age| age.as_u64()))
}

async fn changes(client: &Client, record: &str) -> u64 {
    workload::read(client, record).await.map(|counter| counter.changes).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_equal_soon_after_a_cut_and_their_age_is_told_during_it() -> Result<()> {
    let sites = two_sites().await?;
    let Sites { sandbox, services, ewr, jfk, .. } = sites;
    let add = json!({ "id": "ewr-1", "amount": 1 });
    workload::send(&ewr, "add", &add, None).await?;
    let copied = || async { changes(&jfk, "ewr-1").await == 1 };
    wait_until("the first update is copied", SOON, copied).await?;
    let young = || async { age_ms(&jfk, "ewr").await.is_ok_and(|age| age.is_some_and(|age| age < 2_000)) };
    wait_until("the copy is known to be young", SOON, young).await?;

    sandbox.cut("ewr").await?;
    let cut = Instant::now();
    for _ in 1..UPDATES {
        workload::send(&ewr, "add", &add, None).await?;
    }
    let old = || async {
        let told = age_ms(&jfk, "ewr").await.ok().flatten().unwrap_or_default();
        cut.elapsed() > CUT && told > 10_000
    };
    wait_until("the cut has lasted, and the copy says so", SOON, old).await?;
    ensure!(changes(&jfk, "ewr-1").await < UPDATES, "the link was not cut");
    ensure!(changes(&jfk, "ewr-1").await > 0, "a cut-off site does not read");

    sandbox.heal("ewr")?;
    sandbox.wait_linked("ewr").await?;
    let healed = Instant::now();
    let equal = || async { changes(&jfk, "ewr-1").await == UPDATES };
    wait_until("the copies are equal", SOON, equal).await?;
    ensure!(healed.elapsed() < EQUAL_WITHIN, "the copies were equal only after {:?}", healed.elapsed());
    wait_until("the copy is young again", SOON, young).await.context("after the heal")?;
    for service in services {
        service.stop().await;
    }
    Ok(())
}

/// Its mirror is made a moment before, and is empty: that is not all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_at_a_new_site_is_ready_when_it_has_what_the_others_had() -> Result<()> {
    let sandbox = Sandbox::builder().site("ewr").site("jfk").start().await?;
    let data = tempfile::tempdir()?;
    let first = service(&sandbox, "ewr", data.path()).await?;
    let (ewr, jfk) = (place::client(sandbox.site("ewr")).await?, place::client(sandbox.site("jfk")).await?);
    let records: Vec<_> = (0..RECORDS).map(|number| format!("ewr-{number}")).collect();
    let ewr = &ewr;
    let added = records.iter().map(|record| async move {
        let body = json!({ "id": record, "amount": 1 });
        workload::reply::<counter::Total>(&workload::send(ewr, "add", &body, None).await?)
    });
    let added: Vec<_> = stream::iter(added).buffer_unordered(64).try_collect().await?;
    ensure!(added.len() == RECORDS);
    let joined = service(&sandbox, "jfk", data.path()).await?;
    for record in records.iter().rev().step_by(50) {
        ensure!(changes(&jfk, record).await == 1, "{record} was not there when the instance was ready");
    }
    joined.stop().await;
    first.stop().await;
    Ok(())
}

/// A mirror can stand still for more than a minute after a cut, and for good when somebody has frozen it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_although_its_mirror_stands_still() -> Result<()> {
    let Sites { sandbox, services, ewr, jfk, .. } = two_sites().await?;
    let add = json!({ "id": "ewr-1", "amount": 1 });
    workload::send(&ewr, "add", &add, None).await?;
    let copied = || async { changes(&jfk, "ewr-1").await == 1 };
    wait_until("the first update is copied", SOON, copied).await?;

    let jetstream = async_nats::jetstream::new(async_nats::connect(place::urls(sandbox.site("jfk"))).await?);
    let mut mirror = jetstream.get_stream("FH_RECORDS_ewr").await?;
    let frozen_at = mirror.info().await?.state.last_sequence;
    let mut frozen = mirror.cached_info().config.clone();
    frozen.mirror = None;
    jetstream.update_stream(&frozen).await?;
    for _ in 1..UPDATES {
        workload::send(&ewr, "add", &add, None).await?;
    }
    let sent = Instant::now();
    let equal = || async { changes(&jfk, "ewr-1").await == UPDATES };
    wait_until("the copies are equal", SOON, equal).await?;
    ensure!(sent.elapsed() < EQUAL_WITHIN, "the copies were equal only after {:?}", sent.elapsed());
    ensure!(
        mirror.info().await?.state.last_sequence == frozen_at,
        "the mirror did not stand still: this shows nothing"
    );
    let young = || async { age_ms(&jfk, "ewr").await.is_ok_and(|age| age.is_some_and(|age| age < 2_000)) };
    wait_until("the copy is known to be young", SOON, young).await?;
    for service in services {
        service.stop().await;
    }
    Ok(())
}

/// S46: a record is changed in one instance's copy, behind everybody's back and with a sound file. The owner's digests of its
/// group show it: the copy is made anew from the logs.
#[tokio::test(flavor = "multi_thread")]
async fn s46_a_copy_that_has_diverged_is_found_by_its_digest_and_made_anew() -> Result<()> {
    let sandbox = Sandbox::builder().site("ewr").site("jfk").start().await?;
    let data = tempfile::tempdir()?;
    let mut instances = Vec::new();
    for site in ["ewr", "jfk"] {
        let directory = data.path().join(site);
        std::fs::create_dir_all(&directory)?;
        let mut config = place::config(sandbox.site(site), "one", &directory)?;
        config.sites = vec!["ewr".parse()?, "jfk".parse()?];
        instances.push(InstanceProcess::start(env!("CARGO_BIN_EXE_e2e-service"), &config, &directory).await?);
    }
    let (ewr, jfk) = (place::client(sandbox.site("ewr")).await?, place::client(sandbox.site("jfk")).await?);
    let groups = GroupCount::DEFAULT;
    let flipped: RecordId = "ewr-flipped".parse()?;
    let group = groups.group_of(&flipped);
    let neighbour = place::record_in_group("ewr", groups, group.0);
    workload::send(&ewr, "add", &json!({ "id": flipped, "amount": 1 }), None).await?;
    let copied = || async { changes(&jfk, flipped.as_str()).await == 1 };
    wait_until("the update is copied", SOON, copied).await?;

    instances[1].process().kill().await?;
    let path = data.path().join("jfk").join("jfk-one.redb");
    let (mut writer, reader) = Store::open(&Options::new(path, "jfk".parse()?, "one".parse()?))?.into_parts();
    let (kind, origin) = (workload::kind(), "ewr".parse()?);
    let before = reader.snapshot()?.record(&kind, &flipped)?.context("the record is not there")?;
    let mut state = before.clone();
    state.record = Some(Json::from_value(&counter::Counter { changes: 99, ..counter::Counter::default() })?);
    state.hash = Hash::of([b"what nobody has logged".as_slice()]);
    let place = RecordPlace { origin: &origin, kind: &kind, group, id: &flipped, cut: StreamSequence(0) };
    writer.transact(|tables| tables.put_record(&place, Some(&before), &state).map_err(anyhow::Error::from))?;
    drop((writer, reader));
    instances[1].restart().await?;
    ensure!(changes(&jfk, flipped.as_str()).await == 99, "it was not flipped: this shows nothing");

    let mut sent = 0;
    let deadline = Instant::now() + SOON;
    let rebuilt = async |instance: &InstanceProcess| {
        instance
            .process()
            .wait_for_line("the copy is rebuilt from the streams", Duration::from_millis(1_500))
            .await
            .is_ok()
    };
    while !rebuilt(&instances[1]).await {
        ensure!(Instant::now() < deadline, "the divergence is not found");
        workload::send(&ewr, "add", &json!({ "id": neighbour, "amount": 1 }), None).await?;
        sent += 1;
    }
    let mended = || async { changes(&jfk, flipped.as_str()).await == 1 && changes(&jfk, &neighbour).await == sent };
    Ok(wait_until("the copy is right again", SOON, mended).await?)
}
