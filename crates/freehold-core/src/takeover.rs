//! Taking over what a lost site owned.
//!
//! The taker asks every other member to *seal* the lost site's log under a ballot: to take no more of it. The furthest of them is
//! the *cut*. The taker logs the takeover, and from that message on it owns what the lost site owned: nothing of
//! the lost site's log counts beyond the cut, until that site begins a new life of it. Records need no rewriting for that: who
//! owns one is its newest update's owner, seen through the takeovers. See docs/adr/0013-takeovers.md; the ballots are those of
//! Lamport's "Paxos Made Simple" (2001), with all members as the quorum.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::CommandMessage;
use crate::copy::RecordState;
use crate::envelope::Update;
use crate::name::SiteName;
use crate::number::{Epoch, Incarnation, LogTime, StreamSequence, Term};
use crate::outcome::Change;

/// Who wants to take a site over, and in which try. Of two the higher wins everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Higher than every term that the taker has heard of.
    pub term: Term,
    /// The site that takes over.
    pub taker: SiteName,
}

/// A member's word to take no more of a lost site's log, on `fh.S.ctl.seal.<lost>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// For whom.
    pub ballot: Ballot,
}

/// A site's ownership has passed to another, on `fh.S.ctl.fact.<lost>` in the taker's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// The life of the taker's records log.
    pub log: Incarnation,
    /// The taker, and its term.
    pub ballot: Ballot,
    /// The site that was lost.
    pub lost: SiteName,
    /// The life of its records log.
    pub lost_log: Incarnation,
    /// The last message of that log that counts. It may lie within a batch: each message of a flush stands for itself, and they are
    /// in an order of which every beginning is sound.
    pub cut: StreamSequence,
    /// How far each member had that log when it was sealed: where the cut can be read.
    pub sealed: BTreeMap<SiteName, StreamSequence>,
    /// Whether the taker's log has an update of every record that it got by this.
    #[serde(default)]
    pub adopted: bool,
    /// Whether the lost site has begun a new life of its log by this. That log is a second witness then: the takeover counts also where
    /// the taker's log has lost it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
}

/// A site begins a new life of its records log, on `fh.S.ctl.life`: what was behind the cut of a takeover is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The new life.
    pub log: Incarnation,
    /// What has ended the last one.
    pub ended_by: Takeover,
    /// Where its taker has logged that.
    pub logged_at: StreamSequence,
}

impl Life {
    /// The life that follows a takeover. Each takeover ends one life, so that all instances of the site come to the same.
    pub fn after(takeover: Takeover, logged_at: StreamSequence) -> Self {
        let Ballot { term, taker } = &takeover.ballot;
        let log = Incarnation::new(takeover.lost_log.counter() + 1, &format!("{taker}{term}"));
        Self { log, ended_by: takeover, logged_at }
    }

    /// The takeover that it was begun by, and that counts by that.
    pub fn accepted(&self) -> Takeover {
        Takeover { accepted: true, ..self.ended_by.clone() }
    }
}

/// Something that a site had when it was taken over and that does not count, on `fh.S.stranded.K` of a stream of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stranded {
    /// An update beyond the cut.
    Update {
        /// The takeover.
        ballot: Ballot,
        /// Its place in the records log.
        sequence: StreamSequence,
        /// The update.
        update: Box<Update>,
    },
    /// An outcome beyond the cut that changed no record, or whose update the log has dropped since.
    Outcome {
        /// The takeover.
        ballot: Ballot,
        /// The place of the result in the records log.
        sequence: StreamSequence,
        /// The outcome.
        change: Box<Change>,
    },
    /// A command that is not decided by anything that counts.
    Command {
        /// The takeover.
        ballot: Ballot,
        /// Its place in the command log.
        sequence: StreamSequence,
        /// When that log took it.
        time_ms: LogTime,
        /// The command.
        command: Box<CommandMessage>,
    },
}

