//! Refusals that the commands share. They go into the log, so their length is bounded whatever the request holds.

use freehold::core::{DecisionContext, ErrorCode, Refusal};

/// The longest text of a caller's that a refusal repeats.
const MAX_SHOWN_CHARS: usize = 200;

/// The request's fields do not fit the command.
pub(crate) fn invalid(error: &serde_json::Error) -> Refusal {
    let message = format!("the request's fields do not fit the command: {error}");
    Refusal::new(ErrorCode::Invalid, shortened(&message))
}

/// There is no record to change.
pub(crate) fn not_found(context: &DecisionContext<'_>) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("there is no record {:?}", context.id))
}

/// A decision cannot be printed, or a stored record cannot be read.
pub(crate) fn internal(error: &serde_json::Error) -> Refusal {
    Refusal::new(ErrorCode::Internal, shortened(&format!("the record cannot be read or written: {error}")))
}

/// The text, or its beginning.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
