//! Sites that are lost, taken over, and come back.

use std::collections::BTreeMap;

use freehold_core::{
    Ballot, CopyRead, Incarnation, LogTime, StreamSequence, Takeover, TakeoverEffect, TakeoverMessage, Takeovers, Term,
    learn_takeover,
};
use rand::RngExt;

use crate::copy::SitesCopy;
use crate::rules::{append, kind, rehome, site};
use crate::world::{Entry, INSTANCES, SITES, World, name};

impl World {
    /// Something that has to do with lost sites may happen.
    pub(crate) fn loss_step(&mut self) {
        match self.chance.random_range(0..300) {
            0 => self.lose_a_site(),
            1..8 => {
                let index = self.chance.random_range(0..self.instances.len());
                self.adopt(index);
            }
            8..14 => {
                let (at, origin) = (self.chance.random_range(0..SITES), self.chance.random_range(0..SITES));
                self.mirror_again(at, origin);
            }
            14 => self.send_stranded(),
            15..20 => {
                let index = self.chance.random_range(0..self.instances.len());
                self.look_for_takeovers(index);
            }
            _ => {}
        }
    }

    /// A site is cut off, and another one takes it over; the third seals.
    fn lose_a_site(&mut self) {
        let (lost, taker) = (self.chance.random_range(0..SITES), self.chance.random_range(0..SITES));
        let members: Vec<_> = (0..SITES).filter(|at| *at != lost).collect();
        let can_take = |at: &usize| !self.sites[*at].cut && !self.sites[*at].lost;
        // A member whose mirror is sealed already has not heard yet that the site has come back.
        let sealed = members.iter().any(|at| self.sites[*at].sealed[lost]);
        if lost == taker || self.sites[lost].lost || sealed || !members.iter().all(can_take) {
            return;
        }
        if self.chance.random_bool(0.8) {
            self.sites[lost].cut = true;
        }
        self.lose(lost, taker);
    }

    /// A site is taken over; all others seal.
    pub(crate) fn lose(&mut self, lost: usize, taker: usize) {
        let members: Vec<_> = (0..SITES).filter(|at| *at != lost).collect();
        for member in &members {
            self.sites[*member].sealed[lost] = true;
        }
        let positions = members.iter().map(|at| (site(*at), StreamSequence(self.sites[*at].mirrors[lost] as u64)));
        let sealed: BTreeMap<_, _> = positions.collect();
        let cut = sealed.values().max().copied().unwrap_or_default();
        self.term += 1;
        let ballot = Ballot { term: Term(self.term), taker: site(taker) };
        let lost_log = Incarnation::new(self.sites[lost].life, "sim");
        let log = Incarnation::new(self.sites[taker].life, "sim");
        let (adopted, accepted) = (false, false);
        let takeover = Takeover { log, ballot, lost: site(lost), lost_log, cut, sealed, adopted, accepted };
        self.note(|| format!("{takeover:?}"));
        self.sites[lost].lost = true;
        self.figures.takeovers += 1;
        let (sequence, time) = (StreamSequence(self.sites[taker].records.len() as u64 + 1), self.log_time(taker));
        self.sites[taker].records.push(Entry::Takeover(TakeoverMessage { sequence, time, takeover }));
    }

    /// A copy that has applied what does not count is made anew; at a site that was taken over, that is its return.
    pub(crate) fn make_anew(&mut self, index: usize, effect: &TakeoverEffect) {
        let at = self.instances[index].site;
        let mut takeovers = self.instances[index].copy.takeovers.clone();
        self.note(|| format!("{} makes its copy anew: {effect:?}", name(index)));
        self.figures.rebuilt += 1;
        if effect.lost == site(at) {
            self.come_back(at, &takeovers);
            if let Some(TakeoverMessage { takeover, sequence, .. }) = &self.sites[at].ended_by {
                takeovers.note(takeover.clone(), *sequence);
            }
        }
        self.instances[index].copy = SitesCopy::knowing(takeovers);
        let (life, batched) = (self.sites[at].life, self.batched);
        let definition = std::sync::Arc::clone(&self.definition);
        self.instances[index].crash(&name(index), life, &definition, batched);
        // It joins again.
        let which = index % INSTANCES;
        self.assign(at, which, false);
    }

