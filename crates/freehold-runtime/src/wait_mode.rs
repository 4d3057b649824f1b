//! How long a caller waits: what must have happened before a command is answered.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a change waits for, the least first. Written `accepted`, `applied` or `sites=N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WaitMode {
    /// The site's log has the command.
    Accepted,
    /// The outcome is in the owner's log and committed to the copy of the instance that answers.
    #[default]
    Applied,
    /// So many other sites have confirmed it, too: each has it in its mirror and committed to the copy of an instance.
    Sites(NonZeroUsize),
}

/// A text is no wait mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of accepted, applied, sites=N with N from 1")]
pub struct WaitModeError(String);

impl FromStr for WaitMode {
    type Err = WaitModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "accepted" => Ok(Self::Accepted),
            "applied" => Ok(Self::Applied),
            _ => {
                // Digits alone: `parse` would take a sign, too.
                let digits = text.strip_prefix("sites=").filter(|count| count.bytes().all(|it| it.is_ascii_digit()));
                let count = digits.and_then(|digits| digits.parse().ok());
                count.map(Self::Sites).ok_or_else(|| WaitModeError(text.chars().take(64).collect()))
            }
        }
    }
}

impl fmt::Display for WaitMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => formatter.write_str("accepted"),
            Self::Applied => formatter.write_str("applied"),
            Self::Sites(count) => write!(formatter, "sites={count}"),
        }
    }
}

impl TryFrom<String> for WaitMode {
    type Error = WaitModeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WaitMode> for String {
    fn from(mode: WaitMode) -> Self {
        mode.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_back_and_ordered() {
        let modes: Vec<WaitMode> =
            ["accepted", "applied", "sites=1", "sites=2"].iter().map(|text| text.parse().unwrap()).collect();
        assert!(modes.is_sorted_by(|left, right| left < right));
        for mode in modes {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for bad in
            ["", "Applied", "sites=", "sites=0", "sites=+1", "sites=-1", "sites=1 ", "sites=99999999999999999999"]
        {
            assert!(bad.parse::<WaitMode>().is_err(), "{bad:?}");
        }
    }
}
