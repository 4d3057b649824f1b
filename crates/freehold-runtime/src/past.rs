//! What an instance learns of takeovers before it reads any log: what lies beyond a cut must not be applied.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use freehold_core::{CopyRead as _, Incarnation, Life, SiteName, StreamSequence, Takeover, Takeovers};
use freehold_jetstream::{ApiError, Connection, RecordsLog, RecordsLogFacts, SitesLog};
use freehold_store::Store;

use crate::config::{Alone, ServiceConfig};
use crate::homecoming::set_copy_aside;
use crate::instance::open_store;
use crate::loss_care::known_here;
use crate::service::StartError;

/// What the streams at the own site tell of takeovers.
pub(crate) struct Past {
    site: SiteName,
    known: Takeovers,
    /// The life of the own log, before this start.
    log: Incarnation,
}

/// How long other sites may take to say how much of this site's log they have.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause before they are asked again, where none has answered and this site must not begin alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Checks that no other site has more of this site's log than this site itself: its disk may have been lost, or put back from an
/// old copy. Where none answers, the configuration says whether this site begins alone.
pub(crate) async fn check_own_log(connection: &Connection, config: &ServiceConfig) -> Result<(), StartError> {
    let others: Vec<_> = config.sites.iter().filter(|other| **other != config.site).collect();
    if others.is_empty() {
        return Ok(());
    }
    let here = RecordsLog::new(connection.clone(), config.site.clone());
    loop {
        let asked =
            others.iter().map(|other| {
                let there = SitesLog::new(connection.in_domain(other), (*other).clone());
                async move {
                    timeout(PATIENCE, there.mirror(&config.site)).await.ok()?.ok().map(|mirror| (mirror.last, *other))
                }
            });
        let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let ours = here.state(&config.site).await?.last;
        match answers.iter().max() {
            Some((theirs, site)) if *theirs > ours => {
                return Err(StartError::LogBehind { ours, theirs: *theirs, site: (*site).clone() });
            }
            None if config.alone == Alone::Refuse => {
                tracing::warn!(site = %config.site, "no other site answers: this one does not begin alone");
                tokio::time::sleep(PAUSE).await;
            }
            None => {
                tracing::warn!(site = %config.site, "no other site answers: beginning alone");
                return Ok(());
            }
            Some(_) => return Ok(()),
        }
    }
}

impl Past {
    /// Reads the own log and the mirrors of others. `known` is what an earlier life of this instance knew.
    pub(crate) async fn find(
        connection: &Connection,
        config: &ServiceConfig,
        facts: &RecordsLogFacts,
        known: &Takeovers,
    ) -> Result<Self, ApiError> {
        let mut known = known.clone();
        // Among them what has ended the last life of the own log.
        for message in known_here(connection, &config.site, &config.sites).await? {
            known.note(message.takeover, message.sequence);
        }
        let life = SitesLog::new(connection.clone(), config.site.clone()).life(&config.site).await?;
        let log = life.map_or_else(|| facts.incarnation.clone(), |(_, life)| life.log);
        Ok(Self { site: config.site.clone(), known, log })
    }

    /// Tells the copy. One that has applied what does not count is set aside, and made anew; tells whether that was so.
    pub(crate) async fn teach(
        &self,
        connection: &Connection,
        config: &ServiceConfig,
        store: Store,
    ) -> Result<(Store, Takeovers, bool), StartError> {
        let snapshot = store.reader().snapshot().map_err(StartError::Store)?;
        let stored = snapshot.takeovers().map_err(StartError::Store)?;
        let mut takeovers = self.known.clone();
        for (takeover, sequence) in stored.logged() {
            takeovers.note(takeover.clone(), sequence);
        }
        // A log of the same name may be another one: what the copy has is of none of its messages then.
        let applied_log = snapshot.origin(&config.site).map_err(StartError::Store)?.incarnation;
        let log = self.log(&takeovers);
        if let Some(applied) = applied_log.filter(|applied| applied.counter() == log.counter() && *applied != log) {
            return Err(StartError::LogReplaced { applied, found: log });
        }
        let mut is_ahead = false;
        for takeover in takeovers.iter() {
            let is_new = stored.iter().all(|it| (&it.ballot, &it.lost) != (&takeover.ballot, &takeover.lost));
            let copied = snapshot.origin(&takeover.lost).map_err(StartError::Store)?;
            // It may have heard of it before, and have been killed before it was made anew.
            is_ahead |= copied.is_ahead || is_new && copied.applied > takeover.cut;
        }
        drop(snapshot);
        let store = if is_ahead {
            let set_aside = set_copy_aside(connection, &config.site, &store.reader(), &takeovers).await;
            set_aside.map_err(|error| StartError::Homecoming(error.into()))?;
            drop(store);
            open_store(config, true).await?.0
        } else {
            store
        };
        Ok((store, takeovers, is_ahead))
    }

    /// The takeover that has ended this site's life, where it has not begun a new one, and where that was logged.
    pub(crate) fn loss<'t>(&self, takeovers: &'t Takeovers) -> Option<(&'t Takeover, StreamSequence)> {
        let of_site = |(takeover, _): &(&Takeover, StreamSequence)| takeover.lost == self.site;
        let (takeover, at) = takeovers.logged().rev().find(of_site)?;
        // Instances that have lived on in the old life may have logged something since the new one began.
        (takeover.lost_log.counter() + 1 >= self.log.counter()).then_some((takeover, at))
    }

    /// The life of the log that the instance works in.
    pub(crate) fn log(&self, takeovers: &Takeovers) -> Incarnation {
        match self.loss(takeovers) {
            Some((takeover, at)) => Life::after(takeover.clone(), at).log,
            None => self.log.clone(),
        }
    }
}