    /// A member that has sealed a log and heard no more asks every site that it reaches.
    pub(crate) fn look_for_takeovers(&mut self, index: usize) {
        let at = self.instances[index].site;
        let sealed = self.sites[at].sealed;
        let reached: Vec<_> = (0..SITES).filter(|other| self.are_linked(at, *other)).collect();
        for other in reached {
            // By what a sealed log's site has come back.
            let mut found: Vec<_> = self.sites[other].ended_by.iter().filter(|_| sealed[other]).cloned().collect();
            for entry in &self.sites[other].records {
                match entry {
                    // What the taker of this very site has logged may be in a log that this site takes no more of.
                    Entry::Takeover(message)
                        if (0..SITES).any(|it| (it == at || sealed[it]) && site(it) == message.takeover.lost) =>
                    {
                        found.push(message.clone());
                    }
                    _ => {}
                }
            }
            for message in found {
                let Ok(applied) = learn_takeover(&mut self.instances[index].copy, &message);
                if let Some(effect) = applied.takeover.filter(|it| it.is_ahead || it.lost == site(at)) {
                    return self.make_anew(index, &effect);
                }
            }
        }
    }

    /// Once for each takeover: what lies beyond the cut is set aside, and a new life of the log begins.
    fn come_back(&mut self, at: usize, takeovers: &Takeovers) {
        let newest = takeovers.logged().rev().find(|(takeover, _)| takeover.lost == site(at));
        let Some((takeover, sequence)) = newest else { return };
        if takeover.lost_log.counter() < self.sites[at].life {
            return;
        }
        let cut = takeover.cut;
        let commands: Vec<_> = self.sites[at].commands.iter_mut().filter_map(Option::take).collect();
        for command in commands {
            let message = command.message.unwrap();
            self.once_stranded.insert(message.command_id.to_string());
            self.stranded.push((at, message));
            self.figures.stranded += 1;
        }
        self.sites[at].life += 1;
        let takeover = Takeover { accepted: true, ..takeover.clone() };
        self.sites[at].ended_by = Some(TakeoverMessage { sequence, time: LogTime(0), takeover });
        self.sites[at].lost = false;
        self.note(|| format!("{} comes back, cut at {cut}", site(at)));
    }

    /// A site mirrors another one again, once that has come back and all that was taken over is adopted.
    pub(crate) fn mirror_again(&mut self, at: usize, origin: usize) {
        if at == origin || !self.sites[at].sealed[origin] || !self.are_linked(at, origin) || self.sites[origin].lost {
            return;
        }
        let of_site = at * INSTANCES..(at + 1) * INSTANCES;
        let knows = |index: usize| {
            let copy = &self.instances[index].copy;
            let Ok(applied) = copy.applied(&site(origin));
            copy.takeovers.of(&site(origin)).is_some_and(|takeover| takeover.adopted && applied >= takeover.cut)
        };
        if of_site.clone().all(knows) {
            self.sites[at].sealed[origin] = false;
            self.note(|| format!("{} mirrors {} again", site(at), site(origin)));
        }
    }

    /// What was set aside is sent again, under the same ids.
    pub(crate) fn send_stranded(&mut self) {
        for (at, message) in std::mem::take(&mut self.stranded) {
            self.take(at, message);
        }
    }

    /// An instance of a taker sees to it that its log has everything that it got.
    pub(crate) fn adopt(&mut self, index: usize) {
        let at = self.instances[index].site;
        let copy = &self.instances[index].copy;
        let (mut commands, mut done) = (Vec::new(), Vec::new());
        let of_site = |takeover: &&Takeover| takeover.ballot.taker == site(at) && !takeover.adopted;
        for takeover in copy.takeovers.iter().filter(of_site) {
            let before = commands.len();
            let Takeover { lost, cut, ballot, .. } = takeover;
            let Ok(applied) = copy.applied(lost);
            if applied < *cut {
                continue;
            }
            for (id, state) in &copy.records {
                if copy.takeovers.is_owned_by(takeover, &state.owner, state.epoch) {
                    let command_id = format!("adopt-{}-{}-{}", ballot.term, state.epoch, state.version);
                    commands.push(rehome(id, &command_id, site(at)));
                }
            }
            let Ok(group) = copy.group(lost, &kind(), freehold_core::GroupNumber(0));
            for outcome in copy.outcomes.values().filter(|outcome| outcome.origin == *lost) {
                if !group.may_have_unsent(lost, outcome) {
                    continue;
                }
                for (number, emitted) in (0..).zip(&outcome.change.emits) {
                    let command_id = outcome.change.command_id.emitted(number);
                    let Ok(known) = copy.outcome(&kind(), Some(&emitted.id), &command_id);
                    if known.is_none() {
                        commands.push(append(&emitted.id, &command_id.to_string(), None));
                    }
                }
            }
            if commands.len() == before {
                done.push(Takeover { adopted: true, ..takeover.clone() });
            }
        }
        for takeover in done {
            let (sequence, time) = (StreamSequence(self.sites[at].records.len() as u64 + 1), self.log_time(at));
            self.sites[at].records.push(Entry::Takeover(TakeoverMessage { sequence, time, takeover }));
        }
        self.figures.adopted += commands.len();
        for command in commands {
            self.take(at, command);
        }
    }
}
