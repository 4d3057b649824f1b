//! What befalls instances and servers.

use freehold_core::Event;

use crate::instance::CopyLeft;
use crate::world::{CONNECTION_ENDS_MS, START, World, note};

impl World {
    /// The process dies; nothing of what it had written arrives any more.
    pub(crate) fn crash(&mut self, index: usize, left: CopyLeft) {
        note!(self, "i{index} crashes, copy {left:?}");
        self.crashes += 1;
        self.instances[index].crash(left, START);
    }

    pub(crate) fn start(&mut self, index: usize) {
        note!(self, "i{index} starts");
        let setup = self.setup.clone();
        self.instances[index].start(index, &setup);
    }

    pub(crate) fn pause(&mut self, index: usize) {
        note!(self, "i{index} is paused");
        self.instances[index].paused_since = Some(self.now);
    }

    /// A paused process goes on where it was. The server has closed its connection if the pause was long.
    pub(crate) fn resume(&mut self, index: usize) {
        note!(self, "i{index} goes on");
        let since = self.instances[index].paused_since.take().unwrap_or(self.now);
        if self.now - since >= CONNECTION_ENDS_MS {
            self.disconnect(index);
        }
    }

    /// The connection breaks. What was written on it may still arrive, if it is fenced.
    pub(crate) fn disconnect(&mut self, index: usize) {
        note!(self, "i{index} is disconnected");
        let wire = std::mem::take(&mut self.instances[index].wire);
        let now = self.now;
        self.limbo.extend(wire.into_iter().filter(|sent| sent.request.is_fenced()).map(|sent| (sent, now)));
        for group in 0..self.setup.groups {
            self.tell(index, group, Event::Disconnected);
        }
    }

    /// The server dies and comes back without the newest commands: every connection and every consumer is gone.
    pub(crate) fn rewind_commands(&mut self, messages: u64) {
        note!(self, "the command log loses {messages} messages of {}", self.commands.last());
        self.commands.lose_tail(messages);
        self.rewinds += 1;
        self.forgetful = true;
        self.limbo.clear();
        for index in 0..self.instances.len() {
            self.instances[index].wire.clear();
            if self.instances[index].up {
                self.disconnect(index);
            }
        }
    }
}
