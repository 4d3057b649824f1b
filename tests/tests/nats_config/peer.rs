//! What a peer tries at another site's logs, and what came of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use freehold_core::subject::{commands_stream, dead_letter_stream, records_stream};
use futures::StreamExt;

use crate::deployment::SOON;

/// A group that exists, so that nothing but the link can refuse.
const GROUP: u16 = 63;
const FORGED: &[u8] = b"forged";
/// The last token of subjects that nobody uses but who forges.
const TOKEN: &str = "forged";
/// The last tokens of a subject that no configuration denies: it comes in behind everything that was sent before.
const SENTINEL: &str = "sentinel";
/// What is denied is dropped without an answer. An answer takes a millisecond.
const NO_ANSWER: Duration = Duration::from_secs(2);

/// The subjects of a site's logs, of all families.
pub(crate) fn subjects(site: &str) -> Vec<String> {
    let tails = [
        "cmd.counter",
        "rec.counter",
        "res.counter",
        "ctl.claim.counter",
        "ctl.pos.counter",
        "fwd.jfk.counter",
        "dead.counter",
    ];
    tails.iter().map(|tail| format!("fh.{site}.{tail}.{GROUP}")).flat_map(with_record).collect()
}

/// As it is, and with the token that updates and results have behind it.
fn with_record(subject: String) -> [String; 2] {
    [format!("{subject}.{TOKEN}"), subject]
}

/// Publishes on all subjects of a site's logs at another site; gives those that came in, after all had the time to.
pub(crate) async fn forge(peer: &async_nats::Client, owner: &async_nats::Client, site: &str) -> Result<Vec<String>> {
    // Not `>`: a server drops a message that meets a subscription just being given up, even if another one asks for it over the same link.
    // So the requests behind this would be lost, now and then.
    let mut arriving = owner.subscribe(format!("fh.{site}.>")).await?;
    let sentinel = format!("fh.{site}.{SENTINEL}");
    owner.flush().await?;
    // The owner's interest crosses the link before anything can.
    let mut crossing = tokio::time::interval(Duration::from_millis(20));
    tokio::time::timeout(SOON, async {
        loop {
            tokio::select! {
                Some(message) = arriving.next() => if message.subject.as_str() == sentinel { return anyhow::Ok(()) },
                _ = crossing.tick() => peer.publish(sentinel.clone(), "".into()).await?,
            }
        }
    })
    .await
    .context("nothing crosses the link at all")??;
    for subject in subjects(site) {
        peer.publish(subject, FORGED.into()).await?;
    }
    peer.publish(sentinel.clone(), "last".into()).await?;
    peer.flush().await?;
    let mut arrived = Vec::new();
    tokio::time::timeout(SOON, async {
        while let Some(message) = arriving.next().await {
            if message.payload == FORGED {
                arrived.push(message.subject.to_string());
            } else if message.subject.as_str() == sentinel && message.payload == "last" {
                break;
            }
        }
    })
    .await
    .context("the last message did not cross the link")?;
    Ok(arrived)
}

/// Checks that none of a site's streams has anything that was forged.
pub(crate) async fn ensure_nothing_stored(owner: &async_nats::Client, site: &str) -> Result<()> {
    let jetstream = jetstream::new(owner.clone());
    let name = site.parse()?;
    for stream in [commands_stream(&name), records_stream(&name), dead_letter_stream(&name)] {
        let stream = jetstream.get_stream(&stream).await?;
        let state = stream.cached_info().state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = stream.get_raw_message(sequence).await {
                let forged = message.payload == FORGED || message.subject.ends_with(TOKEN);
                ensure!(!forged, "{} is stored at {site}", message.subject);
            }
        }
    }
    Ok(())
}

/// Asks another site's JetStream to delete, to empty and to drop its logs; gives what was carried out.
pub(crate) async fn destroy(peer: &async_nats::Client, site: &str) -> Result<Vec<String>> {
    let far = jetstream::with_domain(peer.clone(), site);
    let name = site.parse()?;
    let streams = [commands_stream(&name), records_stream(&name), dead_letter_stream(&name)];
    let mut asked = Vec::new();
    for stream in &streams {
        // Read through the link, as mirrors and `freehold verify` do: that is not denied.
        let last = far.get_stream(stream).await?.cached_info().state.last_sequence;
        let message = serde_json::json!({ "seq": last }).to_string();
        for (verb, body) in [("MSG.DELETE", message), ("PURGE", String::new()), ("DELETE", String::new())] {
            asked.push((format!("$JS.{site}.API.STREAM.{verb}.{stream}"), body));
        }
    }
    // In this order on one connection: a message first, the stream last.
    let answers = asked.into_iter().map(|(subject, body)| async move {
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(NO_ANSWER));
        peer.send_request(subject.clone(), request).await.is_ok().then_some(subject)
    });
    Ok(futures::future::join_all(answers).await.into_iter().flatten().collect())
}

/// First sequence, and messages that are kept, of each of a site's logs.
pub(crate) async fn logs(owner: &async_nats::Client, site: &str) -> Result<Vec<(String, u64, u64)>> {
    let jetstream = jetstream::new(owner.clone());
    let name = site.parse()?;
    let mut found = Vec::new();
    for stream in [commands_stream(&name), records_stream(&name), dead_letter_stream(&name)] {
        let state = jetstream.get_stream(&stream).await?.cached_info().state.clone();
        found.push((stream, state.first_sequence, state.messages));
    }
    Ok(found)
}

/// Checks that a site's logs still have all that they had before.
pub(crate) async fn ensure_kept(owner: &async_nats::Client, site: &str, before: &[(String, u64, u64)]) -> Result<()> {
    for ((name, first, messages), after) in before.iter().zip(logs(owner, site).await?) {
        ensure!(after.1 == *first && after.2 >= *messages, "{name} had {messages} from {first}, now {after:?}");
    }
    Ok(())
}
