//! Outcomes that change no record, packed into result messages, and how much room things take in a message.

use crate::envelope::{Carried, Forward, Inherited};
use crate::outcome::{Change, EmittedCommand, ForwardPlace};

/// Bytes of a change beside its ids, reply and error.
const CHANGE_OVERHEAD_BYTES: usize = 448;
/// Bytes of the place of a forwarded command: two names and a number.
const PLACE_BYTES: usize = 256;
/// Bytes of a forwarded command beside its ids and its fields.
const FORWARD_OVERHEAD_BYTES: usize = 512 + 2 * PLACE_BYTES;
/// Bytes of a message beside what is listed in it.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 1024;

/// What belongs together in one result message.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) changes: Vec<Change>,
    pub(super) carries: Vec<Carried>,
    pub(super) inherits: Vec<Inherited>,
    pub(super) forwards: Vec<Forward>,
    pub(super) returns: Vec<ForwardPlace>,
}

impl Page {
    fn is_empty(&self) -> bool {
        let Self { changes, carries, inherits, forwards, returns } = self;
        changes.is_empty() && carries.is_empty() && inherits.is_empty() && forwards.is_empty() && returns.is_empty()
    }

    fn bytes(&self) -> usize {
        let carried = |carried: &Carried| 64 + carried.id.as_str().len() * 6;
        let inherited = |inherited: &Inherited| PLACE_BYTES + inherited.changes.iter().map(change_bytes).sum::<usize>();
        self.changes.iter().map(change_bytes).sum::<usize>()
            + self.inherits.iter().map(inherited).sum::<usize>()
            + self.carries.iter().map(carried).sum::<usize>()
            + self.forwards.iter().map(forward_bytes).sum::<usize>()
            + self.returns.len() * PLACE_BYTES
    }

    fn append(&mut self, other: Self) {
        let Self { changes, carries, inherits, forwards, returns } = other;
        self.changes.extend(changes);
        self.carries.extend(carries);
        self.inherits.extend(inherits);
        self.forwards.extend(forwards);
        self.returns.extend(returns);
    }
}

/// Pages that each fit into one message. What is added together stays together, so that the outcomes of one record are
/// split between messages only where an update was.
pub(super) struct Pages {
    limit: usize,
    bytes: usize,
    pub(super) pages: Vec<Page>,
}

impl Pages {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, pages: Vec::new() }
    }

    pub(super) fn add(&mut self, part: Page) {
        if part.is_empty() {
            return;
        }
        let bytes = part.bytes();
        match self.pages.last_mut() {
            Some(page) if self.bytes + bytes <= self.limit => {
                self.bytes += bytes;
                page.append(part);
            }
            _ => {
                self.bytes = MESSAGE_OVERHEAD_BYTES + bytes;
                self.pages.push(part);
            }
        }
    }
}

/// The most that a change can take as JSON: texts count six times, as an escaped control character does.
pub(super) fn change_bytes(change: &Change) -> usize {
    let id = change.id.as_ref().map_or(0, |id| id.as_str().len() * 6);
    let reply = change.outcome.reply.as_ref().map_or(0, |reply| reply.as_str().len());
    let error = change.outcome.error.as_ref().map_or(0, |error| {
        error.message.len() * 6 + error.details.as_ref().map_or(0, |details| details.as_str().len())
    });
    let emitted = |emitted: &EmittedCommand| 256 + emitted.id.as_str().len() * 6 + emitted.body.as_str().len();
    let emits = change.emits.iter().map(emitted).sum::<usize>();
    let place = change.forwarded.as_ref().map_or(0, |_| PLACE_BYTES);
    CHANGE_OVERHEAD_BYTES + change.command_id.as_str().len() * 6 + id + reply + error + emits + place
}

/// The most that a forwarded command can take as JSON.
pub(super) fn forward_bytes(forward: &Forward) -> usize {
    let command = &forward.command;
    let ids = command.id.as_str().len() + command.command_id.as_str().len();
    FORWARD_OVERHEAD_BYTES + ids * 6 + command.body.as_str().len()
}
