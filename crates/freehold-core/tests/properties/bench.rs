//! A real holder with a real copy on two logs that take everything at once. How many commands are delivered together, when
//! the copy reads on and when a new life of the holder claims is up to the property.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use freehold_core::subject::{RecordsSubject, RecordsTopic};
use freehold_core::{
    Carried, Change, CommandLogCheck, CommandMessage, Effect, Emission, Event, FlushContext, FlushMessage, GroupNumber,
    Holder, HolderOptions, Incarnation, Json, LogMessage, LogTime, LoggedCommand, MembersRevision, RecordId,
    RecordVersion, RecordsBody, Retention, StreamSequence, Update, read_body,
};

use crate::memory_copy::{CommandKey, MemoryCopy};
use crate::rules::{Rules, definition, kind, silence_poison, site};

const START: u64 = 1_000_000;

/// The fixed facts of a bench.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) max_payload_bytes: usize,
    pub(crate) history: u64,
    pub(crate) batched: bool,
}

impl Setup {
    pub(crate) fn retention(&self) -> Retention {
        Retention { outcomes_ms: 3_600_000, history: self.history }
    }
}

pub(crate) struct Bench {
    pub(crate) setup: Setup,
    pub(crate) copy: MemoryCopy,
    holder: Holder,
    lives: u64,
    commands: Vec<LoggedCommand>,
    /// The place of the next command to be delivered.
    next: usize,
    pub(crate) log: Vec<LogMessage>,
    /// What was published together.
    pub(crate) flushes: Vec<Vec<LogMessage>>,
    pub(crate) emitted: Vec<CommandMessage>,
    pub(crate) dead_letters: usize,
    now: u64,
}

/// The command log and the records log, as texts.
impl fmt::Debug for Bench {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:?}", self.setup)?;
        self.commands.iter().try_for_each(|command| writeln!(formatter, "{command:?}"))?;
        self.log.iter().try_for_each(|message| {
            let LogMessage { sequence, subject, payload, .. } = message;
            writeln!(formatter, "{sequence} {subject} {}", String::from_utf8_lossy(payload))
        })
    }
}

impl Bench {
    /// A bench whose command log has these payloads, and whose holder has claimed.
    pub(crate) fn new(setup: Setup, payloads: &[String]) -> Self {
        silence_poison();
        let read = |(sequence, payload): (u64, &String)| {
            LoggedCommand::read(StreamSequence(sequence), LogTime(START + sequence), payload.as_bytes())
        };
        let mut bench = Self {
            setup,
            copy: MemoryCopy::empty(START),
            holder: holder(setup, 0),
            lives: 0,
            commands: (1..).zip(payloads).map(read).collect(),
            next: 0,
            log: Vec::new(),
            flushes: Vec::new(),
            emitted: Vec::new(),
            dead_letters: 0,
            now: START + payloads.len() as u64,
        };
        bench.claim();
        bench
    }

    /// A new life of the holder claims the group; everything behind the position is delivered once more.
    pub(crate) fn claim(&mut self) {
        self.read();
        self.lives += 1;
        self.holder = holder(self.setup, self.lives);
        self.handle(Event::Assigned(MembersRevision(1)));
        self.read();
    }

    /// The next commands come, all at once.
    pub(crate) fn deliver(&mut self, count: usize) {
        let end = self.commands.len().min(self.next + count);
        let commands = self.commands[self.next..end].to_vec();
        self.next = end;
        self.handle(Event::Delivered(commands));
    }

    /// The copy reads all that there is.
    pub(crate) fn read(&mut self) {
        for message in &self.log[usize::try_from(self.copy.applied).unwrap()..] {
            let applied = self.copy.apply(self.setup.retention(), message);
            assert_eq!(applied.anomaly, None);
        }
        if self.holder.awaits().is_some() {
            self.handle(Event::CopyAdvanced);
        }
    }

    /// Delivers what is left, and reads until nothing waits.
    pub(crate) fn finish(&mut self) {
        self.deliver(usize::MAX - self.next);
        for _ in 0..=self.commands.len() {
            self.read();
        }
        assert_eq!(self.holder.waiting(), 0, "everything is decided");
        assert_eq!(self.copy.applied, self.log.len() as u64);
    }

    pub(crate) fn log_position(&mut self) {
        self.handle(Event::PositionDue);
    }

    fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Ok(effects) = self.holder.handle(event, &self.copy);
            for effect in effects {
                events.extend(self.carry_out(effect));
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        Some(match effect {
            Effect::PublishClaim { claim, .. } => {
                let topic = RecordsTopic::Claim;
                let subject = RecordsSubject { site: site(), kind: kind(), group: GroupNumber(0), topic };
                let payload = serde_json::to_vec(&claim).unwrap();
                Event::Claimed(Ok(self.store(&FlushMessage { subject, payload, ttl_ms: None })))
            }
            Effect::CheckCommandLog { .. } => Event::CommandLogChecked(CommandLogCheck::Matches),
            Effect::OpenConsumer { after, .. } => {
                self.next = usize::try_from(after.0).unwrap();
                return None;
            }
            Effect::Publish { messages, .. } => {
                let first = self.log.len();
                let sequences = messages.iter().map(|message| self.store(message)).collect();
                self.flushes.push(self.log[first..].to_vec());
                Event::Published(Ok(sequences))
            }
            Effect::Emit(emissions) => {
                for emission in emissions {
                    match emission {
                        Emission::Command(command) => self.emitted.push(command),
                        Emission::DeadLetter(_) => self.dead_letters += 1,
                    }
                }
                Event::Emitted(Ok(()))
            }
            Effect::Purge { .. } => Event::Purged(CommandLogCheck::Matches),
            other => panic!("{other:?}"),
        })
    }

    fn store(&mut self, message: &FlushMessage) -> StreamSequence {
        self.now += 1;
        let sequence = StreamSequence(self.log.len() as u64 + 1);
        let (subject, payload) = (message.subject.clone(), Bytes::from(message.payload.clone()));
        self.log.push(LogMessage { sequence, time: LogTime(self.now), subject, payload });
        sequence
    }

    // ── What is to be seen ─────────────────────────────────────────────────────────────────────────────────────────

    /// Each record's version and text.
    pub(crate) fn records(&self) -> BTreeMap<RecordId, (RecordVersion, Option<Json>)> {
        let state = |(id, state): (&RecordId, &std::rc::Rc<_>)| {
            let freehold_core::RecordState { version, record, .. } = &**state;
            (id.clone(), (*version, record.clone()))
        };
        self.copy.records.iter().map(state).collect()
    }

    /// Each command's entry.
    pub(crate) fn outcomes(&self) -> BTreeMap<CommandKey, Change> {
        self.copy.outcomes.iter().map(|(key, outcome)| (key.clone(), outcome.change.clone())).collect()
    }

    /// What was emitted, each once, in the order of its ids.
    pub(crate) fn emissions(&self) -> BTreeMap<(RecordId, freehold_core::CommandId), CommandMessage> {
        self.emitted.iter().map(|it| ((it.id.clone(), it.command_id.clone()), it.clone())).collect()
    }
}

fn holder(setup: Setup, life: u64) -> Holder {
    Holder::new(HolderOptions {
        flush: FlushContext {
            definition: Arc::new(definition(Rules::Old, 1, &Arc::default())),
            site: site(),
            sites: Vec::new(),
            group: GroupNumber(0),
            log: Incarnation::new(1, "bench"),
            retention: setup.retention(),
            max_payload_bytes: setup.max_payload_bytes,
        },
        instance: "one".parse().unwrap(),
        nonce: format!("n{life}").parse().unwrap(),
        batched: setup.batched,
        audit_window_ms: 0,
    })
}

/// What a message decides, each with its record, and whether it repeats what was decided before.
pub(crate) struct Told {
    pub(crate) changes: Vec<Change>,
    pub(crate) carries: Vec<Carried>,
    pub(crate) update: Option<Update>,
}

pub(crate) fn told(message: &LogMessage) -> Told {
    let nothing = Told { changes: Vec::new(), carries: Vec::new(), update: None };
    match read_body(message).unwrap() {
        RecordsBody::Update(update) => {
            let id = Some(update.id.clone());
            let changes = update.changes.iter().map(|it| Change { id: id.clone(), ..it.clone() }).collect();
            Told { changes, update: Some(*update), ..nothing }
        }
        RecordsBody::Result(result) => Told { changes: result.changes, carries: result.carries, ..nothing },
        _ => nothing,
    }
}
