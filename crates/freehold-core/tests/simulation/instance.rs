//! One instance of the service: a copy with its applier, a holder for each group, and what it has on the wire.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use freehold_core::{
    Claim, CommandLogIncarnation, DecidedCommand, Emission, Event, FlushContext, FlushMessage, GroupNumber, Holder,
    HolderOptions, Incarnation, StreamSequence,
};

use crate::memory_copy::MemoryCopy;
use crate::rules::{Rules, definition, site};
use crate::world::Setup;

/// What an instance asks a server for.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Claim {
        expected: u64,
        claim: Claim,
    },
    /// One message of a flush on R1.
    Message {
        claim: u64,
        message: FlushMessage,
        flush: u64,
        index: usize,
    },
    /// A whole flush on R3.
    Batch {
        claim: u64,
        messages: Vec<FlushMessage>,
        flush: u64,
    },
    Check {
        decided: DecidedCommand,
        log: CommandLogIncarnation,
    },
    Purge {
        below: DecidedCommand,
        decided: DecidedCommand,
        log: CommandLogIncarnation,
    },
    Emit(Vec<Emission>),
}

impl Request {
    /// The log refuses it when its time is over; the others must not outlive their connection.
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self, Self::Claim { .. } | Self::Message { .. } | Self::Batch { .. })
    }
}

/// A request on its way, and who waits for the answer.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) to: Waiting,
    pub(crate) request: Request,
}

/// Who waits for an answer: what a release has ended waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) instance: usize,
    pub(crate) life: u32,
    pub(crate) group: u16,
    pub(crate) generation: u64,
}

/// What becomes of a crashed instance's copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyLeft {
    Committed,
    /// Commits that were not fsynced are gone.
    Fsynced,
    Nothing,
}

pub(crate) struct Seat {
    pub(crate) holder: Holder,
    pub(crate) generation: u64,
    /// The consumer's last delivery.
    pub(crate) consumer: Option<u64>,
    /// What the member list said when it was last read, and whether it is to be read again.
    pub(crate) told: Option<(u64, bool)>,
    pub(crate) reading: bool,
    pub(crate) stopped: bool,
    /// The newest position that commands are kept behind, and when they may go though no newer one has come.
    pub(crate) audit: Option<StreamSequence>,
    pub(crate) audit_due: u64,
}

pub(crate) struct Instance {
    pub(crate) life: u32,
    pub(crate) up: bool,
    pub(crate) paused_since: Option<u64>,
    /// Reads no member lists.
    pub(crate) deaf: bool,
    /// The applier stands still.
    pub(crate) applier_stopped: bool,
    pub(crate) rules: Rules,
    pub(crate) aborted: Arc<AtomicBool>,
    pub(crate) copy: MemoryCopy,
    pub(crate) fsynced: MemoryCopy,
    pub(crate) seats: Vec<Seat>,
    pub(crate) wire: VecDeque<Sent>,
    pub(crate) answers: Vec<(Waiting, Event)>,
}

impl Instance {
    pub(crate) fn new(index: usize, setup: &Setup, rules: Rules, now: u64) -> Self {
        let copy = MemoryCopy::empty(now);
        let mut instance = Self {
            life: 0,
            up: false,
            paused_since: None,
            deaf: false,
            applier_stopped: false,
            rules,
            aborted: Arc::default(),
            fsynced: copy.clone(),
            copy,
            seats: Vec::new(),
            wire: VecDeque::new(),
            answers: Vec::new(),
        };
        instance.start(index, setup);
        instance
    }

    pub(crate) fn start(&mut self, index: usize, setup: &Setup) {
        self.life += 1;
        self.up = true;
        let definition = Arc::new(definition(self.rules, setup.groups, &self.aborted));
        let seat = |group| Seat {
            holder: Holder::new(HolderOptions {
                flush: FlushContext {
                    definition: Arc::clone(&definition),
                    site: site(),
                    sites: Vec::new(),
                    group: GroupNumber(group),
                    log: Incarnation::new(1, "sim"),
                    retention: setup.retention(),
                    max_payload_bytes: setup.max_payload_bytes,
                },
                instance: format!("i{index}").parse().unwrap(),
                nonce: format!("n{}", self.life).parse().unwrap(),
                batched: setup.batched,
                audit_window_ms: setup.audit_window_ms,
            }),
            generation: 0,
            consumer: None,
            told: None,
            reading: false,
            stopped: false,
            audit: None,
            audit_due: 0,
        };
        self.seats = (0..setup.groups).map(seat).collect();
    }

    pub(crate) fn runs(&self) -> bool {
        self.up && self.paused_since.is_none()
    }

    /// Ends the process.
    pub(crate) fn crash(&mut self, left: CopyLeft, log_began: u64) {
        self.up = false;
        self.paused_since = None;
        self.seats.clear();
        self.wire.clear();
        self.answers.clear();
        match left {
            CopyLeft::Committed => {}
            CopyLeft::Fsynced => self.copy = self.fsynced.clone(),
            CopyLeft::Nothing => self.copy = MemoryCopy::empty(log_began),
        }
        self.fsynced = self.copy.clone();
    }
}
