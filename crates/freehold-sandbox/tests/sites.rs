//! Several sites: mirrors through the hub, what peers may not write, cuts, clusters.

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream;
use freehold_sandbox::{
    JetStreamOptions, LeafListenOptions, LeafRemote, Sandbox, SandboxError, Server, ServerOptions, SiteKind, wait_until,
};
use futures::StreamExt;
use support::{binary, create_mirror, create_stream, jetstream, publish, stored};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a message that should not arrive: those that should take a millisecond.
const A_WHILE: Duration = Duration::from_millis(300);

async fn wait_stored(context: &jetstream::Context, stream: &str, count: u64) -> Result<()> {
    let what = format!("{count} messages in {stream}");
    Ok(wait_until(&what, SOON, || async { matches!(stored(context, stream).await, Ok(stored) if stored == count) })
        .await?)
}

#[tokio::test]
async fn mirrors_flow_between_all_sites_through_the_hub() -> Result<()> {
    let names = ["ewr", "jfk", "lhr"];
    let sandbox = Sandbox::builder().site("ewr").site("jfk").site("lhr").start().await?;
    let mut contexts = Vec::new();
    for name in names {
        let context = jetstream(&sandbox.site(name).url()).await?;
        create_stream(&context, &format!("FH_RECORDS_{name}"), &format!("fh.{name}.rec.>"), 1).await?;
        contexts.push(context);
    }
    for (name, context) in names.iter().zip(&contexts) {
        for origin in names.iter().filter(|origin| *origin != name) {
            create_mirror(context, &format!("FH_RECORDS_{origin}"), origin).await?;
        }
    }
    for (name, context) in names.iter().zip(&contexts) {
        for _ in 0..5 {
            publish(context, &format!("fh.{name}.rec.flight.0.a")).await?;
        }
    }
    for context in &contexts {
        for origin in names {
            wait_stored(context, &format!("FH_RECORDS_{origin}"), 5).await?;
        }
    }
    sandbox.stop().await?;
    Ok(())
}

/// Why a site's link denies imports: core messages cross leaf node links, and what jfk publishes on a subject of ewr's
/// stream is stored there. `deny_exports` on the same link would not help: it is about what ewr sends.
#[tokio::test]
async fn without_the_denial_a_peers_publish_is_stored() -> Result<()> {
    let directory = TempDir::new()?;
    let binary = binary().await?;
    let mut hub = ServerOptions::new("hub", directory.path().join("hub"));
    hub.leaf_listen = Some(LeafListenOptions::default());
    let hub = Server::start(&binary, hub).await?;
    let mut servers = Vec::new();
    for name in ["ewr", "jfk"] {
        let mut site = ServerOptions::new(name, directory.path().join(name));
        site.jetstream = Some(JetStreamOptions::in_domain(name));
        let mut remote = LeafRemote::new(format!("nats-leaf://127.0.0.1:{}", hub.leaf_port().expect("it listens")));
        if name == "ewr" {
            remote.deny_exports = vec!["fh.ewr.rec.>".to_owned()];
        }
        site.leaf_remotes = vec![remote];
        servers.push(Server::start(&binary, site).await?);
    }
    let ewr = jetstream(&servers[0].url()).await?;
    let jfk = jetstream(&servers[1].url()).await?;
    create_stream(&ewr, "FH_rec", "fh.ewr.rec.>", 1).await?;
    wait_until("the publish to be stored", SOON, || async {
        publish(&jfk, "fh.ewr.rec.flight.0.a").await.is_ok()
            || stored(&ewr, "FH_rec").await.is_ok_and(|count| count > 0)
    })
    .await?;
    assert!(stored(&ewr, "FH_rec").await? > 0);
    Ok(())
}

/// The open subject shows that the link carries.
#[tokio::test]
async fn a_peer_cannot_write_into_another_sites_streams() -> Result<()> {
    let sandbox = Sandbox::builder().site("ewr").site("jfk").start().await?;
    let ewr = jetstream(&sandbox.site("ewr").url()).await?;
    let jfk = jetstream(&sandbox.site("jfk").url()).await?;
    for class in ["cmd", "rec", "res", "ctl", "fwd", "dead"] {
        create_stream(&ewr, &format!("FH_{class}"), &format!("fh.ewr.{class}.>"), 1).await?;
    }
    create_stream(&ewr, "OPEN", "open.>", 1).await?;
    create_mirror(&jfk, "FH_rec", "ewr").await?;

    // Answered, so the interest has reached jfk's server, and with it that in the others which were there before.
    wait_until("the open subject to be answered", SOON, || async { publish(&jfk, "open.a").await.is_ok() }).await?;
    for class in ["cmd", "rec", "res", "ctl", "fwd", "dead"] {
        let answer = publish(&jfk, &format!("fh.ewr.{class}.flight.0.a")).await;
        assert!(answer.is_err(), "{class} answered {answer:?}");
    }
    publish(&jfk, "open.b").await?;
    for class in ["cmd", "rec", "res", "ctl", "fwd", "dead"] {
        assert_eq!(stored(&ewr, &format!("FH_{class}")).await?, 0, "{class}");
    }

    publish(&ewr, "fh.ewr.rec.flight.0.a").await?;
    wait_stored(&jfk, "FH_rec", 1).await?;
    Ok(())
}

