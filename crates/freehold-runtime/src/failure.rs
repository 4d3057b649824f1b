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
    /// The client's own task has ended.
    #[error("the connection is gone for good")]
    Connection,
}
