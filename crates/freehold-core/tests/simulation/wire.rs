//! What is on its way between instances and servers, and what the servers do with it.

use freehold_core::{CommandLogCheck, CommandMessage, Emission, EmitFailure, Event, PublishFailure, StreamSequence};

use crate::brief::brief_request;
use crate::chance::Chance;
use crate::command_log::{Entry, From, Full};
use crate::instance::{Request, Sent, Waiting};
use crate::records_log::Refused;
use crate::world::{CONNECTION_ENDS_MS, FULL, Fate, Gathering, TOO_LARGE, World, note};

impl World {
    /// The server, or the network, takes the next request of an instance.
    pub(crate) fn serve(&mut self, index: usize) -> bool {
        if self.instances[index].wire.is_empty() {
            return false;
        }
        let fate = self.fate();
        self.serve_as(index, fate)
    }

    /// The next request of an instance meets this fate; returns whether there was one.
    pub(crate) fn serve_as(&mut self, index: usize, fate: Fate) -> bool {
        let Some(sent) = self.instances[index].wire.pop_front() else {
            return false;
        };
        note!(self, "i{index}/{} {} {fate:?}", sent.to.group, brief_request(&sent.request));
        match fate {
            Fate::Arrives => {
                self.arrive(&sent, true);
            }
            Fate::AnswerLost => {
                self.arrive(&sent, false);
                self.unanswered(&sent);
            }
            Fate::Lost => self.unanswered(&sent),
            Fate::Delayed => {
                self.unanswered(&sent);
                self.limbo.push((sent, self.now));
            }
        }
        true
    }

    /// A delayed request arrives after all, unless its connection is long closed.
    pub(crate) fn arrive_late(&mut self, place: usize) {
        let (sent, since) = self.limbo.swap_remove(place);
        if sent.request.is_fenced() || self.now - since < CONNECTION_ENDS_MS {
            note!(self, "i{}/{} {} arrives late", sent.to.instance, sent.to.group, brief_request(&sent.request));
            self.arrive(&sent, false);
        }
    }

    /// Everything that is on its way arrives.
    pub(crate) fn arrive_all_late(&mut self) {
        while !self.limbo.is_empty() {
            self.arrive_late(0);
        }
    }

    fn fate(&mut self) -> Fate {
        self.chance.as_mut().map_or(Fate::Arrives, Chance::fate)
    }

    fn unanswered(&mut self, sent: &Sent) {
        let unknown = || PublishFailure::Unknown("no answer".to_owned());
        match &sent.request {
            Request::Claim { .. } => self.answer(sent.to, Event::Claimed(Err(unknown()))),
            Request::Message { flush, .. } | Request::Batch { flush, .. } => {
                self.gather(*flush, |gathering| gathering.failure = Some(unknown()));
            }
            Request::Check { .. } => self.answer(sent.to, Event::CommandLogChecked(CommandLogCheck::Unknown)),
            Request::Purge { .. } => self.answer(sent.to, Event::Purged(CommandLogCheck::Unknown)),
            Request::Emit(_) => {
                self.answer(sent.to, Event::Emitted(Err(EmitFailure("no answer".to_owned()))));
            }
        }
    }

    /// Carries a request out at the server.
    fn arrive(&mut self, sent: &Sent, answered: bool) {
        let (to, now) = (sent.to, self.now);
        self.records.expire(now);
        let event = match &sent.request {
            Request::Claim { expected, claim } => {
                let stored = self.records.publish_claim(to.group, *expected, claim, now);
                Event::Claimed(stored.map(StreamSequence).map_err(|Refused| PublishFailure::Refused))
            }
            Request::Message { claim, message, flush, index } => {
                let stored = self.records.publish(*claim, message, now);
                if answered {
                    self.gather(*flush, |gathering| match stored {
                        Ok(sequence) => gathering.stored.push((*index, sequence)),
                        Err(Refused) => gathering.failure = Some(PublishFailure::Refused),
                    });
                }
                return self.observe();
            }
            Request::Batch { claim, messages, flush } => {
                let stored = self.records.publish_batch(*claim, messages, now);
                if answered {
                    self.gather(*flush, |gathering| match stored {
                        Ok(sequences) => gathering.stored.extend(sequences.into_iter().enumerate()),
                        Err(Refused) => gathering.failure = Some(PublishFailure::Refused),
                    });
                }
                return self.observe();
            }
            Request::Check { decided, log } => Event::CommandLogChecked(self.commands.check(decided, *log)),
            Request::Purge { below, decided, log } => {
                let check = self.commands.check(decided, *log);
                if check == CommandLogCheck::Matches {
                    self.purge(to.group, below.sequence.0);
                }
                Event::Purged(check)
            }
            Request::Emit(emissions) => Event::Emitted(self.emit(emissions)),
        };
        self.observe();
        if answered {
            self.answer(to, event);
        }
    }

