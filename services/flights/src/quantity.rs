//! Amounts with their unit in the type.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Minutes; as a delay, less than 0 where something happened early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Minutes(pub i64);

impl fmt::Display for Minutes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} min", self.0)
    }
}

/// A distance in miles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Miles(pub u32);