#[tokio::test]
async fn a_cut_site_works_alone_and_is_caught_up_with_after_the_heal() -> Result<()> {
    let sandbox = Sandbox::builder().site("ewr").site("jfk").cuttable(true).start().await?;
    let ewr = jetstream(&sandbox.site("ewr").url()).await?;
    let jfk = jetstream(&sandbox.site("jfk").url()).await?;
    create_stream(&ewr, "KEPT", "kept.>", 1).await?;
    create_mirror(&jfk, "KEPT", "ewr").await?;
    publish(&ewr, "kept.a").await?;
    wait_stored(&jfk, "KEPT", 1).await?;

    sandbox.cut("ewr").await?;
    wait_until("ewr to notice", SOON, || async { !sandbox.site("ewr").is_linked().await }).await?;
    assert!(sandbox.site("jfk").is_linked().await, "only ewr is cut off");
    publish(&ewr, "kept.b").await?;
    assert_eq!(stored(&ewr, "KEPT").await?, 2);
    let arrives = wait_until("arrival", A_WHILE, || async { stored(&jfk, "KEPT").await.unwrap() > 1 }).await;
    assert!(arrives.is_err());

    sandbox.heal("ewr")?;
    sandbox.wait_linked("ewr").await?;
    wait_stored(&jfk, "KEPT", 2).await?;

    // Shorter than anybody could notice: the connection is closed all the same.
    sandbox.cut("ewr").await?;
    sandbox.heal("ewr")?;
    sandbox.wait_linked("ewr").await?;
    Ok(())
}

/// Fault tests do things to a sandbox from tasks of their own: all of it must be `Send` and take `&self`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_can_be_used_from_several_tasks() -> Result<()> {
    let sandbox = tokio::spawn(Sandbox::builder().site("ewr").site("jfk").cuttable(true).start()).await??;
    let sandbox = Arc::new(sandbox);
    let tasks = ["ewr", "jfk"].map(|name| {
        let sandbox = Arc::clone(&sandbox);
        tokio::spawn(async move {
            sandbox.cut(name).await?;
            let server = sandbox.site(name).server();
            server.pause().await?;
            server.resume()?;
            server.kill().await?;
            server.restart().await?;
            sandbox.heal(name)?;
            sandbox.wait_linked(name).await
        })
    });
    for task in tasks {
        task.await??;
    }
    Ok(())
}

#[tokio::test]
async fn the_hub_can_be_killed_and_started_again() -> Result<()> {
    let sandbox = Sandbox::builder().site("ewr").site("jfk").start().await?;
    let hub = sandbox.hub().expect("two sites have a hub").server();
    hub.kill().await?;
    wait_until("the links to end", SOON, || async { !sandbox.site("jfk").is_linked().await }).await?;
    hub.restart().await?;
    sandbox.wait_linked("ewr").await?;
    sandbox.wait_linked("jfk").await?;
    Ok(())
}

#[tokio::test]
async fn a_cluster_goes_on_without_one_server() -> Result<()> {
    let sandbox = Sandbox::builder().clustered_site("ewr").start().await?;
    let site = sandbox.site("ewr");
    assert_eq!((site.kind(), site.servers().len()), (SiteKind::Cluster3, 3));
    let context = jetstream::new(async_nats::connect(site.urls()).await?);
    create_stream(&context, "KEPT", "kept.>", 3).await?;
    wait_until("the new stream takes a publish", SOON, || async { publish(&context, "kept.a").await.is_ok() }).await?;

    let leader = site.meta_leader().await.expect("a complete cluster has a leader");
    leader.kill().await?;
    wait_until("a publish without one server", SOON, || async { publish(&context, "kept.b").await.is_ok() }).await?;
    leader.restart().await?;
    site.wait_complete().await?;
    leader.wait_healthy(SOON).await?;

    Ok(())
}

