//! Callers: what they sent, what they were told, and whether that is what the log says.

use freehold_core::{Change, CommandMessage, Outcome};

use crate::world::{TOO_LARGE, World, note};

/// A command and what its caller knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) message: CommandMessage,
    pub(crate) times_sent: u32,
    /// The server will never take it.
    pub(crate) hopeless: bool,
    pub(crate) answer: Option<Answer>,
}

/// What a caller is told, from the copy of some instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Outcome(Outcome),
    /// The command id stands for another command.
    Conflict,
}

impl Answer {
    pub(crate) fn of(change: &Change, message: &CommandMessage) -> Self {
        match change.fingerprint == message.fingerprint() {
            true => Self::Outcome(change.outcome.clone()),
            false => Self::Conflict,
        }
    }
}

impl Call {
    pub(crate) fn new(message: CommandMessage) -> Self {
        Self { message, times_sent: 0, hopeless: false, answer: None }
    }
}

impl World {
    /// What an instance would answer now.
    pub(crate) fn ask(&self, index: usize, message: &CommandMessage) -> Option<Answer> {
        let found = self.instances[index].copy.outcome_of(&message.id, &message.command_id)?;
        Some(Answer::of(&found.change, message))
    }

    /// A caller looks for its answer at an instance. Every answer must be what the log says.
    pub(crate) fn look(&mut self, index: usize, call: &mut Call) {
        if !self.instances[index].runs() {
            return;
        }
        let Some(answer) = self.ask(index, &call.message) else { return };
        let (id, command_id) = (&call.message.id, &call.message.command_id);
        let logged = self.oracle.decided(id, command_id);
        let lawful = logged.is_some_and(|decided| {
            let entries = [Some(&decided.change), decided.forgotten.as_ref(), decided.earlier.as_ref()];
            entries.into_iter().flatten().any(|change| Answer::of(change, &call.message) == answer)
        });
        if !lawful {
            let text = format!("i{index} answers {answer:?} to {id} {command_id}; the log says {logged:?}");
            self.break_off(|| text);
        }
        if call.answer.is_none() {
            note!(self, "i{index} answers {id} {command_id}: {answer:?}");
        }
        call.answer = Some(answer);
    }

    /// Whether a retry still counts as one: W has not passed since the first outcome.
    pub(crate) fn may_retry(&self, call: &Call) -> bool {
        let decided = self.oracle.decided(&call.message.id, &call.message.command_id);
        !call.hopeless && decided.is_none_or(|decided| self.now < decided.time + self.setup.outcomes_ms)
    }

    /// A caller sends its command, once more or for the first time.
    pub(crate) fn call(&mut self, call: &mut Call) {
        call.times_sent += 1;
        let sent = self.send(&call.message);
        call.hopeless = sent == Err(TOO_LARGE);
        note!(self, "call {} {} {}: {sent:?}", call.message.id, call.message.name, call.message.command_id);
    }
}
