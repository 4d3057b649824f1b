//! A world that is driven step by step, and what its logs say of a command.

use freehold_core::{
    CommandMessage, CopyRead as _, Effect, Forward, ForwardNumber, ForwardPlace, GroupNumber, Lane, RecordId,
    RecordsBody, ResultMessage, StoredOutcome, Update, read_body,
};

use crate::copy::SitesCopy;
use crate::rules::{append, kind, rehome, site};
use crate::world::{Entry, INSTANCES, SITES, World};

/// Who has not come to rest after so many rounds goes round in circles.
const MOST_ROUNDS: usize = 50;

/// What is driven: mirrors move only when they are told to, instances read each log that they can reach.
impl World {
    /// Tries a scenario with flushes that are stored as they come and with flushes that are stored whole. In the end
    /// all faults are over, and nothing may be lost, doubled or out of order.
    pub(crate) fn both_ways(scenario: impl Fn(&mut Self) -> Result<(), String>) {
        for batched in [false, true] {
            let mut world = Self::quiet(batched);
            let ended = scenario(&mut world).and_then(|()| world.come_to_rest()).and_then(|()| world.judge());
            ended.unwrap_or_else(|why| panic!("batched: {batched}: {why}"));
        }
    }

    /// The instance that the member list gives a site's group to.
    pub(crate) fn holder_of(&self, at: usize) -> usize {
        at * INSTANCES + self.sites[at].assigned
    }

    pub(crate) fn append(&mut self, at: usize, id: &RecordId, command_id: &str) -> CommandMessage {
        let message = append(id, command_id, None);
        self.take(at, message.clone());
        message
    }

    pub(crate) fn rehome(&mut self, at: usize, id: &RecordId, command_id: &str, to: usize) {
        self.take(at, rehome(id, command_id, site(to)));
    }

    /// The holder of a site reads, claims, decides and publishes all that it can.
    pub(crate) fn run(&mut self, at: usize) -> Result<(), String> {
        let index = self.holder_of(at);
        let mut quiet_rounds = 0;
        for _ in 0..MOST_ROUNDS {
            let before = self.ends();
            self.go_on(index)?;
            let is_quiet = self.instances[index].effects.is_empty() && self.ends() == before;
            // Who comes to hold the group in one round is delivered its commands in the next.
            quiet_rounds = if is_quiet { quiet_rounds + 1 } else { 0 };
            if quiet_rounds > 1 {
                return Ok(());
            }
        }
        Err(format!("{} goes on for ever", site(at)))
    }

    /// All sites run until none of them has anything to do.
    pub(crate) fn run_all(&mut self) -> Result<(), String> {
        for _ in 0..MOST_ROUNDS {
            let before = self.ends();
            for at in 0..SITES {
                self.run(at)?;
            }
            if self.ends() == before {
                return Ok(());
            }
        }
        Err("the sites go on for ever".to_owned())
    }

    /// The holder of a site goes on until it wants to send what its decisions ask for.
    pub(crate) fn run_until_it_sends(&mut self, at: usize) -> Result<(), String> {
        let index = self.holder_of(at);
        for _ in 0..MOST_ROUNDS {
            self.read_all(index);
            self.deliver(index, usize::MAX);
            if matches!(self.instances[index].effects.front(), Some(Effect::Emit(_))) {
                return Ok(());
            }
            self.carry_out(index, false)?;
            self.hear(index);
        }
        Err(format!("{} sends nothing", site(at)))
    }

    /// All mirrors that can be reached take all that there is.
    pub(crate) fn mirror_all(&mut self) {
        for at in 0..SITES {
            for origin in (0..SITES).filter(|origin| *origin != at) {
                self.mirror_whole(at, origin);
            }
        }
    }

    /// Everybody knows everything.
    pub(crate) fn run_and_mirror_all(&mut self) -> Result<(), String> {
        for _ in 0..MOST_ROUNDS {
            let before = self.ends();
            self.mirror_all();
            self.run_all()?;
            if self.ends() == before {
                return Ok(());
            }
        }
        Err("the sites go on for ever".to_owned())
    }

    /// No log of another site comes here, and no other site reads this one's.
    pub(crate) fn cut(&mut self, at: usize) {
        self.sites[at].cut = true;
    }

    pub(crate) fn heal(&mut self, at: usize) {
        self.sites[at].cut = false;
    }

