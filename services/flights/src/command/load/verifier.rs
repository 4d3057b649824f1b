//! Compares every flight that a site answers with what the data says.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use flights::Flight;
use flights::data::FlightRow;
use freehold::core::{ErrorCode, RecordVersion};
use freehold::prelude::SiteName;
use freehold::{Client, SendOptions};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::loader::flight_kind;
use super::options::Pace;
use crate::command::input::Rows;

/// Between two tries of a read.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// Differences that are kept in full; the others are counted.
const MAX_KEPT_DIFFERENCES: usize = 10;

/// Reads all flights back.
#[derive(Debug)]
pub(crate) struct Verifier {
    pace: Pace,
    checked: AtomicU64,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Verified {
    /// Flights that were compared.
    pub(crate) flights: u64,
    /// Sum of their versions: the commands that changed them.
    pub(crate) versions: u64,
    /// Flights that are not as the data says.
    pub(crate) differences: u64,
    /// The first of them.
    pub(crate) first: Vec<Difference>,
}

/// A flight that is not as the data says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Difference {
    pub(crate) flight: String,
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flight, found, expected } = self;
        write!(formatter, "{flight}: found {found}\n  the data says {expected}")
    }
}

/// The answer of `get`, as far as it is compared.
#[derive(Debug, Deserialize)]
struct Found {
    version: RecordVersion,
    owner: SiteName,
    record: Flight,
}

impl Verifier {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, checked: AtomicU64::new(0) }
    }

    /// Flights that were compared so far.
    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// Compares all flights; `ask` says whom to ask for the flights of a home.
    pub(crate) async fn run<'a>(
        &self,
        rows: Rows,
        ask: impl Fn(&SiteName) -> Option<&'a Client>,
    ) -> anyhow::Result<Verified> {
        let ask = &ask;
        let reads = futures::stream::iter(rows).map(|row| async move {
            let row = row?;
            let client = ask(&row.home()).with_context(|| format!("site {} is not known", row.home()))?;
            self.compare(client, &row).await
        });
        let mut reads = reads.buffer_unordered(self.pace.in_flight.get());
        let mut verified = Verified::default();
        while let Some(read) = reads.next().await {
            let (version, difference) = read?;
            verified.flights += 1;
            verified.versions += version.0;
            if let Some(difference) = difference {
                verified.differences += 1;
                if verified.first.len() < MAX_KEPT_DIFFERENCES {
                    verified.first.push(difference);
                }
            }
            self.checked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(verified)
    }

    async fn compare(&self, client: &Client, row: &FlightRow) -> anyhow::Result<(RecordVersion, Option<Difference>)> {
        let version = RecordVersion(row.commands().len() as u64);
        let (home, expected) = (row.home(), row.expected());
        let differs = |found: String| Difference {
            flight: row.id.to_string(),
            found,
            expected: format!("version {version}, owner {home}, {expected:?}"),
        };
        Ok(match self.get(client, row).await? {
            Ok(found) if (found.version, &found.owner, &found.record) == (version, &home, &expected) => (version, None),
            Ok(Found { version, owner, record }) => {
                (version, Some(differs(format!("version {version}, owner {owner}, {record:?}"))))
            }
            Err(nothing) => (RecordVersion::default(), Some(differs(nothing))),
        })
    }

    /// Reads a flight; the inner error says that there is none.
    async fn get(&self, client: &Client, row: &FlightRow) -> anyhow::Result<Result<Found, String>> {
        let body = Bytes::from(serde_json::json!({ "id": row.id.to_string() }).to_string());
        let options = SendOptions { timeout: self.pace.try_timeout(), ..SendOptions::default() };
        let started = Instant::now();
        loop {
            let failure = match client.request(&flight_kind(), "get", body.clone(), &options).await {
                Ok(answer) => match answer.result {
                    Ok(body) => {
                        let found = serde_json::from_slice(&body);
                        return Ok(Ok(found.with_context(|| format!("reading flight {}", row.id))?));
                    }
                    Err(refusal) if refusal.code == ErrorCode::NotFound => return Ok(Err(refusal.message)),
                    Err(refusal) => format!("{}: {}", refusal.code.as_str(), refusal.message),
                },
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            };
            anyhow::ensure!(started.elapsed() < self.pace.patience(), "flight {} cannot be read: {failure}", row.id);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
