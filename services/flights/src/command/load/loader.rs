//! Sends flights: many at a time, the commands of each one after the other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use flights::data::{FlightCommand, FlightRow};
use freehold::core::{ErrorCode, KindName};
use freehold::prelude::Record;
use freehold::{Answer, Client, SendOptions};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::meter::Meter;
use super::options::Pace;
use super::sites::Sites;
use crate::command::input::Rows;

/// Between two tries of a command.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// How a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The file was sent to its end.
    AtTheEnd,
    /// It was told to stop; the flights that were under way were finished.
    Early,
}

/// Sends a file.
#[derive(Debug)]
pub(crate) struct Loader {
    pub(crate) sites: Sites,
    pub(crate) pace: Pace,
    pub(crate) meter: Arc<Meter>,
    /// Once true, no flight is begun any more.
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Loader {
    /// Sends all flights; returns when every command has its answer or was given up.
    pub(crate) async fn run(self, rows: Rows) -> anyhow::Result<Ended> {
        let begun = rows.take_while(|_| !*self.stopped.borrow());
        let flights = futures::stream::iter(begun).map(|row| async { self.send(&row?).await });
        let mut sent = flights.buffer_unordered(self.pace.in_flight.get());
        while let Some(flight) = sent.next().await {
            flight?;
        }
        Ok(if *self.stopped.borrow() { Ended::Early } else { Ended::AtTheEnd })
    }

    /// Sends a flight's commands. What happened later makes no sense where something before it failed.
    async fn send(&self, row: &FlightRow) -> anyhow::Result<()> {
        let home = row.home();
        let client = self.sites.client(&home).with_context(|| format!("site {home} is not known"))?;
        for command in row.commands() {
            if let Err(failure) = self.send_command(client, row, &command).await? {
                self.meter.failed(format!("{} {}: {failure}", row.id, command.name()));
                return Ok(());
            }
        }
        self.meter.flight_done();
        Ok(())
    }

    /// Sends one command until it is answered or the patience is over.
    async fn send_command(
        &self,
        client: &Client,
        row: &FlightRow,
        command: &FlightCommand,
    ) -> anyhow::Result<Result<(), String>> {
        let body = Bytes::from(command.request(&row.id)?);
        let options = SendOptions {
            command_id: Some(command.command_id(&row.id)),
            timeout: self.pace.try_timeout(),
            ..SendOptions::default()
        };
        let kind = flight_kind();
        let started = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match client.request(&kind, command.name(), body.clone(), &options).await {
                Ok(answer) => match Meaning::of(&answer) {
                    Meaning::Done { before } => {
                        self.meter.answered(started.elapsed(), tries, before);
                        return Ok(Ok(()));
                    }
                    Meaning::Refused(failure) => return Ok(Err(failure)),
                    Meaning::Again(failure) => failure,
                },
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            };
            if started.elapsed() >= self.pace.patience() {
                return Ok(Err(format!("given up after {tries} tries: {failure}")));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// What an answer means to a load.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The record has the command, or, `before`, is past it.
    Done { before: bool },
    /// The same command may succeed when it is sent again.
    Again(String),
    /// It will not.
    Refused(String),
}

impl Meaning {
    fn of(answer: &Answer) -> Self {
        match &answer.result {
            Ok(_) => Self::Done { before: false },
            Err(refusal) => {
                let text = format!("{}: {}", refusal.code.as_str(), refusal.message);
                match refusal.code {
                    // Outcomes are kept for a time. A repeat that comes later is decided anew, and the rules say that the
                    // flight is past it. Whether it is, the verification tells.
                    ErrorCode::Rejected => Self::Done { before: true },
                    ErrorCode::Busy | ErrorCode::OutcomeUnknown | ErrorCode::OwnerUnreachable => Self::Again(text),
                    _ => Self::Refused(text),
                }
            }
        }
    }
}

/// The kind `flight`.
pub(crate) fn flight_kind() -> KindName {
    match flights::Flight::KIND.parse() {
        Ok(kind) => kind,
        Err(error) => unreachable!("the kind's name is fixed in the program: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use freehold::core::Refusal;

    use super::*;

    #[test]
    fn what_is_sent_again_and_what_is_not() {
        let meaning = |code| {
            let result = Err(Refusal::new(code, "why"));
            Meaning::of(&Answer { result, version: None, owner: None, command_id: None })
        };
        assert_eq!(meaning(ErrorCode::Rejected), Meaning::Done { before: true });
        for code in [ErrorCode::Busy, ErrorCode::OutcomeUnknown, ErrorCode::OwnerUnreachable] {
            assert!(matches!(meaning(code), Meaning::Again(_)), "{code:?}");
        }
        for code in [ErrorCode::Invalid, ErrorCode::Conflict, ErrorCode::NotOwner, ErrorCode::Internal] {
            assert!(matches!(meaning(code), Meaning::Refused(_)), "{code:?}");
        }
        let applied = Answer { result: Ok(Bytes::new()), version: None, owner: None, command_id: None };
        assert_eq!(Meaning::of(&applied), Meaning::Done { before: false });
    }
}