    /// The holder of a site dies and starts again, on the copy that it had or on an older one.
    pub(crate) fn restart(&mut self, at: usize, older: Option<SitesCopy>) {
        let index = self.holder_of(at);
        self.crash(index);
        if let Some(copy) = older {
            self.instances[index].copy = copy;
        }
        self.assign(at, self.sites[at].assigned, true);
    }
}

/// What logs and copies say.
impl World {
    fn bodies(&self, at: usize) -> impl Iterator<Item = RecordsBody> {
        self.sites[at].records.iter().filter_map(|entry| match entry {
            Entry::Message(message) => Some(read_body(message).unwrap()),
            Entry::Takeover(_) => None,
        })
    }

    /// The places of a site's updates behind a place.
    pub(crate) fn updates_behind(&self, at: usize, behind: usize) -> Vec<usize> {
        let bodies = self.sites[at].records.iter().enumerate().skip(behind);
        let is_update = |entry: &Entry| match entry {
            Entry::Message(message) => matches!(read_body(message), Ok(RecordsBody::Update(_))),
            Entry::Takeover(_) => false,
        };
        bodies.filter(|(_, entry)| is_update(entry)).map(|(index, _)| index + 1).collect()
    }

    fn results(&self, at: usize) -> impl Iterator<Item = ResultMessage> {
        self.bodies(at).filter_map(|body| match body {
            RecordsBody::Result(result) => Some(result),
            _ => None,
        })
    }

    /// A site's updates of a record.
    pub(crate) fn updates(&self, at: usize, id: &RecordId) -> Vec<Update> {
        let of_record = |body| match body {
            RecordsBody::Update(update) if update.id == *id => Some(*update),
            _ => None,
        };
        self.bodies(at).filter_map(of_record).collect()
    }

    /// The place in a site's log of the update that gives a record away.
    pub(crate) fn release(&self, at: usize, id: &RecordId) -> usize {
        let is_release = |entry: &Entry| match entry {
            Entry::Message(message) => match read_body(message).unwrap() {
                RecordsBody::Update(update) => update.id == *id && update.owner != site(at),
                _ => false,
            },
            Entry::Takeover(_) => false,
        };
        self.sites[at].records.iter().position(is_release).unwrap() + 1
    }

    /// The sites that have decided a command, once for each time.
    pub(crate) fn decided_at(&self, message: &CommandMessage) -> Vec<usize> {
        let decisions = |at: usize| {
            let changes = self.updates(at, &message.id).into_iter().flat_map(|update| update.changes);
            let count = changes.filter(|change| change.command_id == message.command_id && !change.repeats).count();
            std::iter::repeat_n(at, count)
        };
        (0..SITES).flat_map(decisions).collect()
    }

    /// Each time that a site has sent a command to another.
    pub(crate) fn forwards(&self, from: usize, message: &CommandMessage) -> Vec<Forward> {
        let forwards = self.results(from).flat_map(|result| result.forwards);
        forwards.filter(|forward| forward.command == *message).collect()
    }

    fn is_returned(&self, by: usize, place: &ForwardPlace) -> bool {
        self.results(by).any(|result| result.returns.contains(place))
    }

    /// The sites that a command has come to, from the one that took it.
    pub(crate) fn way_of(&self, from: usize, message: &CommandMessage) -> Vec<usize> {
        let mut way = vec![from];
        for forward in self.forwards(from, message) {
            let to = (0..SITES).find(|at| site(*at) == forward.place.to).unwrap();
            way.push(to);
            if self.is_returned(to, &forward.place) {
                way.push(from);
            }
        }
        way
    }

    /// How many commands are on their way from a site to another, by the copy of the first one's holder.
    pub(crate) fn under_way(&self, from: usize, to: usize) -> usize {
        let copy = &self.instances[self.holder_of(from)].copy;
        let (kind, from, to) = (kind(), site(from), site(to));
        let lane = Lane { kind: &kind, group: GroupNumber(0), from: &from, to: &to };
        let Ok(forwards) = copy.forwards(&lane, ForwardNumber(0), usize::MAX);
        forwards.iter().filter(|(_, state)| !state.decided && !state.returned).count()
    }

    /// What became of a command, as the holder of a site would answer.
    pub(crate) fn answer(&self, at: usize, message: &CommandMessage) -> Option<StoredOutcome> {
        let copy = &self.instances[self.holder_of(at)].copy;
        let Ok(outcome) = copy.outcome(&kind(), Some(&message.id), &message.command_id);
        outcome.filter(|outcome| outcome.change.is_final())
    }
}