impl Stranded {
    /// The takeover.
    pub fn ballot(&self) -> &Ballot {
        match self {
            Self::Update { ballot, .. } | Self::Outcome { ballot, .. } | Self::Command { ballot, .. } => ballot,
        }
    }
}

/// All takeovers that a copy has read of. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Takeovers(Arc<Vec<Logged>>);

/// A takeover, and where it was logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Logged {
    takeover: Takeover,
    /// Its place in the taker's log.
    sequence: StreamSequence,
}

impl Logged {
    /// Whether another takeover makes this one void: by what counts of its taker's log, or since it is of the same site and higher.
    fn is_void_by(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.takeover, &other.takeover);
        let of_taker = !ours.accepted
            && theirs.lost == ours.ballot.taker
            && self.sequence > theirs.cut
            && ours.log.counter() <= theirs.lost_log.counter();
        let same = theirs.lost == ours.lost && theirs.lost_log.counter() == ours.lost_log.counter();
        theirs.ballot > ours.ballot && (of_taker || same)
    }
}

impl Takeovers {
    /// Takes in a takeover and where it was logged. Tells whether that changes anything.
    pub fn note(&mut self, takeover: Takeover, sequence: StreamSequence) -> bool {
        let logged = Logged { takeover, sequence };
        let mut all = self.0.as_ref().clone();
        let same = |other: &Logged| {
            (&other.takeover.ballot, &other.takeover.lost) == (&logged.takeover.ballot, &logged.takeover.lost)
        };
        if let Some(known) = all.iter().position(same) {
            // Said again, with how far the taker has come since.
            let Logged { takeover, sequence } = &mut all[known];
            *sequence = logged.sequence.min(*sequence);
            takeover.adopted |= logged.takeover.adopted;
            takeover.accepted |= logged.takeover.accepted;
        } else if all.iter().any(|other| logged.is_void_by(other)) {
            return false;
        } else {
            all.retain(|other| !other.is_void_by(&logged));
            all.push(logged);
            all.sort_by(|left, right| left.takeover.ballot.cmp(&right.takeover.ballot));
        }
        let changed = all != *self.0;
        self.0 = Arc::new(all);
        changed
    }

