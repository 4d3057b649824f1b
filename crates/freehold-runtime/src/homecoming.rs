//! The return of a site that was taken over.
//!
//! What it had decided beyond the cut, and the commands that it had taken and that nothing decides, are set aside where an operator
//! finds them. Then a new life of its log begins, and from there on it is a copy until records are given back to it.
//! Every instance of the site does this when it starts; doing it twice is doing it once.

use std::collections::HashSet;

use freehold_core::{
    Change, CommandId, CopyRead, KindName, Life, LogMessage, LoggedCommand, PublishFailure, RecordId, RecordsBody,
    SiteName, Stranded, StreamSequence, Takeover, read_body,
};
use freehold_jetstream::{ApiError, CommandLog, Connection, RecordsReader, RecordsReaderError, SitesLog, StrandedLog};

use crate::copy::Copy;

/// Why a site does not come back yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomecomingError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("its own log cannot be read")]
    Records(#[from] RecordsReaderError),
    #[error("the copy cannot be read")]
    Store(#[from] freehold_store::Error),
    #[error("the new life of its log was not logged")]
    Life(#[source] PublishFailure),
}

/// Brings a site back.
pub(crate) struct Homecoming<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) site: &'a SiteName,
    pub(crate) kinds: &'a [KindName],
    /// Made anew up to the cut.
    pub(crate) copy: &'a Copy,
    pub(crate) takeover: &'a Takeover,
    /// Where the taker has logged it.
    pub(crate) logged_at: StreamSequence,
}

impl Homecoming<'_> {
    /// Sets aside what does not count, and begins a new life of the log.
    pub(crate) async fn run(&self) -> Result<(), HomecomingError> {
        let commands = CommandLog::new(self.connection.clone(), self.site.clone());
        let log = SitesLog::new(self.connection.clone(), self.site.clone());
        // What is behind this may be taken by an instance that has come back already.
        let last = commands.last().await?;
        let life = log.life(self.site).await?;
        let begun = life.as_ref().is_some_and(|(_, life)| life.log.counter() > self.takeover.lost_log.counter());
        let updates = self.set_updates_aside().await?;
        if begun {
            return Ok(());
        }
        let undecided = self.set_commands_aside(&commands, last).await?;
        commands.purge_all(last).await?;
        let next = Life::after(self.takeover.clone(), self.logged_at);
        let expected = life.map(|(sequence, _)| sequence).unwrap_or_default();
        match log.begin_life(expected, &next).await {
            Ok(_) => {}
            // Another instance was quicker.
            Err(PublishFailure::Refused) => {}
            Err(failure) => return Err(HomecomingError::Life(failure)),
        }
        tracing::warn!(
            site = %self.site, taker = %self.takeover.ballot.taker, cut = %self.takeover.cut, updates, undecided,
            "this site was taken over and comes back as a copy: see `freehold stranded`"
        );
        Ok(())
    }

    /// Updates and outcomes beyond the cut, of the life that was cut. Tells how many.
    async fn set_updates_aside(&self) -> Result<usize, HomecomingError> {
        let behind = self.takeover.cut;
        let mut reader = RecordsReader::open(self.connection, self.site, self.kinds, behind, None).await?;
        let last = reader.last_at_open();
        let stranded = StrandedLog::new(self.connection.clone(), self.site.clone());
        let kept = self.kept(&stranded).await?;
        let mut count = 0;
        while reader.passed() < last {
            for message in reader.next().await?.messages {
                for (name, entry) in self.entries_of(&message) {
                    if !kept.contains(&name) {
                        stranded.append(&message.subject.kind, name, &entry).await?;
                        count += 1;
                    }
                }
            }
        }
        Ok(count)
    }

    fn entries_of(&self, message: &LogMessage) -> Vec<(String, Stranded)> {
        let (ballot, sequence) = (self.takeover.ballot.clone(), message.sequence);
        let is_old = |log: &freehold_core::Incarnation| log.counter() <= self.takeover.lost_log.counter();
        let name = |index: usize| format!("{}-{}-{sequence}-{index}", ballot.term, ballot.taker);
        match read_body(message) {
            Ok(RecordsBody::Update(update)) if is_old(&update.log) => {
                vec![(name(0), Stranded::Update { ballot: ballot.clone(), sequence, update })]
            }
            Ok(RecordsBody::Result(result)) if is_old(&result.log) => {
                let outcome = |(index, change): (usize, Change)| {
                    let (ballot, change) = (ballot.clone(), Box::new(change));
                    (name(index), Stranded::Outcome { ballot, sequence, change })
                };
                result.changes.into_iter().enumerate().map(outcome).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Commands of this site's log that nothing decides that counts. Tells how many.
    async fn set_commands_aside(&self, commands: &CommandLog, last: StreamSequence) -> Result<usize, HomecomingError> {
        let stranded = StrandedLog::new(self.connection.clone(), self.site.clone());
        let kept = self.kept(&stranded).await?;
        let mut count = 0;
        let mut reader = commands.read_all().await?;
        while let Some((kind, command)) = reader.next().await? {
            let LoggedCommand { sequence, time: time_ms, message: Ok(message) } = command else { continue };
            if sequence > last {
                break;
            }
            let ballot = self.takeover.ballot.clone();
            let name = format!("{}-{}-command-{sequence}", ballot.term, ballot.taker);
            if kept.contains(&name) || self.is_dealt_with(&kind, &message.id, &message.command_id)? {
                continue;
            }
            let entry = Stranded::Command { ballot, sequence, time_ms, command: Box::new(message) };
            stranded.append(&kind, name, &entry).await?;
            count += 1;
        }
        Ok(count)
    }

    /// Whether a command is decided, or on its way to a site that will decide it.
    fn is_dealt_with(&self, kind: &KindName, id: &RecordId, command_id: &CommandId) -> Result<bool, HomecomingError> {
        Ok(self.copy.reader.snapshot()?.outcome(kind, Some(id), command_id)?.is_some())
    }

    /// The names of the entries of this takeover that are kept already: the server's window for repeats ends.
    async fn kept(&self, stranded: &StrandedLog) -> Result<HashSet<String>, HomecomingError> {
        let mut kept = HashSet::new();
        let mut index = 0;
        let mut before = None;
        for (_, _, entry) in stranded.entries().await? {
            let (ballot, sequence, is_command) = match &entry {
                Stranded::Update { ballot, sequence, .. } | Stranded::Outcome { ballot, sequence, .. } => {
                    (ballot, sequence, false)
                }
                Stranded::Command { ballot, sequence, .. } => (ballot, sequence, true),
            };
            if *ballot != self.takeover.ballot {
                continue;
            }
            if is_command {
                kept.insert(format!("{}-{}-command-{sequence}", ballot.term, ballot.taker));
                continue;
            }
            // The outcomes of one result were kept in their order.
            index = if before == Some(*sequence) { index + 1 } else { 0 };
            before = Some(*sequence);
            kept.insert(format!("{}-{}-{sequence}-{index}", ballot.term, ballot.taker));
        }
        Ok(kept)
    }
}
