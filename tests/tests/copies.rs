//! P4: copies converge after every cut, and say how old they are meanwhile.

#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, RunningService};
use freehold_core::{
    CopyRead as _, CopyWrite as _, GroupCount, Hash, Json, RecordId, RecordPlace, SiteName, StreamSequence,
};
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
/// Between two changes during cuts.
const BETWEEN_CHANGES: Duration = Duration::from_millis(50);
/// Updates of a record that a log keeps, and more.
const BEYOND_THE_HISTORY: u64 = 80;
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

/// Cuts the links of sites for so long, all from now on, while another site changes a record; each must have all that there is soon after
/// its own heal.
async fn cuts(sites: &[(&str, Duration)]) -> Result<()> {
    let builder = sites.iter().fold(Sandbox::builder().site("ewr"), |builder, (site, _)| builder.site(*site));
    let sandbox = builder.cuttable(true).start().await?;
    let data = tempfile::tempdir()?;
    let mut names: Vec<SiteName> = vec!["ewr".parse()?];
    for (site, _) in sites {
        names.push(site.parse()?);
    }
    let mut services = Vec::new();
    for site in &names {
        let mut config = place::config(sandbox.site(site.as_str()), "one", data.path())?;
        config.sites = names.clone();
        services.push(place::start(config, counter::definition()).await?);
    }
    let ewr = place::client(sandbox.site("ewr")).await?;
    let sent = AtomicU64::new(0);
    let add = async || {
        workload::send(&ewr, "add", &json!({ "id": "ewr-1", "amount": 1 }), None).await?;
        anyhow::Ok(sent.fetch_add(1, Ordering::Relaxed) + 1)
    };
    add().await?;
    let watched = sites.iter().map(|(site, length)| {
        let (sandbox, sent) = (&sandbox, &sent);
        async move {
            let client = place::client(sandbox.site(site)).await?;
            let copied = || async { changes(&client, "ewr-1").await > 0 };
            wait_until("the first update is copied", SOON, copied).await?;
            sandbox.cut(site).await?;
            tokio::time::sleep(*length).await;
            let (there, here) = (sent.load(Ordering::Relaxed), changes(&client, "ewr-1").await);
            ensure!(here < there, "{site} was not cut off: it has {here} of {there} changes");
            sandbox.heal(site)?;
            sandbox.wait_linked(site).await?;
            let (healed, wanted) = (Instant::now(), sent.load(Ordering::Relaxed));
            let equal = || async { changes(&client, "ewr-1").await >= wanted };
            wait_until("the copies are equal", SOON, equal).await?;
            let took = healed.elapsed();
            println!("{site}: equal {took:?} after a cut of {length:?}, {} changes behind", wanted - here);
            ensure!(took < EQUAL_WITHIN, "{site}: the copies were equal only after {took:?}");
            anyhow::Ok(())
        }
    });
    let work = async {
        loop {
            add().await?;
            tokio::time::sleep(BETWEEN_CHANGES).await;
        }
    };
    tokio::select! {
        watched = futures::future::try_join_all(watched) => { watched?; }
        stopped = work => return stopped,
    }
    for service in services {
        service.stop().await;
    }
    Ok(())
}

/// S43, but for the long cuts.
#[tokio::test(flavor = "multi_thread")]
async fn s43_copies_are_equal_soon_after_a_cut_however_long_it_was() -> Result<()> {
    cuts(&[("jfk", Duration::from_secs(3)), ("lga", Duration::from_secs(15))]).await
}

/// S43: the long cuts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes four minutes, in which nothing happens"]
async fn s43_copies_are_equal_soon_after_a_cut_of_one_or_four_minutes() -> Result<()> {
    cuts(&[("jfk", Duration::from_secs(65)), ("lga", Duration::from_secs(240))]).await
}

/// S44: a record is deleted and created again while a site is cut off, and changed so often that the log has dropped all of it that
/// the site was to read next.
#[tokio::test(flavor = "multi_thread")]
async fn s44_a_record_deleted_and_created_again_during_a_cut_is_equal_after_it() -> Result<()> {
    let Sites { sandbox, services, ewr, jfk, .. } = two_sites().await?;
    let add = json!({ "id": "ewr-1", "amount": 1 });
    for _ in 0..3 {
        workload::send(&ewr, "add", &add, None).await?;
    }
    let gone = json!({ "id": "ewr-gone", "amount": 1 });
    workload::send(&ewr, "add", &gone, None).await?;
    let copied = || async { changes(&jfk, "ewr-1").await == 3 && changes(&jfk, "ewr-gone").await == 1 };
    wait_until("the first updates are copied", SOON, copied).await?;
    sandbox.cut("jfk").await?;
    for id in ["ewr-1", "ewr-gone"] {
        workload::send(&ewr, "clear", &json!({ "id": id }), None).await?;
    }
    for _ in 0..BEYOND_THE_HISTORY {
        workload::send(&ewr, "add", &add, None).await?;
    }
    sandbox.heal("jfk")?;
    sandbox.wait_linked("jfk").await?;
    let equal = || async { changes(&jfk, "ewr-1").await == BEYOND_THE_HISTORY && changes(&jfk, "ewr-gone").await == 0 };
    wait_until("the copies are equal", SOON, equal).await?;
    // Versions go on counting through the deletion, at every site.
    let answer = workload::send(&jfk, "add", &add, Some("after")).await?;
    let versions = 3 + 1 + BEYOND_THE_HISTORY + 1;
    ensure!(answer.version.is_some_and(|version| version.0 == versions), "{answer:?}");
    let again = workload::send(&jfk, "add", &gone, Some("again")).await?;
    ensure!(again.version.is_some_and(|version| version.0 == 3), "{again:?}");
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
