//! Which instance holds which group: a pure function of the member list.
//!
//! The list of a kind is one document, changed by compare-and-set. It keeps the assignment that it led to, so that the
//! next one can move as few groups as possible: a group stays where it is unless its instance has gone or has more than its
//! share. See docs/adr/0004-assignment-in-the-member-list.md.

use serde::{Deserialize, Serialize};

use crate::group::{GroupCount, GroupNumber};
use crate::name::{InstanceName, Nonce};
use crate::number::MembersRevision;

/// One life of an instance, as the member list names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The instance.
    pub instance: InstanceName,
    /// Which life of it.
    pub nonce: Nonce,
}

/// The instances that serve a kind at a site, and the groups of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// Higher with each change, and higher than every claim that the writer knew.
    pub revision: MembersRevision,
    /// In the order in which they joined.
    pub members: Vec<Member>,
    /// The holder of each group, by group number.
    pub groups: Vec<Option<InstanceName>>,
}

/// A live instance of the same name is in the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an instance named {} is a member already", .0.instance)]
pub struct NameTaken(pub Member);

impl MemberList {
    /// A list without members.
    pub fn empty(groups: GroupCount) -> Self {
        Self {
            revision: MembersRevision::default(),
            members: Vec::new(),
            groups: groups.groups().map(|_| None).collect(),
        }
    }

    /// The list with one more member; the same list where this very life is a member already.
    pub fn joined(&self, member: Member, at_least: MembersRevision) -> Result<Self, NameTaken> {
        match self.members.iter().find(|known| known.instance == member.instance) {
            Some(known) if *known == member => Ok(self.clone()),
            Some(known) => Err(NameTaken(known.clone())),
            None => {
                let mut members = self.members.clone();
                members.push(member);
                Ok(self.with(members, at_least))
            }
        }
    }

    /// The list without one life of an instance; the same list where it is no member.
    pub fn left(&self, member: &Member, at_least: MembersRevision) -> Self {
        if !self.members.contains(member) {
            return self.clone();
        }
        let members = self.members.iter().filter(|known| *known != member).cloned().collect();
        self.with(members, at_least)
    }

    /// The groups of an instance's life; none where it is no member.
    pub fn groups_of(&self, member: &Member) -> Vec<GroupNumber> {
        if !self.members.contains(member) {
            return Vec::new();
        }
        let mine = |(group, holder): (u16, &Option<InstanceName>)| {
            (holder.as_ref() == Some(&member.instance)).then_some(GroupNumber(group))
        };
        (0..).zip(&self.groups).filter_map(mine).collect()
    }

    /// The member that watches over a member's life: the one before it in the list, round.
    pub fn watched_by(&self, member: &Member) -> Option<&Member> {
        let place = self.members.iter().position(|known| known == member)?;
        let next = (place + 1) % self.members.len();
        self.members.get(next).filter(|next| *next != member)
    }

    fn with(&self, members: Vec<Member>, at_least: MembersRevision) -> Self {
        let groups = balance(&self.groups, &members);
        Self { revision: self.revision.max(at_least).next(), members, groups }
    }
}

/// Gives each group a holder: shares differ by one at most, and only groups without a holder or above a share move.
fn balance(before: &[Option<InstanceName>], members: &[Member]) -> Vec<Option<InstanceName>> {
    if members.is_empty() {
        return before.iter().map(|_| None).collect();
    }
    let (least, surplus) = (before.len() / members.len(), before.len() % members.len());
    // Those who hold most keep the larger shares; the order of joining breaks ties.
    let held = |member: &Member| before.iter().filter(|holder| holder.as_ref() == Some(&member.instance)).count();
    let mut by_holdings: Vec<&Member> = members.iter().collect();
    by_holdings.sort_by_key(|member| std::cmp::Reverse(held(member)));
    let mut room: Vec<(&InstanceName, usize)> = (0..)
        .zip(by_holdings)
        .map(|(place, member)| (&member.instance, least + usize::from(place < surplus)))
        .collect();
    let mut after: Vec<Option<InstanceName>> = Vec::with_capacity(before.len());
    for holder in before {
        let share = holder.as_ref().and_then(|holder| room.iter_mut().find(|(name, _)| *name == holder));
        after.push(match share {
            Some((name, left)) if *left > 0 => {
                *left -= 1;
                Some((*name).clone())
            }
            _ => None,
        });
    }
    let free = after.iter_mut().filter(|holder| holder.is_none());
    let shares = room.iter().flat_map(|(name, left)| std::iter::repeat_n(*name, *left));
    for (holder, name) in free.zip(shares) {
        *holder = Some(name.clone());
    }
    after
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(number: usize) -> Member {
        Member { instance: format!("i{number}").parse().unwrap(), nonce: format!("n{number}").parse().unwrap() }
    }

    fn counts(list: &MemberList) -> Vec<usize> {
        list.members.iter().map(|member| list.groups_of(member).len()).collect()
    }

    #[test]
    fn a_name_is_taken_until_its_old_life_has_left() {
        let list = MemberList::empty(GroupCount::DEFAULT).joined(member(1), MembersRevision(0)).unwrap();
        let second = Member { nonce: "other".parse().unwrap(), ..member(1) };
        assert_eq!(list.joined(second.clone(), MembersRevision(0)), Err(NameTaken(member(1))));
        let list = list.left(&member(1), MembersRevision(0)).joined(second.clone(), MembersRevision(0)).unwrap();
        assert_eq!(list.groups_of(&second).len(), 64);
        assert!(list.groups_of(&member(1)).is_empty(), "an older life holds nothing");
    }

    #[test]
    fn a_revision_passes_every_claim_that_the_writer_knew() {
        let list = MemberList::empty(GroupCount::DEFAULT).joined(member(1), MembersRevision(41)).unwrap();
        assert_eq!(list.revision, MembersRevision(42));
    }

    proptest! {
        #[test]
        fn shares_are_even_and_groups_stay(
            groups in 1u16..200,
            steps in prop::collection::vec((any::<bool>(), 0usize..6), 1..30),
        ) {
            let mut list = MemberList::empty(GroupCount::new(groups).unwrap());
            for (joins, number) in steps {
                let before = list.clone();
                list = if joins {
                    list.joined(member(number), MembersRevision(0)).unwrap()
                } else {
                    list.left(&member(number), MembersRevision(0))
                };
                let counts = counts(&list);
                prop_assert_eq!(counts.iter().sum::<usize>(), if counts.is_empty() { 0 } else { usize::from(groups) });
                let (least, most) = (counts.iter().min(), counts.iter().max());
                prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1));
                // Only what has to move moves: the groups of who left, or the share of who joined.
                let moved = before.groups.iter().zip(&list.groups)
                    .filter(|(old, new)| old.is_some() && new.is_some() && old != new).count();
                let gone: usize = before.members.iter().filter(|old| !list.members.contains(old))
                    .map(|old| before.groups_of(old).len()).sum();
                let come: usize = list.members.iter().filter(|new| !before.members.contains(new))
                    .map(|new| list.groups_of(new).len()).sum();
                prop_assert!(moved <= gone + come, "{moved} groups moved, {gone} had to leave, {come} to come");
            }
        }
    }
}
