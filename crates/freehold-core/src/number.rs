//! Numbers that must not be mixed up, and the identity of a log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares a number type of its own, so that a version can never be passed where a sequence is meant.
macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number that follows.
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number_type!(
    /// A message's place in a stream. The first is 1; 0 stands for "before the first".
    StreamSequence
);
number_type!(
    /// How many state-changing commands a record has seen; 0 where the record never existed.
    RecordVersion
);
number_type!(
    /// A command's place among those of its group that one site has forwarded to another. The first is 1, and no number is
    /// left out.
    ForwardNumber
);
number_type!(
    /// Counts the moves of a record's ownership: `term · 2³² + moves`.
    Epoch
);
number_type!(
    /// Counts takeovers: each has a higher one than all that its taker had heard of.
    Term
);
number_type!(
    /// Counts the lives of a group's command log: a log that was rewound goes on under the next number.
    CommandLogIncarnation
);
number_type!(
    /// The revision of the member list in its key-value bucket.
    MembersRevision
);

impl Epoch {
    /// Bits that count moves; those above them count takeovers.
    const MOVE_BITS: u32 = 32;

    /// The takeover that the epoch follows.
    pub fn term(self) -> Term {
        Term(self.0 >> Self::MOVE_BITS)
    }

    /// The same epoch behind a takeover.
    #[must_use]
    pub fn taken_over(self, term: Term) -> Self {
        Self(term.0 << Self::MOVE_BITS | self.0 & ((1 << Self::MOVE_BITS) - 1))
    }
}

/// A time that a stream gave to a message, in milliseconds since 1970 (UTC). Never the clock of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogTime(pub u64);

impl LogTime {
    /// Milliseconds that lie between an earlier time and this one; 0 where the other is not earlier.
    pub fn ms_since(self, earlier: LogTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One unbroken life of a records log: a counter, higher each time the stream starts anew, and a random id, so that two
/// lives are never taken for one. Written `<counter>-<id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(std::sync::Arc<str>);

impl Incarnation {
    /// An incarnation from its counter and a random id of letters and digits.
    pub fn new(counter: u64, id: &str) -> Self {
        Self(format!("{counter}-{id}").into())
    }

    /// Reads the form that [`Incarnation::as_str`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        let (counter, id) = text.split_once('-')?;
        counter.parse::<u64>().ok()?;
        (!id.is_empty()).then(|| Self(text.into()))
    }

    /// How many lives the log has had, this one included.
    pub fn counter(&self) -> u64 {
        self.0.split('-').next().and_then(|counter| counter.parse().ok()).unwrap_or(0)
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
