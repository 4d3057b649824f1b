//! Which sites are lost, as far as this site knows: their logs are sealed here, or were taken over.
//!
//! What is so is in the streams: a mirror that was sealed, and the takeovers that the copy knows. This is what the instance has
//! last seen of it.

use std::collections::HashMap;

use tokio::sync::{Notify, watch};

use freehold_core::{SiteName, StreamSequence, Takeover, Takeovers};
use freehold_jetstream::{ApiError, SitesLog};

/// How a site is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loss {
    /// This site has sealed its log. Nobody may have taken it over yet.
    Sealed,
    /// Its log counts up to a cut.
    TakenOver(Takeover),
}

impl Loss {
    /// The last message that may be applied; nothing where the mirror's end is that.
    pub(crate) fn cut(&self) -> Option<StreamSequence> {
        match self {
            Self::Sealed => None,
            Self::TakenOver(takeover) => Some(takeover.cut),
        }
    }
}

/// The other sites, and how each is lost.
pub(crate) struct Losses(HashMap<SiteName, (watch::Sender<Option<Loss>>, Notify)>);

impl Losses {
    pub(crate) fn new(found: impl IntoIterator<Item = (SiteName, Option<Loss>)>) -> Self {
        let entry = |(origin, loss): (SiteName, Option<Loss>)| (origin, (watch::channel(loss).0, Notify::new()));
        Self(found.into_iter().map(entry).collect())
    }

    /// How a site is lost now.
    pub(crate) fn of(&self, origin: &SiteName) -> Option<Loss> {
        self.0.get(origin).and_then(|(loss, _)| loss.borrow().clone())
    }

    /// Whether a site's log is known to end at a cut.
    pub(crate) fn is_cut(&self, origin: &SiteName) -> bool {
        self.0.get(origin).is_some_and(|(loss, _)| matches!(*loss.borrow(), Some(Loss::TakenOver(_))))
    }

    /// Tells of changes; nothing for the own site.
    pub(crate) fn watch(&self, origin: &SiteName) -> Option<watch::Receiver<Option<Loss>>> {
        self.0.get(origin).map(|(loss, _)| loss.subscribe())
    }

    /// Notes what was seen.
    pub(crate) fn note(&self, origin: &SiteName, seen: Option<Loss>) {
        if let Some((loss, _)) = self.0.get(origin) {
            loss.send_if_modified(|known| {
                let changed = *known != seen;
                if changed {
                    tracing::warn!(%origin, loss = ?seen, "what is known of a site's loss has changed");
                    *known = seen;
                }
                changed
            });
        }
    }

    /// Something was heard: look again.
    pub(crate) fn look_again(&self, origin: &SiteName) {
        if let Some((_, again)) = self.0.get(origin) {
            again.notify_one();
        }
    }

    /// Returns when there is something to look at.
    pub(crate) async fn wants_look(&self, origin: &SiteName) {
        match self.0.get(origin) {
            Some((_, again)) => again.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// How a site is lost, by this site's mirror of its log and the takeovers that are known. A mirror that nobody has sealed, of a
/// log that was cut, is sealed now: this site was not asked.
pub(crate) async fn look(log: &SitesLog, takeovers: &Takeovers, origin: &SiteName) -> Result<Option<Loss>, ApiError> {
    let mirror = log.mirror(origin).await?;
    let takeover = takeovers.of(origin).filter(|takeover| takeover.lost_log.counter() >= mirror.lives);
    if takeover.is_some() && !mirror.is_sealed {
        log.freeze(origin).await?;
    }
    Ok(match takeover {
        Some(takeover) => Some(Loss::TakenOver(takeover.clone())),
        None => mirror.is_sealed.then_some(Loss::Sealed),
    })
}
