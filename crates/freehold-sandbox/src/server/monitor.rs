//! Asks a server's monitoring port how it is. The smallest possible HTTP client, and the little of the answers that
//! this crate needs.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server that does not answer within this time, being paused perhaps, counts as not answering.
const REQUEST_DEADLINE: Duration = Duration::from_secs(1);
/// More than this is no answer that this module asks for.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// `/leafz`
#[derive(Debug, Deserialize)]
pub(super) struct LeafConnections {
    pub(super) leafnodes: usize,
}

/// `/jsz`
#[derive(Debug, Deserialize)]
pub(super) struct JetStreamState {
    pub(super) meta_cluster: Option<MetaCluster>,
}

/// The group of servers that manages a JetStream cluster, as one of them sees it.
#[derive(Debug, Deserialize)]
pub(super) struct MetaCluster {
    #[serde(default)]
    pub(super) leader: String,
    pub(super) cluster_size: usize,
    /// The other members; only the leader knows them.
    #[serde(default)]
    pub(super) replicas: Vec<MetaReplica>,
}

/// One follower of the meta leader.
#[derive(Debug, Deserialize)]
pub(super) struct MetaReplica {
    pub(super) current: bool,
    #[serde(default)]
    pub(super) offline: bool,
}

/// The status code and the body.
pub(super) async fn get(port: u16, path: &str) -> io::Result<(u16, Vec<u8>)> {
    get_at(&format!("{}:{port}", Ipv4Addr::LOCALHOST), path).await
}

async fn get_at(address: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
    tokio::time::timeout(REQUEST_DEADLINE, get_unlimited(address, path))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The body of a good answer.
pub(super) async fn get_json<T: DeserializeOwned>(port: u16, path: &str) -> io::Result<T> {
    read_monitoring(&format!("{}:{port}", Ipv4Addr::LOCALHOST), path).await
}

/// What a server's monitoring port at `host:port` answers for a path, such as `/varz`.
///
/// # Errors
/// When there is no answer within a second, or another one than expected.
pub async fn read_monitoring<T: DeserializeOwned>(address: &str, path: &str) -> io::Result<T> {
    let (status, body) = get_at(address, path).await?;
    if status != 200 {
        return Err(io::Error::other(format!("status {status} for {path}")));
    }
    serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn get_unlimited(address: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP 1.0: the answer is not chunked and ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[head_end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        assert_eq!(parse(b"HTTP/1.0 503 Not Ready\r\nA: b\r\n\r\n{}"), Some((503, b"{}".to_vec())));
        assert_eq!(parse(b"INFO {}\r\n"), None);
    }
}