    /// In the order of their ballots.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Takeover> {
        self.0.iter().map(|logged| &logged.takeover)
    }

    /// The same, with where each was logged.
    pub fn logged(&self) -> impl DoubleEndedIterator<Item = (&Takeover, StreamSequence)> {
        self.0.iter().map(|logged| (&logged.takeover, logged.sequence))
    }

    /// The newest takeover of a site.
    pub fn of(&self, lost: &SiteName) -> Option<&Takeover> {
        self.iter().rev().find(|takeover| takeover.lost == *lost)
    }

    /// Where a site's log was cut last; 0 where it never was.
    pub fn cut_of(&self, lost: &SiteName) -> StreamSequence {
        self.of(lost).map(|takeover| takeover.cut).unwrap_or_default()
    }

    /// The sites whose logs are cut elsewhere than others say.
    pub fn cut_since<'t>(&'t self, before: &'t Self) -> impl Iterator<Item = &'t SiteName> {
        let newest = self.iter().filter(|takeover| self.of(&takeover.lost) == Some(takeover));
        newest.map(|takeover| &takeover.lost).filter(|lost| self.cut_of(lost) != before.cut_of(lost))
    }

    /// The highest term of all.
    pub fn newest_term(&self) -> Term {
        self.iter().next_back().map(|takeover| takeover.ballot.term).unwrap_or_default()
    }

    /// Whether a site has lost what it owned in an epoch.
    pub fn is_lost(&self, site: &SiteName, epoch: Epoch) -> bool {
        self.iter().any(|takeover| takeover.lost == *site && takeover.ballot.term > epoch.term())
    }

    /// Whether a message of a site's log lies beyond a cut. `life` is the life of the log that the message is of; nothing where that
    /// is not known, as in a group of which no claim was read.
    pub fn is_void(&self, origin: &SiteName, sequence: StreamSequence, life: Option<&Incarnation>) -> bool {
        let is_beyond = |takeover: &Takeover| takeover.lost == *origin && sequence > takeover.cut;
        let is_old = |takeover: &Takeover| life.is_none_or(|life| life.counter() <= takeover.lost_log.counter());
        self.iter().any(|takeover| is_beyond(takeover) && is_old(takeover))
    }

    /// Whether any message of a site's log that is so far may lie beyond a cut.
    pub fn may_be_void(&self, origin: &SiteName, sequence: StreamSequence) -> bool {
        self.iter().any(|takeover| takeover.lost == *origin && sequence > takeover.cut)
    }

    /// Who owns what a site owned in an epoch, in which epoch, and up to where the logs of the lost sites count; nothing where no
    /// takeover has changed it.
    pub fn see(&self, owner: &SiteName, epoch: Epoch) -> Option<Taken> {
        let mut taken: Option<Taken> = None;
        for takeover in self.iter() {
            let (owner, epoch) = taken.as_ref().map_or((owner, epoch), |taken| (&taken.owner, taken.epoch));
            if takeover.lost == *owner && takeover.ballot.term > epoch.term() {
                let mut cuts = taken.as_ref().map(|taken| taken.cuts.clone()).unwrap_or_default();
                cuts.insert(takeover.lost.clone(), takeover.cut);
                let epoch = epoch.taken_over(takeover.ballot.term);
                taken = Some(Taken { owner: takeover.ballot.taker.clone(), epoch, cuts });
            }
        }
        taken
    }

    /// Whether who owns what a site owned in an epoch is a takeover's taker, and by that takeover: it may have been given back since, or have
    /// passed on to the taker's own taker.
    pub fn is_owned_by(&self, takeover: &Takeover, owner: &SiteName, epoch: Epoch) -> bool {
        let taken = self.see(owner, epoch);
        taken.is_some_and(|it| it.owner == takeover.ballot.taker && it.cuts.contains_key(&takeover.lost))
    }

    /// A record's state with its owner seen through the takeovers. Tells the lost sites that it has passed through; none where
    /// nothing has changed.
    pub fn see_record(&self, state: &mut RecordState) -> Vec<SiteName> {
        let Some(Taken { owner, epoch, cuts }) = self.see(&state.owner, state.epoch) else { return Vec::new() };
        let lost = cuts.keys().cloned().collect();
        state.owner = owner;
        state.epoch = epoch;
        state.moved.extend(cuts);
        lost
    }
}

