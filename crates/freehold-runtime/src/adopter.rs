//! Adoption: after a takeover the taker's log gets an update of every record that it owns by that, and what the lost site had
//! decided and not sent is sent. Nobody waits for it: records can be changed before they are adopted.
//!
//! Each record is adopted by a command in this site's log, as if it were given to this site. One instance at a time does so, the
//! first on the member list; which one that is matters for liveness only.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;

use freehold_core::{
    CommandId, CommandMessage, CopyRead, Decider as _, EmittedCommand, Json, KindDefinition, KindName, Member,
    PublishFailure, RecordId, Rehome, RehomeCommand, SiteName, StoredOutcome, Takeover,
};
use freehold_jetstream::{ApiError, AppendError, CommandLog, Connection, SitesLog};

use crate::copy::Copy;
use crate::group_worker::describe;
use crate::membership::MemberLists;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Records that are read at a time.
const PAGE_RECORDS: usize = 1_000;
/// Commands that wait for their outcomes.
const MAX_WAITING: usize = 256;
/// How long one of them may take before it is tried again with the next look.
const PATIENCE: Duration = Duration::from_secs(10);

/// Adopts what this site has taken over.
pub(crate) struct Adopter {
    pub(crate) connection: Connection,
    pub(crate) site: SiteName,
    pub(crate) member: Member,
    pub(crate) definitions: Vec<Arc<KindDefinition>>,
    pub(crate) copy: Copy,
    pub(crate) commands: CommandLog,
    pub(crate) lists: MemberLists,
}

#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error("the copy cannot be read")]
    Store(#[from] freehold_store::Error),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("a command cannot be made: {0}")]
    Command(String),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("that all is adopted was not logged")]
    Log(#[source] PublishFailure),
}

