//! What Prometheus scrapes from an instance.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold_core::ErrorCode;
use freehold_sandbox::{Sandbox, wait_until};
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::{counter, workload};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");
const SITES: [&str; 2] = ["ewr", "jfk"];
const SOON: Duration = Duration::from_secs(30);
const COMMANDS: u64 = 7;

/// What is told at an address, as text.
async fn scrape(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

/// The value of the metric of a name that has all of these labels.
fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let of_metric = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')) && labels.iter().all(|it| line.contains(it))
    };
    text.lines().find(of_metric)?.rsplit(' ').next()?.parse().ok()
}

/// Two instances, each with its metrics at an address: of requests, and of the copies of both logs.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_tells_its_requests_and_how_it_is_with_each_log() -> Result<()> {
    let sandbox =
        SITES.iter().fold(Sandbox::builder(), |builder, site| builder.site(*site)).cuttable(true).start().await?;
    let data = tempfile::tempdir()?;
    let (mut instances, mut addresses) = (Vec::new(), Vec::new());
    for site in SITES {
        let directory = data.path().join(site);
        std::fs::create_dir_all(&directory)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut config = place::config(sandbox.site(site), "one", &directory)?;
        config.sites = SITES.iter().map(|site| site.parse()).collect::<Result<_, _>>()?;
        config.metrics_address = Some(address);
        instances.push(InstanceProcess::start(SERVICE, &config, &directory).await?);
        addresses.push(address);
    }
    let ewr = place::client(sandbox.site("ewr")).await?;
    for _ in 0..COMMANDS {
        workload::reply::<counter::Total>(
            &workload::send(&ewr, "add", &json!({ "id": "ewr-1", "amount": 1 }), None).await?,
        )?;
    }
    let taken = workload::send(&ewr, "take", &json!({ "id": "ewr-1", "amount": 100 }), None).await?;
    ensure!(taken.result.is_err_and(|refusal| refusal.code == ErrorCode::Rejected));
    workload::send(&ewr, "no-such-command", &json!({ "id": "ewr-1" }), None).await?;

    let text = scrape(addresses[0]).await?;
    let of = |request| [("site", "ewr"), ("instance", "one"), ("kind", "counter"), ("request", request)];
    let seconds = "freehold_request_seconds_count";
    ensure!(
        value(&text, seconds, &of("add")) == Some(7.0) && value(&text, seconds, &of("take")) == Some(1.0),
        "{text}"
    );
    ensure!(value(&text, seconds, &[("kind", ""), ("request", "")]) == Some(1.0), "{text}");
    ensure!(value(&text, "freehold_refusals_total", &[("code", "rejected")]) == Some(1.0), "{text}");
    ensure!(value(&text, "freehold_refusals_total", &[("code", "invalid")]) == Some(1.0), "{text}");
    ensure!(text.contains("# TYPE freehold_request_seconds histogram"), "{text}");

    // Of a copy of another site: equal to the origin, young, and being read.
    let equal = || async {
        let (Ok(there), Ok(here)) = (scrape(addresses[0]).await, scrape(addresses[1]).await) else { return false };
        let of_ewr = |text: &str, name: &str| value(text, name, &[("origin", "ewr")]);
        let position = of_ewr(&there, "freehold_copy_position");
        position.is_some_and(|position| position > 0.0)
            && position == of_ewr(&here, "freehold_copy_position")
            && position == of_ewr(&here, "freehold_origin_position")
            && of_ewr(&here, "freehold_copy_age_seconds").is_some_and(|age| age < 5.0)
            && value(&here, "freehold_copy_health", &[("origin", "ewr"), ("health", "reading")]) == Some(1.0)
            && value(&here, "freehold_groups_held", &[("site", "jfk")]) == Some(64.0)
    };
    wait_until("both tell the same position", SOON, equal).await?;
    sandbox.cut("ewr").await?;
    let old = || async {
        let text = scrape(addresses[1]).await.unwrap_or_default();
        value(&text, "freehold_copy_age_seconds", &[("origin", "ewr")]).is_some_and(|age| age > 5.0)
    };
    wait_until("the copy of a site that is cut off is told to be old", SOON, old).await?;

    // An address that is taken is told.
    let directory = data.path().join("taken");
    std::fs::create_dir_all(&directory)?;
    let mut config = place::config(sandbox.site("jfk"), "two", &directory)?;
    config.metrics_address = Some(addresses[1]);
    let started = InstanceProcess::start(SERVICE, &config, &directory).await;
    let log = std::fs::read_to_string(directory.join("two.log"))?;
    ensure!(started.is_err() && log.contains("metrics cannot be served at"), "{log}");
    Ok(())
}
