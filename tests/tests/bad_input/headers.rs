//! Bytes that no client library would send.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold_sandbox::wait_until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::place::Place;

const PATIENCE: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A connection that speaks the protocol byte by byte.
pub(crate) struct RawConnection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl RawConnection {
    pub(crate) async fn open(port: u16) -> Result<Self> {
        let mut raw = Self { stream: TcpStream::connect(("127.0.0.1", port)).await?, read: Vec::new() };
        raw.expect("INFO").await?;
        raw.send(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\nPING\r\n")
            .await?;
        raw.expect("PONG").await?;
        Ok(raw)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Reads until the server has said this.
    pub(crate) async fn expect(&mut self, text: &str) -> Result<()> {
        let found = async {
            while !String::from_utf8_lossy(&self.read).contains(text) {
                let mut buffer = [0; 4096];
                let count = self.stream.read(&mut buffer).await?;
                ensure!(count > 0, "the server closed the connection");
                self.read.extend_from_slice(&buffer[..count]);
            }
            self.read.clear();
            Ok(())
        };
        timeout(PATIENCE, found).await.with_context(|| format!("{text:?} never came"))?
    }

    /// Reads until the server closes, and checks what it said last.
    pub(crate) async fn closed_with(mut self, text: &str) -> Result<()> {
        let mut rest = Vec::new();
        // The server may reset the connection while it is still being written to.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.context("the server does not close")?;
        let said = String::from_utf8_lossy(&rest).into_owned();
        ensure!(said.contains(text), "{said:?}");
        Ok(())
    }

    /// Publishes with a block of headers as it stands, and waits until the server has taken it.
    async fn publish(&mut self, subject: &str, headers: &[u8], body: &str) -> Result<()> {
        let total = headers.len() + body.len();
        self.send(format!("HPUB {subject} answers {} {total}\r\n", headers.len()).as_bytes()).await?;
        self.send(headers).await?;
        self.send(format!("{body}\r\nPING\r\n").as_bytes()).await?;
        self.expect("PONG").await
    }
}

/// Waits until the service answers, and checks that it works.
async fn recovers(place: &Place) -> Result<()> {
    let answers = || async {
        // What is on its way to a connection that breaks gets no answer.
        let request = async_nats::Request::new().timeout(Some(ASK_AGAIN));
        place.nats.send_request("freehold.thing.list", request).await.is_ok()
    };
    wait_until("the service answers", PATIENCE, answers).await?;
    place.goes_on().await
}

/// The client library that the service stands on loses its connection over headers that it cannot read, and over a lone carriage
/// return in one it is lost for good. The service must come back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_nobody_can_read_do_not_silence_the_service() -> Result<()> {
    let mut place = Place::start().await?;
    let mut raw = RawConnection::open(place.sandbox.site("ewr").server().port()).await?;
    raw.send(b"SUB answers 1\r\n").await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut service = place.take_service()?;
    let running = tokio::spawn(async move {
        let ended = service.until(async { drop(stopped.await) }).await;
        (service, ended)
    });
    let hostile: [&[u8]; 5] = [
        b"NATS/1.0\r\nX: a\rb\r\n\r\n",
        b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n",
        b"NATS/1.0\r\nno colon here\r\n\r\n",
        b"NATS/1.0\r\nX\x01Y: a\r\n\r\n",
        b"nothing of the sort\r\n\r\n",
    ];
    for headers in hostile {
        raw.publish("freehold.thing.list", headers, "").await?;
        recovers(&place).await.with_context(|| String::from_utf8_lossy(headers).into_owned())?;
    }
    drop(stop);
    let (service, ended) = running.await?;
    ended?;
    service.stop().await;
    Ok(place.sandbox.stop().await?)
}