impl Adopter {
    /// Runs until the copy is gone.
    pub(crate) async fn run(self) {
        loop {
            match self.look().await {
                // There may be more behind it.
                Ok(true) => tokio::time::sleep(PAUSE / 10).await,
                Ok(false) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    tracing::debug!(error = describe(&error), "adoption goes on later");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Adopts what there is; tells whether there was something.
    async fn look(&self) -> Result<bool, AdoptError> {
        let is_first = |definition: &Arc<KindDefinition>| {
            self.lists.watch(&definition.name).borrow().members.first() == Some(&self.member)
        };
        let takeovers = self.copy.reader.snapshot()?.takeovers()?;
        let ours = takeovers.iter().filter(|takeover| takeover.ballot.taker == self.site && !takeover.adopted);
        let mut has_found = false;
        for takeover in ours {
            let is_complete = self.copy.progress_of(&takeover.lost) >= takeover.cut;
            if !is_complete || !self.definitions.iter().all(is_first) {
                continue;
            }
            let mut found = 0;
            for definition in &self.definitions {
                found += self.adopt(definition, takeover).await?;
            }
            found += self.send_unsent(takeover).await?;
            has_found |= found > 0;
            if found == 0 {
                self.note_adopted(takeover).await?;
            } else {
                tracing::info!(lost = %takeover.lost, records = found, "adopted");
            }
        }
        Ok(has_found)
    }

    /// Adopts the records of a kind. Tells how many it found.
    async fn adopt(&self, definition: &KindDefinition, takeover: &Takeover) -> Result<usize, AdoptError> {
        let kind = &definition.name;
        let body = Json::from_value(&Rehome { to: self.site.clone() });
        let body = body.map_err(|error| AdoptError::Command(error.to_string()))?;
        let (mut after, mut found) = (None, 0);
        loop {
            let snapshot = self.copy.reader.snapshot()?;
            let takeovers = snapshot.takeovers()?;
            let is_ours = |owner: &SiteName, epoch| takeovers.is_owned_by(takeover, owner, epoch);
            let page = snapshot.records_by_owner(kind, is_ours, after.as_ref(), PAGE_RECORDS)?;
            drop(snapshot);
            found += page.items.len();
            let sent = page.items.into_iter().map(|(id, epoch, version)| {
                let (name, body) = (RehomeCommand.name(), body.clone());
                async move {
                    let text = format!("adopt-{}-{epoch}-{version}", takeover.ballot.term);
                    let command_id = CommandId::from_caller(&text);
                    let command_id = command_id.map_err(|error| AdoptError::Command(error.to_string()))?;
                    let kind = kind.clone();
                    let command =
                        CommandMessage { kind, id, name, command_id, if_version: None, owner_down: None, body };
                    self.carry_out(definition, command).await
                }
            });
            let mut sent = stream::iter(sent).buffer_unordered(MAX_WAITING);
            while sent.try_next().await?.is_some() {}
            after = page.resume_after;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// What the lost site had decided and may not have sent. Tells how many commands it found.
    async fn send_unsent(&self, takeover: &Takeover) -> Result<usize, AdoptError> {
        let mut found = 0;
        for (kind, outcome) in self.copy.reader.snapshot()?.outcomes_with_emits(&takeover.lost)? {
            if !self.may_be_unsent(&kind, &outcome)? {
                continue;
            }
            for (index, emitted) in outcome.change.emits.iter().enumerate() {
                let EmittedCommand { kind, id, name, body } = emitted.clone();
                let Some(definition) = self.definitions.iter().find(|definition| definition.name == kind) else {
                    continue;
                };
                let command_id = outcome.change.command_id.emitted(index);
                let known = self.copy.reader.snapshot()?.outcome(&kind, Some(&id), &command_id)?;
                if known.is_some() {
                    continue;
                }
                found += 1;
                let command = CommandMessage { kind, id, name, command_id, if_version: None, owner_down: None, body };
                self.carry_out(definition, command).await?;
            }
        }
        Ok(found)
    }

    fn may_be_unsent(&self, kind: &KindName, outcome: &StoredOutcome) -> Result<bool, AdoptError> {
        let definition = self.definitions.iter().find(|definition| definition.name == *kind);
        let (Some(definition), Some(id)) = (definition, &outcome.change.id) else { return Ok(false) };
        let group = group_of(definition, id);
        let state = self.copy.reader.snapshot()?.group(&outcome.origin, kind, group)?;
        Ok(state.may_have_unsent(&outcome.origin, outcome))
    }

    /// Puts a command into this site's log and waits for a while until it is decided.
    async fn carry_out(&self, definition: &KindDefinition, command: CommandMessage) -> Result<(), AdoptError> {
        let CommandMessage { kind, id, command_id, .. } = &command;
        let mut waiter = self.copy.waiters.outcome(kind, id, command_id);
        if self.copy.reader.snapshot()?.outcome(kind, Some(id), command_id)?.is_none() {
            self.commands.append(group_of(definition, id), &command, None).await?;
            // Where it is not decided in time, the next look finds what is left.
            let _ = timeout(PATIENCE, waiter.wait()).await;
        }
        Ok(())
    }

    async fn note_adopted(&self, takeover: &Takeover) -> Result<(), AdoptError> {
        let log = SitesLog::new(self.connection.clone(), self.site.clone());
        let Some((sealed_at, seal)) = log.newest_seal(&takeover.lost).await? else { return Ok(()) };
        if seal.ballot != takeover.ballot {
            return Ok(());
        }
        let adopted = Takeover { adopted: true, ..takeover.clone() };
        log.take_over(sealed_at, &adopted).await.map_err(AdoptError::Log)?;
        tracing::info!(lost = %takeover.lost, "everything that was taken over is adopted");
        Ok(())
    }
}

fn group_of(definition: &KindDefinition, id: &RecordId) -> freehold_core::GroupNumber {
    match id.home_right() {
        Some(right) => right.group,
        None => definition.settings.groups.group_of(id),
    }
}
