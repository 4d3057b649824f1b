//! The return of a site that was taken over.
//!
//! What it had decided beyond the cut, and the commands that it had taken and that nothing decides, are set aside where an operator
//! finds them. Then a new life of its log begins, and from there on it is a copy until records are given back to it.
//! Every instance of the site does this when it starts; doing it twice is doing it once. What only an instance's copy has, since the log
//! has lost its tail, is set aside before that copy is.

use std::collections::HashSet;
use std::time::Duration;

use freehold_core::{
    Ballot, CommandId, CopyRead, Hash, Incarnation, KindName, Life, LogMessage, LoggedCommand, PublishFailure,
    RecordId, RecordsBody, SiteName, StoredOutcome, Stranded, StreamSequence, Takeover, Takeovers, read_body,
};
use freehold_jetstream::{
    ApiError, CommandLog, Connection, ReadFrom, RecordsReader, RecordsReaderError, SitesLog, StrandedLog,
};
use freehold_store::{OriginState, Reader};
use tokio::time::timeout;

use crate::copy::Copy;

/// How long the taker may take to adopt what it has taken over, and its log to come here, before this site comes back all the same.
const ADOPTION_PATIENCE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const ADOPTION_LOOK: Duration = Duration::from_millis(50);
/// Outcomes that are read from a copy at once.
const PAGE_OUTCOMES: usize = 1_000;

