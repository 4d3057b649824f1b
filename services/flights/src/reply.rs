//! What the caller of an accepted command gets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flight::FlightStatus;
use crate::quantity::Minutes;

/// Where the command brought the flight, and what the caller could not know: the delay that the rule worked out. The
/// record itself can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlightReply {
    /// How far the flight has come.
    pub status: FlightStatus,
    /// Of a departure or an arrival: minutes behind the schedule; less than 0 where it was early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_minutes: Option<Minutes>,
}

impl FlightReply {
    pub(crate) fn new(status: FlightStatus) -> Self {
        Self { status, delay_minutes: None }
    }

    pub(crate) fn delayed(status: FlightStatus, delay_minutes: Minutes) -> Self {
        Self { status, delay_minutes: Some(delay_minutes) }
    }
}
