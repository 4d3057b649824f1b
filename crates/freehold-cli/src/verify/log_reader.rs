//! Reads one site's records stream, from its own servers, as far as it goes, and later further.

use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::time::timeout;

use freehold_core::{KindName, SiteName, StreamSequence, Takeovers};
use freehold_jetstream::{Connection, ReadFrom, RecordsReader};

use super::log_copy::LogCopy;

/// A stream that has said nothing for this long, although there is more, is lost.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// The stream of one origin, for one kind.
pub(super) struct LogReader {
    connection: Connection,
    origin: SiteName,
    kind: KindName,
    /// Everything of the kind up to here is in the copy.
    end: StreamSequence,
    copy: LogCopy,
}

impl LogReader {
    /// Reads the stream from its beginning to its end.
    pub(super) async fn open(
        connection: &Connection,
        origin: &SiteName,
        kind: &KindName,
        takeovers: Takeovers,
        progress: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let mut reader = Self {
            connection: connection.in_domain(origin),
            origin: origin.clone(),
            kind: kind.clone(),
            end: StreamSequence(0),
            copy: LogCopy::new(origin.clone(), takeovers),
        };
        reader.read_on(progress).await?;
        reader.copy.begin_journal();
        Ok(reader)
    }

    /// Reads what the stream has more by now.
    pub(super) async fn read_on(&mut self, progress: &ProgressBar) -> anyhow::Result<()> {
        let Self { connection, origin, kind, end, copy } = self;
        let what = || format!("reading the records stream of {origin}");
        let opened =
            RecordsReader::open(connection, ReadFrom::Elsewhere, origin, std::slice::from_ref(kind), *end, None).await;
        let mut reader = opened.with_context(what)?;
        let last = reader.last_at_open();
        progress.set_length(last.0);
        while reader.passed() < last {
            let read = timeout(READ_PATIENCE, reader.next()).await.with_context(what)?.with_context(what)?;
            for message in &read.messages {
                copy.apply(message);
            }
            progress.set_position(reader.passed().0);
        }
        *end = reader.passed();
        Ok(())
    }

    /// How far it was read.
    pub(super) fn end(&self) -> StreamSequence {
        self.end
    }

    /// What a copy must be by it.
    pub(super) fn copy(&self) -> &LogCopy {
        &self.copy
    }
}
