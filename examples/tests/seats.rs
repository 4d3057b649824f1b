//! The example runs as its own head says: configured by the environment, used by an ordinary NATS request.

use std::time::Duration;

use anyhow::{Result, ensure};
use freehold::{Client, ConnectOptions, SendOptions};
use freehold_sandbox::{Process, ProcessOptions, Sandbox};

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_is_booked_once() -> Result<()> {
    let sandbox = Sandbox::builder().site("ewr").start().await?;
    let url = sandbox.site("ewr").url();
    let data = tempfile::tempdir()?;
    let options = ProcessOptions::new("seats", env!("CARGO_BIN_EXE_seats"), data.path().join("seats.log"))
        .env("FREEHOLD_SITE", "ewr")
        .env("FREEHOLD_INSTANCE", "one")
        .env("FREEHOLD_NATS__URL", &url)
        .env("FREEHOLD_DATA_DIR", data.path());
    let service = Process::start(options)?;
    service.wait_for_line("\"ready\"", Duration::from_secs(30)).await?;
    let client = Client::connect(&ConnectOptions::to(url), "test").await?;
    let book = async |passenger: &str| {
        let body = serde_json::json!({ "id": "ewr-12A", "passenger": passenger }).to_string();
        client
            .request(&"seat".parse()?, "book", body.into(), &SendOptions::default())
            .await
            .map_err(anyhow::Error::from)
    };
    let first = book("Ada").await?;
    ensure!(first.result.as_deref() == Ok(br#"{"passenger":"Ada"}"#), "{first:?}");
    let second = book("Bo").await?;
    let told = second.result.err().map(|refusal| refusal.message).unwrap_or_default();
    ensure!(told.contains("Ada has this seat"), "{told:?}");
    service.kill().await?;
    Ok(())
}