/// Commands whose outcomes are listed.
type Listed = HashSet<(KindName, Option<RecordId>, CommandId)>;

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
        self.wait_adopted().await;
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

    /// Waits for a while until the copy has all that the taker has put into its log: outcomes that count may be there alone, where what
    /// this site has logged beyond the cut has made its own log drop them. Without them more is set aside than need be.
    async fn wait_adopted(&self) {
        let Takeover { ballot, lost, .. } = self.takeover;
        // This site's mirror may need longer than its copy, which reads the taker's log itself where the mirror is late.
        let logs = [
            SitesLog::new(self.connection.clone(), self.site.clone()),
            SitesLog::new(self.connection.in_domain(&ballot.taker), ballot.taker.clone()),
        ];
        let adopted = async {
            loop {
                for log in &logs {
                    let logged = log.takeovers(&ballot.taker).await.unwrap_or_default();
                    let is_this = |it: &Takeover| it.adopted && it.ballot == *ballot && it.lost == *lost;
                    if let Some(message) = logged.iter().find(|message| is_this(&message.takeover)) {
                        return self.copy.applied(&ballot.taker, message.sequence).await;
                    }
                }
                tokio::time::sleep(ADOPTION_LOOK).await;
            }
        };
        if timeout(ADOPTION_PATIENCE, adopted).await.is_err() {
            tracing::warn!(taker = %ballot.taker, "the taker has not adopted all yet: coming back without");
        }
    }

    /// Updates and outcomes beyond the cut, of the life that was cut. Tells how many.
    async fn set_updates_aside(&self) -> Result<usize, HomecomingError> {
        let behind = self.takeover.cut;
        let mut reader =
            RecordsReader::open(self.connection, ReadFrom::Here, self.site, self.kinds, behind, None).await?;
        let last = reader.last_at_open();
        let stranded = StrandedLog::new(self.connection.clone(), self.site.clone());
        let kept = self.kept(&stranded).await?;
        let mut listed = HashSet::new();
        let mut count = 0;
        while reader.passed() < last {
            for message in reader.next().await?.messages {
                for entry in self.entries_of(&message, &mut listed)? {
                    let name = name_of(&entry);
                    if !kept.contains(&name) {
                        stranded.append(&message.subject.kind, name, &entry).await?;
                        count += 1;
                    }
                }
            }
        }
        Ok(count)
    }

    /// What a message beyond the cut brought. Results also repeat outcomes of updates: of some that count, and of some that are listed
    /// already. What is left is of updates that the log has dropped, or of commands that changed nothing.
    fn entries_of(&self, message: &LogMessage, listed: &mut Listed) -> Result<Vec<Stranded>, HomecomingError> {
        let (ballot, sequence, kind) = (&self.takeover.ballot, message.sequence, &message.subject.kind);
        let is_old = |log: &Incarnation| log.counter() <= self.takeover.lost_log.counter();
        Ok(match read_body(message) {
            Ok(RecordsBody::Update(update)) if is_old(&update.log) => {
                let id = Some(update.id.clone());
                listed.extend(update.changes.iter().map(|it| (kind.clone(), id.clone(), it.command_id.clone())));
                vec![Stranded::Update { ballot: ballot.clone(), sequence, update }]
            }
            Ok(RecordsBody::Result(result)) if is_old(&result.log) => {
                let mut entries = Vec::new();
                for change in result.changes {
                    let counts = self.is_dealt_with(kind, change.id.as_ref(), &change.command_id)?;
                    if !counts && listed.insert((kind.clone(), change.id.clone(), change.command_id.clone())) {
                        let change = Box::new(change);
                        entries.push(Stranded::Outcome { ballot: ballot.clone(), sequence, change });
                    }
                }
                entries
            }
            _ => Vec::new(),
        })
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
            if self.is_dealt_with(&kind, Some(&message.id), &message.command_id)? {
                continue;
            }
            let ballot = self.takeover.ballot.clone();
            let entry = Stranded::Command { ballot, sequence, time_ms, command: Box::new(message) };
            let name = name_of(&entry);
            if !kept.contains(&name) {
                stranded.append(&kind, name, &entry).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether a command is decided by what counts, or on its way to a site that will decide it.
    fn is_dealt_with(
        &self,
        kind: &KindName,
        id: Option<&RecordId>,
        command_id: &CommandId,
    ) -> Result<bool, HomecomingError> {
        Ok(self.copy.reader.snapshot()?.outcome(kind, id, command_id)?.is_some())
    }

    /// The names of the entries of this takeover that are kept already: the server's window for repeats ends.
    async fn kept(&self, stranded: &StrandedLog) -> Result<HashSet<String>, HomecomingError> {
        let entries = stranded.entries().await?.into_iter().map(|(_, _, entry)| entry);
        let ours = entries.filter(|entry| *entry.ballot() == self.takeover.ballot);
        Ok(ours.map(|entry| name_of(&entry)).collect())
    }
}

/// Sets aside what only this copy has of a life of this site's log that was cut: the log has lost its tail, in a power cut perhaps. Does
/// nothing for a copy that has not applied anything of that life beyond the cut. Tells how many entries it made.
pub(crate) async fn set_copy_aside(
    connection: &Connection,
    site: &SiteName,
    store: &Reader,
    takeovers: &Takeovers,
) -> Result<usize, HomecomingError> {
    let OriginState { applied, incarnation, .. } = store.snapshot()?.origin(site)?;
    let Some(copied) = incarnation.filter(|_| applied.0 > 0) else { return Ok(0) };
    let of_life = |it: &&Takeover| it.lost == *site && it.lost_log.counter() >= copied.counter() && applied > it.cut;
    let Some(takeover) = takeovers.iter().find(of_life) else { return Ok(0) };
    let log = SitesLog::new(connection.clone(), site.clone());
    // What the log still has of that life is set aside from there.
    let mut behind = match log.life(site).await? {
        Some((begun_at, life)) if life.ended_by.ballot == takeover.ballot => StreamSequence(begun_at.0 - 1),
        Some((_, life)) if life.log.counter() > takeover.lost_log.counter() => takeover.cut,
        _ => log.mirror(site).await?.last,
    };
    behind = behind.max(takeover.cut);
    let stranded = StrandedLog::new(connection.clone(), site.clone());
    let mut listed: Listed = HashSet::new();
    for (_, kind, entry) in stranded.entries().await? {
        let commands: Vec<_> = match entry {
            Stranded::Update { update, .. } => {
                update.changes.into_iter().map(|change| (Some(update.id.clone()), change.command_id)).collect()
            }
            Stranded::Outcome { change, .. } => vec![(change.id, change.command_id)],
            Stranded::Command { .. } => Vec::new(),
        };
        listed.extend(commands.into_iter().map(|(id, command_id)| (kind.clone(), id, command_id)));
    }
    let mut count = 0;
    loop {
        let page = store.snapshot()?.outcomes_behind(site, behind, PAGE_OUTCOMES)?;
        let Some((_, last)) = page.last() else { break };
        behind = last.sequence;
        for (kind, StoredOutcome { change, sequence, .. }) in page {
            if listed.insert((kind.clone(), change.id.clone(), change.command_id.clone())) {
                let ballot = takeover.ballot.clone();
                let entry = Stranded::Outcome { ballot, sequence, change: Box::new(change) };
                stranded.append(&kind, name_of(&entry), &entry).await?;
                count += 1;
            }
        }
    }
    if count > 0 {
        tracing::warn!(%site, %applied, count, "this copy had what the site's log has lost: see `freehold stranded`");
    }
    Ok(count)
}

/// The same entry has the same name.
fn name_of(entry: &Stranded) -> String {
    let Ballot { term, taker } = entry.ballot();
    match entry {
        Stranded::Update { sequence, .. } => format!("{term}-{taker}-{sequence}"),
        Stranded::Outcome { sequence, change, .. } => {
            let id = change.id.as_ref().map(RecordId::as_str).unwrap_or_default();
            let command = Hash::of([id.as_bytes(), change.command_id.as_str().as_bytes()]);
            format!("{term}-{taker}-{sequence}-{command}")
        }
        Stranded::Command { sequence, .. } => format!("{term}-{taker}-command-{sequence}"),
    }
}