    fn gather(&mut self, flush: u64, take: impl FnOnce(&mut Gathering)) {
        let Some(gathering) = self.flushes.get_mut(&flush) else { return };
        take(gathering);
        gathering.open -= 1;
        if gathering.open > 0 {
            return;
        }
        let Some(Gathering { to, mut stored, failure, .. }) = self.flushes.remove(&flush) else { return };
        stored.sort_unstable();
        let sequences = stored.into_iter().map(|(_, sequence)| StreamSequence(sequence)).collect();
        self.answer(to, Event::Published(failure.map_or(Ok(sequences), Err)));
    }

    fn answer(&mut self, to: Waiting, event: Event) {
        let instance = &mut self.instances[to.instance];
        if instance.up && instance.life == to.life {
            instance.answers.push((to, event));
        }
    }

    /// An instance hears one of its answers.
    pub(crate) fn hear(&mut self, index: usize, place: usize) {
        let (to, event) = self.instances[index].answers.remove(place);
        if self.instances[index].seats[usize::from(to.group)].generation == to.generation {
            self.tell(index, to.group, event);
        }
    }

    fn emit(&mut self, emissions: &[Emission]) -> Result<(), EmitFailure> {
        for emission in emissions {
            match emission {
                Emission::DeadLetter(letter) => {
                    let bytes = serde_json::to_vec(letter).unwrap().len();
                    if bytes >= self.setup.max_payload_bytes {
                        return Err(EmitFailure(format!("a dead letter of {bytes} bytes")));
                    }
                    self.dead_letters.push(letter.clone());
                }
                Emission::Command(command) => {
                    self.emitted.push(command.clone());
                    self.send_from(command, From::Emission).map_err(|why| EmitFailure(why.to_owned()))?;
                }
            }
        }
        Ok(())
    }

    /// A request handler publishes a command to its group.
    pub(crate) fn send(&mut self, command: &CommandMessage) -> Result<u64, &'static str> {
        self.send_from(command, From::Request)
    }

    fn send_from(&mut self, command: &CommandMessage, from: From) -> Result<u64, &'static str> {
        self.oracle.sent(command);
        let payload = serde_json::to_vec(command).unwrap();
        let group = self.group_of(&command.id);
        self.log_bytes(group, payload, Some(command.message_id()), from)
    }

    /// Puts any bytes into a group's commands.
    pub(crate) fn log_command(&mut self, group: u16, payload: Vec<u8>) -> Result<u64, &'static str> {
        self.log_bytes(group, payload, None, From::Request)
    }

    fn log_bytes(
        &mut self,
        group: u16,
        payload: Vec<u8>,
        message_id: Option<freehold_core::Hash>,
        from: From,
    ) -> Result<u64, &'static str> {
        if payload.len() > self.setup.max_payload_bytes {
            return Err(TOO_LARGE);
        }
        self.commands.publish(group, payload, message_id, from, self.now).map_err(|Full| FULL)
    }

    fn purge(&mut self, group: u16, below: u64) {
        let purged: Vec<(u64, Entry)> = self.commands.purge(group, below);
        note!(self, "purged group {group} below {below}: {} commands", purged.len());
        self.purged += purged.len();
        for (sequence, entry) in purged {
            if !self.is_decided(sequence, &entry) {
                self.break_off(|| format!("command {sequence} of group {group} was purged undecided"));
            }
        }
    }

    /// Whether the records log has, or ever had, an outcome of a logged command.
    pub(crate) fn is_decided(&self, sequence: u64, entry: &Entry) -> bool {
        let command = entry.read(sequence);
        match &command.message {
            Ok(message) if self.oracle.decided(&message.id, &message.command_id).is_some() => true,
            _ => (0..=self.rewinds).any(|life| {
                let life = freehold_core::CommandLogIncarnation(u64::from(life));
                let id = freehold_core::CommandId::of_unreadable(life, StreamSequence(sequence));
                self.oracle.decided.contains_key(&(None, id))
            }),
        }
    }

    fn observe(&mut self) {
        while let Some(stored) = self.records.shadow.get(self.observed).cloned() {
            self.observed += 1;
            if let Err(why) = self.oracle.observe(&stored.message) {
                self.break_off(|| why);
            }
        }
    }
}