/// An ownership that takeovers have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The owner now.
    pub owner: SiteName,
    /// The epoch now.
    pub epoch: Epoch,
    /// What must be applied of the logs of the lost sites before anything is decided.
    pub cuts: BTreeMap<SiteName, StreamSequence>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteName {
        name.parse().unwrap()
    }

    fn takeover(lost: &str, taker: &str, term: u64, cut: u64) -> Takeover {
        Takeover {
            log: Incarnation::new(1, "taker"),
            ballot: Ballot { term: Term(term), taker: site(taker) },
            lost: site(lost),
            lost_log: Incarnation::new(1, "lost"),
            cut: StreamSequence(cut),
            sealed: BTreeMap::new(),
            adopted: false,
            accepted: false,
        }
    }

    #[test]
    fn ownership_passes_on_from_taker_to_taker_and_ends_where_it_was_given_back() {
        let mut takeovers = Takeovers::default();
        assert!(takeovers.note(takeover("ewr", "jfk", 1, 10), StreamSequence(5)));
        assert!(takeovers.note(takeover("jfk", "lga", 2, 20), StreamSequence(7)));
        let taken = takeovers.see(&site("ewr"), Epoch(3)).unwrap();
        assert_eq!((taken.owner, taken.epoch), (site("lga"), Epoch((2 << 32) + 3)));
        assert_eq!(taken.cuts.len(), 2);
        // The record was given back to the site that had been lost.
        assert_eq!(takeovers.see(&site("ewr"), Epoch((1 << 32) + 4)), None);
        assert!(takeovers.is_lost(&site("ewr"), Epoch(3)) && !takeovers.is_lost(&site("ewr"), Epoch(1 << 32)));
    }

    #[test]
    fn a_taker_that_was_taken_over_itself_adopts_nothing_more() {
        let mut takeovers = Takeovers::default();
        let (first, second) = (takeover("ewr", "jfk", 1, 10), takeover("jfk", "ewr", 2, 20));
        takeovers.note(first.clone(), StreamSequence(5));
        assert!(takeovers.is_owned_by(&first, &site("ewr"), Epoch(3)));
        takeovers.note(second.clone(), StreamSequence(11));
        assert!(!takeovers.is_owned_by(&first, &site("ewr"), Epoch(3)), "it has passed on");
        assert!(takeovers.is_owned_by(&second, &site("ewr"), Epoch(3)), "and has come to the other one by its own");
        assert!(takeovers.is_owned_by(&second, &site("jfk"), Epoch(3)));
        assert!(!takeovers.is_owned_by(&second, &site("jfk"), Epoch((2 << 32) + 4)), "it was given back");
    }

    #[test]
    fn of_two_sites_that_take_each_other_over_the_higher_ballot_wins_in_any_order() {
        let (one, two) = (takeover("ewr", "jfk", 1, 10), takeover("jfk", "ewr", 2, 10));
        for order in [[&one, &two], [&two, &one]] {
            let mut takeovers = Takeovers::default();
            order.iter().for_each(|it| _ = takeovers.note((*it).clone(), StreamSequence(11)));
            assert_eq!(takeovers.iter().collect::<Vec<_>>(), [&two]);
        }
        // One that lies before the cut of the other counts, and its owner passes it on.
        let mut takeovers = Takeovers::default();
        assert!(takeovers.note(one, StreamSequence(9)) && takeovers.note(two, StreamSequence(11)));
        assert_eq!(takeovers.see(&site("jfk"), Epoch(0)).unwrap().owner, site("ewr"));
    }

    #[test]
    fn what_the_lost_site_has_accepted_counts_though_its_takers_log_has_lost_it_in_any_order() {
        let first = takeover("ewr", "jfk", 1, 10);
        let (accepted, second) = (Takeover { accepted: true, ..first.clone() }, takeover("jfk", "lga", 2, 20));
        // The first lies behind the cut of the second.
        let logged = [(&first, 21), (&accepted, 21), (&second, 5)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut takeovers = Takeovers::default();
            for (takeover, at) in order.map(|it| logged[it]) {
                takeovers.note(takeover.clone(), StreamSequence(at));
            }
            assert_eq!(takeovers.iter().collect::<Vec<_>>(), [&accepted, &second], "{order:?}");
            assert_eq!(takeovers.see(&site("ewr"), Epoch(3)).unwrap().owner, site("lga"), "{order:?}");
        }
        let mut takeovers = Takeovers::default();
        assert!(takeovers.note(second, StreamSequence(5)) && !takeovers.note(first, StreamSequence(21)));
    }

    #[test]
    fn only_the_life_that_was_cut_is_void_beyond_the_cut() {
        let mut takeovers = Takeovers::default();
        takeovers.note(takeover("ewr", "jfk", 1, 10), StreamSequence(5));
        let (old, new) = (Incarnation::new(1, "lost"), Incarnation::new(2, "new"));
        let is_void =
            |sequence, life: Option<&Incarnation>| takeovers.is_void(&site("ewr"), StreamSequence(sequence), life);
        assert!(!is_void(10, Some(&old)) && is_void(11, Some(&old)) && is_void(11, None) && !is_void(11, Some(&new)));
        assert!(!takeovers.is_void(&site("jfk"), StreamSequence(11), Some(&old)));
    }
}
