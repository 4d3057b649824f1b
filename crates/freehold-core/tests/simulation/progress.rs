//! How a world goes on when nothing bad happens, until nothing happens at all.

use freehold_core::Event;

use crate::world::World;

/// The least pause between two looks at what is kept behind the position.
const AUDIT_PAUSE_MS: u64 = 1_000;

impl World {
    /// Lets one instance do all that it can do now; returns whether there was something.
    pub(crate) fn go_on(&mut self, index: usize) -> bool {
        let mut busy = false;
        if !self.instances[index].runs() {
            return false;
        }
        for group in 0..self.setup.groups {
            if self.instances[index].up && !self.instances[index].deaf {
                busy |= self.learn(index, group);
            }
        }
        while self.serve(index) {
            busy = true;
        }
        while !self.instances[index].answers.is_empty() {
            busy = true;
            self.hear(index, 0);
        }
        busy |= self.apply(index, usize::MAX);
        busy |= self.notify(index);
        for group in 0..self.setup.groups {
            busy |= self.deliver(index, group, usize::MAX);
            busy |= self.audit(index, group);
        }
        busy
    }

    /// Goes on until nothing happens any more; returns whether that came to an end.
    pub(crate) fn settle(&mut self, rounds: usize) -> bool {
        for _ in 0..rounds {
            self.now += 1;
            let busy = (0..self.instances.len()).fold(false, |busy, index| self.go_on(index) | busy);
            if !busy {
                return true;
            }
        }
        false
    }

    /// Time for all holders to log their positions, where they moved.
    pub(crate) fn positions_due(&mut self) {
        for index in 0..self.instances.len() {
            for group in 0..self.setup.groups {
                let runs = self.instances[index].runs();
                let Some(seat) = self.instances[index].seats.get_mut(usize::from(group)).filter(|_| runs) else {
                    break;
                };
                if seat.holder.position_moved() {
                    self.tell(index, group, Event::PositionDue);
                }
            }
        }
    }

    /// What is decided may go when no newer position has come for as long as it is kept; returns whether anything goes.
    fn audit(&mut self, index: usize, group: u16) -> bool {
        let (now, window) = (self.now, self.setup.audit_window_ms);
        let Some(seat) = self.instances[index].seats.get_mut(usize::from(group)) else { return false };
        let newest = seat.holder.newest_audit();
        if newest.is_some() && newest != seat.audit {
            (seat.audit, seat.audit_due) = (newest, now + window);
        }
        if newest.is_none() || now < seat.audit_due || !self.audits {
            return false;
        }
        seat.audit_due = now + window.max(AUDIT_PAUSE_MS);
        self.tell(index, group, Event::AuditDue);
        !self.instances[index].wire.is_empty()
    }
}
