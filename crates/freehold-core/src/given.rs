//! `given(record).when(command).then(…)`: tests of rules without NATS and without tokio.

use std::fmt::Debug;

use crate::decision::{Command, DecisionContext, Verdict};
use crate::id::{CommandId, RecordId};
use crate::name::SiteName;
use crate::number::{LogTime, RecordVersion};

/// A record before a command.
#[derive(Debug)]
pub struct Given<R> {
    record: Option<R>,
    id: RecordId,
    log_time: LogTime,
}

/// Starts a test from a record.
pub fn given<R>(record: R) -> Given<R> {
    Given { record: Some(record), ..given_nothing() }
}

/// Starts a test where no record exists.
pub fn given_nothing<R>() -> Given<R> {
    let id = "ewr-1".parse().unwrap_or_else(|error| panic!("a fixed id: {error}"));
    Given { record: None, id, log_time: LogTime(1_357_000_000_000) }
}

impl<R> Given<R> {
    /// Gives the record another id than `ewr-1`.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = id.parse().unwrap_or_else(|error| panic!("{id:?}: {error}"));
        self
    }

    /// Sets the time at which the log took the command.
    #[must_use]
    pub fn at(mut self, log_time: LogTime) -> Self {
        self.log_time = log_time;
        self
    }

    /// Decides a command.
    pub fn when<C: Command<Record = R>>(self, command: C) -> When<C> {
        let site: SiteName = "ewr".parse().unwrap_or_else(|error| panic!("a fixed name: {error}"));
        let command_id = CommandId::from_caller("test").unwrap_or_else(|error| panic!("a fixed id: {error}"));
        let version = RecordVersion(u64::from(self.record.is_some()));
        let context = DecisionContext::new(&self.id, &command_id, self.log_time, version, &site);
        When { verdict: command.decide(self.record, &context) }
    }
}

/// A verdict to look at.
pub struct When<C: Command> {
    verdict: Verdict<C>,
}

impl<C: Command> When<C>
where
    C::Record: PartialEq + Debug,
    C::Reply: Debug,
    C::Rejection: PartialEq + Debug,
{
    /// The command was accepted and made the record this.
    #[track_caller]
    pub fn then(self, expected: C::Record) {
        match self.verdict.accepted() {
            Some((record, _)) => assert_eq!(record, expected),
            None => panic!("the command was not accepted with a new record"),
        }
    }

    /// The command was rejected for this reason.
    #[track_caller]
    pub fn then_rejected(self, expected: C::Rejection) {
        match self.verdict.rejected() {
            Some(rejection) => assert_eq!(rejection, expected),
            None => panic!("the command was not rejected"),
        }
    }

    /// The verdict itself.
    pub fn verdict(self) -> Verdict<C> {
        self.verdict
    }
}