/// Each server of a cluster has a link of its own to the hub: a message must still arrive once, and a mirror flow.
#[tokio::test]
async fn a_cluster_and_a_single_site_meet_at_the_hub() -> Result<()> {
    let sandbox = Sandbox::builder().clustered_site("ewr").site("jfk").cuttable(true).start().await?;
    let ewr = jetstream::new(async_nats::connect(sandbox.site("ewr").urls()).await?);
    let jfk = jetstream(&sandbox.site("jfk").url()).await?;
    create_stream(&ewr, "KEPT", "kept.>", 3).await?;
    create_mirror(&jfk, "KEPT", "ewr").await?;
    wait_until("the new stream takes a publish", SOON, || async { publish(&ewr, "kept.a").await.is_ok() }).await?;
    wait_stored(&jfk, "KEPT", 1).await?;

    let mut subscribers = Vec::new();
    for url in sandbox.site("ewr").urls() {
        let client = async_nats::connect(url).await?;
        subscribers.push(client.subscribe("seen.>").await?);
        client.flush().await?;
    }
    let sender = async_nats::connect(sandbox.site("jfk").url()).await?;
    for subscriber in &mut subscribers {
        // Until the interest has reached jfk, the probes are lost.
        let probing = async {
            loop {
                sender.publish("seen.probe", "".into()).await?;
                if let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(20), subscriber.next()).await {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(SOON, probing).await??;
    }
    sender.publish("seen.once", "".into()).await?;
    sender.publish("seen.end", "".into()).await?;
    for subscriber in &mut subscribers {
        let mut seen = 0;
        while let Ok(Some(message)) = tokio::time::timeout(SOON, subscriber.next()).await {
            match message.subject.as_str() {
                "seen.once" => seen += 1,
                "seen.end" => break,
                _ => {}
            }
        }
        assert_eq!(seen, 1);
    }

    sandbox.cut("ewr").await?;
    publish(&ewr, "kept.b").await?;
    sandbox.heal("ewr")?;
    sandbox.wait_linked("ewr").await?;
    wait_stored(&jfk, "KEPT", 2).await?;
    Ok(())
}

#[tokio::test]
async fn the_same_directory_and_base_port_give_the_same_sandbox_again() -> Result<()> {
    let directory = TempDir::new()?;
    let base = {
        // A free port with free ones behind it, as far as that can be known.
        let probe = Sandbox::builder().site("ewr").start().await?;
        probe.site("ewr").server().port()
    };
    let builder =
        Sandbox::builder().data_dir(directory.path()).site("ewr").site("jfk").sync_always(true).port(Some(base));
    for round in 1..=2 {
        let sandbox = builder.clone().start().await?;
        let ports: Vec<_> = sandbox.servers().map(|server| server.port()).collect();
        assert_eq!(ports, [base, base + 1, base + 2]);
        let context = jetstream(&sandbox.site("ewr").url()).await?;
        if round == 1 {
            create_stream(&context, "KEPT", "kept.>", 1).await?;
        }
        publish(&context, "kept.a").await?;
        assert_eq!(stored(&context, "KEPT").await?, round);
        let error = builder.clone().port(None).start().await.unwrap_err();
        assert!(matches!(error, SandboxError::Server(_)), "in use: {error}");
        match round {
            1 => drop(sandbox),
            _ => sandbox.stop().await?,
        }
    }
    Ok(())
}

/// The cluster ports are picked anew at each start: members know each other by name.
#[tokio::test]
async fn a_cluster_goes_on_with_its_directory() -> Result<()> {
    let directory = TempDir::new()?;
    let builder = Sandbox::builder().data_dir(directory.path()).clustered_site("ewr");
    for round in 1..=2 {
        let sandbox = builder.clone().start().await?;
        let site = sandbox.site("ewr");
        for server in site.servers() {
            server.wait_healthy(SOON).await?;
        }
        let context = jetstream::new(async_nats::connect(site.urls()).await?);
        if round == 1 {
            create_stream(&context, "KEPT", "kept.>", 3).await?;
        }
        wait_until("a publish", SOON, || async { publish(&context, "kept.a").await.is_ok() }).await?;
        assert!(stored(&context, "KEPT").await? >= round);
    }
    Ok(())
}

#[tokio::test]
async fn a_temporary_directory_is_removed_unless_it_is_to_be_kept() -> Result<()> {
    let mut sandbox = Sandbox::builder().site("ewr").start().await?;
    let path = sandbox.data_dir().to_owned();
    sandbox.keep();
    drop(sandbox);
    assert!(path.join("ewr/ewr/server.log").exists());
    std::fs::remove_dir_all(path)?;

    let sandbox = Sandbox::builder().site("ewr").start().await?;
    let path = sandbox.data_dir().to_owned();
    let pid = sandbox.site("ewr").server().pid();
    assert!(matches!(sandbox.cut("ewr").await, Err(SandboxError::NotCuttable { .. })));
    assert!(matches!(sandbox.cut("jfk").await, Err(SandboxError::NoSuchSite { .. })));
    drop(sandbox);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(path.exists(), std::env::var_os("FREEHOLD_KEEP").is_some());
    Ok(())
}
