//! What an instance does about another site that is lost: it looks for who has taken that site over, and mirrors it again when
//! it has come back.

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tokio::try_join;

use freehold_core::{CopyRead, SiteName, Takeover, TakeoverMessage};
use freehold_jetstream::{ApiError, Connection, SitesLog};

use crate::copy::Copy;
use crate::group_worker::describe;
use crate::losses::{Loss, look};
use crate::store_thread::StoreJob;

/// How often a lost site is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long another site may take to say what it knows: less, so that one that hangs does not hide what the others say.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Takes care of one origin.
pub(crate) struct LossCare {
    pub(crate) connection: Connection,
    pub(crate) site: SiteName,
    pub(crate) origin: SiteName,
    pub(crate) sites: Vec<SiteName>,
    pub(crate) copy: Copy,
    pub(crate) jobs: mpsc::Sender<StoreJob>,
}

impl LossCare {
    /// Never returns.
    pub(crate) async fn run(self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let heard = tokio::select! {
                _ = interval.tick() => false,
                () = self.copy.losses.wants_look(&self.origin) => true,
            };
            if heard || self.copy.losses.of(&self.origin).is_some() {
                self.look().await;
            }
        }
    }

    /// Looks how the origin is lost, and does what is to be done about it.
    async fn look(&self) {
        match timeout(PATIENCE, self.try_look()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(origin = %self.origin, error = describe(error.as_ref()), "a lost site is looked at again");
            }
            Err(_) => tracing::debug!(origin = %self.origin, "a lost site is looked at again: no answer"),
        }
    }

    async fn try_look(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let takeovers = self.copy.reader.snapshot()?.takeovers()?;
        let here = SitesLog::new(self.connection.clone(), self.site.clone());
        let loss = look(&here, &takeovers, &self.origin).await?;
        self.copy.losses.note(&self.origin, loss.clone());
        match loss {
            None => {}
            Some(Loss::Sealed) => self.ask_for_takeovers(&self.sites).await,
            Some(Loss::TakenOver(takeover)) => {
                self.welcome_back(&here, &takeover).await?;
                self.ask_for_takeovers(std::slice::from_ref(&self.origin)).await;
            }
        }
        Ok(())
    }

    /// A member that has sealed a log may not be able to read that of the taker: it may have been lost itself since. And who has taken
    /// over this very site may have logged that in a log that this site takes no more of. Whoever answers is asked.
    async fn ask_for_takeovers(&self, sites: &[SiteName]) {
        let asked = sites.iter().map(|site| {
            let there = SitesLog::new(self.connection.in_domain(site), site.clone());
            let told = async move {
                let (takeovers, accepted) = try_join!(there.takeovers(site), there.accepted(site))?;
                Ok::<_, ApiError>(takeovers.into_iter().chain(accepted))
            };
            async move { timeout(ANSWER_PATIENCE, told).await.ok()?.ok() }
        });
        let found = join_all(asked).await.into_iter().flatten().flatten();
        for message in found.filter(|it| [&self.origin, &self.site].contains(&&it.takeover.lost)) {
            // The store thread ends only with the instance.
            let _ = self.jobs.send(StoreJob::Learn(message)).await;
        }
    }

    /// Once its taker has everything in its own log, a site that has begun a new life is mirrored again.
    async fn welcome_back(&self, here: &SitesLog, takeover: &Takeover) -> Result<(), ApiError> {
        let is_complete = self.copy.progress_of(&self.origin) >= takeover.cut;
        if !takeover.adopted || !is_complete {
            return Ok(());
        }
        let there = SitesLog::new(self.connection.in_domain(&self.origin), self.origin.clone());
        let Some((_, life)) = there.life(&self.origin).await? else { return Ok(()) };
        if life.log.counter() > takeover.lost_log.counter() {
            tracing::info!(origin = %self.origin, life = %life.log, "a site has come back: mirroring it again");
            here.mirror_again(&self.origin, &life.log).await?;
            self.copy.losses.note(&self.origin, None);
        }
        Ok(())
    }
}

/// All takeovers that the logs at a site tell of: its own, and the mirrors of others. Who has logged one, and who has begun a new life by one.
pub(crate) async fn known_here(
    connection: &Connection,
    site: &SiteName,
    sites: &[SiteName],
) -> Result<Vec<TakeoverMessage>, ApiError> {
    let here = SitesLog::new(connection.clone(), site.clone());
    let mut found = Vec::new();
    for site in sites {
        found.extend(here.takeovers(site).await?);
        found.extend(here.accepted(site).await?);
    }
    Ok(found)
}
