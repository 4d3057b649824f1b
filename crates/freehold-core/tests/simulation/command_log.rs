//! A command log: sequences, the duplicate window over the whole stream, `discard: new` when full, purge, and the loss of its
//! tail.

use std::collections::{BTreeMap, HashMap};

use freehold_core::{
    CommandLogCheck, CommandLogIncarnation, DecidedCommand, Hash, LogTime, LoggedCommand, StreamSequence,
};

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) group: u16,
    pub(crate) time: u64,
    pub(crate) payload: Vec<u8>,
    message_id: Option<Hash>,
}

impl Entry {
    pub(crate) fn read(&self, sequence: u64) -> LoggedCommand {
        LoggedCommand::read(StreamSequence(sequence), LogTime(self.time), &self.payload)
    }
}

/// There is no room: nothing was stored.
#[derive(Debug)]
pub(crate) struct Full;

/// Who wants a place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// A request handler, which refuses requests while the log is above a mark.
    Request,
    /// A holder that sends what a decision asks for: it may use the headroom above the mark, up to the limit.
    Emission,
}

#[derive(Debug, Default)]
pub(crate) struct CommandLog {
    pub(crate) entries: BTreeMap<u64, Entry>,
    last: u64,
    recent: HashMap<Hash, (u64, u64)>,
    duplicate_window_ms: u64,
    /// The most commands that the log keeps.
    limit: usize,
    /// Requests are refused while it keeps so many.
    mark: usize,
    /// How often there was no room for a request, and for an emission.
    pub(crate) refused: (usize, usize),
    /// The most commands that it ever kept.
    pub(crate) most: usize,
}

impl CommandLog {
    pub(crate) fn new(duplicate_window_ms: u64, mark: usize, headroom: usize) -> Self {
        Self { duplicate_window_ms, mark, limit: mark + headroom, ..Self::default() }
    }

    /// Stores a command, or finds it among those of the duplicate window.
    pub(crate) fn publish(
        &mut self,
        group: u16,
        payload: Vec<u8>,
        message_id: Option<Hash>,
        from: From,
        now: u64,
    ) -> Result<u64, Full> {
        let recent = message_id.and_then(|id| self.recent.get(&id));
        if let Some((sequence, _)) = recent.filter(|(_, time)| now - time < self.duplicate_window_ms) {
            return Ok(*sequence);
        }
        let (room, refused) = match from {
            From::Request => (self.mark, &mut self.refused.0),
            From::Emission => (self.limit, &mut self.refused.1),
        };
        if self.entries.len() >= room {
            *refused += 1;
            return Err(Full);
        }
        self.last += 1;
        if let Some(id) = message_id {
            self.recent.insert(id, (self.last, now));
        }
        self.entries.insert(self.last, Entry { group, time: now, payload, message_id });
        self.most = self.most.max(self.entries.len());
        Ok(self.last)
    }

    pub(crate) fn check(&self, decided: &DecidedCommand, log: CommandLogIncarnation) -> CommandLogCheck {
        let sequence = decided.sequence.0;
        match self.entries.get(&sequence) {
            Some(entry) if entry.read(sequence).is(decided, log) => CommandLogCheck::Matches,
            _ => CommandLogCheck::Rewound,
        }
    }

    /// Removes a group's commands below a sequence; tells which.
    pub(crate) fn purge(&mut self, group: u16, below: u64) -> Vec<(u64, Entry)> {
        let doomed: Vec<u64> = self
            .entries
            .range(..below)
            .filter(|(_, entry)| entry.group == group)
            .map(|(sequence, _)| *sequence)
            .collect();
        doomed.into_iter().map(|sequence| (sequence, self.entries.remove(&sequence).unwrap())).collect()
    }

    /// The server comes back without the newest commands; the next ones get their sequences.
    pub(crate) fn lose_tail(&mut self, messages: u64) {
        self.last = self.last.saturating_sub(messages);
        let lost = self.entries.split_off(&(self.last + 1));
        for entry in lost.into_values() {
            if let Some(id) = entry.message_id {
                self.recent.remove(&id);
            }
        }
    }

    /// An operator makes room.
    pub(crate) fn raise_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// A group's commands behind a sequence.
    pub(crate) fn behind(&self, group: u16, after: u64) -> impl Iterator<Item = LoggedCommand> {
        let entries = self.entries.range(after + 1..).filter(move |(_, entry)| entry.group == group);
        entries.map(|(sequence, entry)| entry.read(*sequence))
    }
}
