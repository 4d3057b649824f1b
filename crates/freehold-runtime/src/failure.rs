//! Why an instance cannot go on as it is.

use freehold_core::SiteName;
use freehold_store::Error as StoreError;

/// Found by a task of the instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The copy cannot be read or written.
    #[error("the copy failed")]
    Store(#[from] StoreError),
    /// The copy has other records than a site has logged.
    #[error("the copy of {0}'s records is not what that site has logged")]
    Diverged(SiteName),
    /// This site was taken over.
    #[error("site {taker} has taken this one over: what it decided beyond the cut does not count")]
    TakenOver {
        /// By whom.
        taker: SiteName,
    },
    /// The copy has applied what does not count of a lost site's log.
    #[error("the copy has more of {0}'s log than counts since it was taken over")]
    Ahead(SiteName),
    /// The client's own task has ended.
    #[error("the connection is gone for good")]
    Connection,
}
