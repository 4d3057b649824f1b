//! What JetStream's own calls answer when they fail.

/// A JetStream call failed: the server said no, or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{what} failed")]
pub struct ApiError {
    what: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ApiError {
    /// Names the call that failed.
    pub(crate) fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}
