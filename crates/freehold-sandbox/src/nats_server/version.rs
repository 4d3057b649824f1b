//! The version that `nats-server --version` prints.

use std::fmt;
use std::str::FromStr;

/// The least version that Freehold works with: the first with consumer reset and durable sourcing.
pub const MINIMUM: NatsServerVersion = NatsServerVersion { major: 2, minor: 14, patch: 0, is_release: true };

/// A version of nats-server. A release candidate comes before its release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatsServerVersion {
    major: u32,
    minor: u32,
    patch: u32,
    is_release: bool,
}

/// The text holds no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no version like v2.14.0 in it")]
pub struct NoVersion;

impl FromStr for NatsServerVersion {
    type Err = NoVersion;

    /// Takes `nats-server: v2.15.1`, `v2.15.1` or `2.15.1-RC.2`.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let text = text.trim().rsplit(' ').next().ok_or(NoVersion)?;
        let text = text.strip_prefix('v').unwrap_or(text);
        let (numbers, is_release) = match text.split_once('-') {
            Some((numbers, _)) => (numbers, false),
            None => (text, true),
        };
        let mut parts = numbers.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch, is_release }),
            _ => Err(NoVersion),
        }
    }
}

impl fmt::Display for NatsServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.is_release { "" } else { " (pre-release)" };
        write!(f, "{}.{}.{}{suffix}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> NatsServerVersion {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_read_and_ordered() {
        assert_eq!(version("nats-server: v2.15.1\n"), version("2.15.1"));
        assert_eq!(version("v2.14.0"), MINIMUM);
        assert!(version("2.10.29") < MINIMUM);
        assert!(version("2.14.0-RC.3") < MINIMUM);
        assert!(version("2.14.1-RC.1") > MINIMUM);
        assert!(version("3.0.0") > MINIMUM);
    }

    #[test]
    fn other_texts_are_no_versions() {
        for text in ["", "nats-server", "v2.14", "2.14.x", "1.2.3.4"] {
            assert_eq!(text.parse::<NatsServerVersion>(), Err(NoVersion), "{text}");
        }
    }
}
