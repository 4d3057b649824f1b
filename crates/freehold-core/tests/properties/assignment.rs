//! The member list moves no group that need not move.
//!
//! That shares differ by one at most is a unit test beside the code.

use freehold_core::{GroupCount, Member, MemberList, MembersRevision};
use proptest::prelude::*;

fn member(number: usize, life: usize) -> Member {
    Member { instance: format!("i{number}").parse().unwrap(), nonce: format!("n{life}").parse().unwrap() }
}

/// A list as joining and leaving have made it.
fn lists() -> impl Strategy<Value = MemberList> {
    let steps = prop::collection::vec((any::<bool>(), 0usize..8), 0..24);
    (1u16..200, steps).prop_map(|(groups, steps)| {
        let empty = MemberList::empty(GroupCount::new(groups).unwrap());
        steps.into_iter().fold(empty, |list, (joins, number)| match joins {
            true => list.joined(member(number, 0), MembersRevision(0)).unwrap(),
            false => list.left(&member(number, 0), MembersRevision(0)),
        })
    })
}

fn members() -> impl Iterator<Item = Member> {
    (0..8).map(|number| member(number, 0))
}

proptest! {
    #[test]
    fn who_joins_takes_its_share_and_nobody_else_gains(list in lists()) {
        let new = member(99, 0);
        let after = list.joined(new.clone(), MembersRevision(0)).unwrap();
        let share = after.groups.len().div_ceil(after.members.len());
        prop_assert!(after.groups_of(&new).len() <= share);
        for (before, after) in list.groups.iter().zip(&after.groups) {
            prop_assert!(before == after || *after == Some(new.instance.clone()), "{before:?} became {after:?}");
        }
    }

    #[test]
    fn who_leaves_moves_its_own_groups_only(list in lists()) {
        for gone in list.members.clone() {
            let after = list.left(&gone, MembersRevision(0));
            for (before, after) in list.groups.iter().zip(&after.groups) {
                prop_assert!(before == after || *before == Some(gone.instance.clone()), "{before:?} became {after:?}");
            }
            let rest = list.members.len() - 1;
            prop_assert!(after.groups.iter().all(|holder| holder.is_some()) == (rest > 0));
        }
    }

    /// A rolling restart: gone and back at once, the groups return without a second round of moves.
    #[test]
    fn a_new_life_gets_its_share_back_from_those_who_took_it(list in lists()) {
        for old in list.members.clone() {
            let new = Member { nonce: "later".parse().unwrap(), ..old.clone() };
            let back = list.left(&old, MembersRevision(0)).joined(new.clone(), MembersRevision(0)).unwrap();
            prop_assert!(back.groups_of(&old).is_empty(), "the life that has gone holds nothing");
            let moved = list.groups.iter().zip(&back.groups).filter(|(before, after)| before != after).count();
            let share = back.groups.len().div_ceil(back.members.len());
            prop_assert!(moved <= 2 * share, "{moved} of {} groups moved", back.groups.len());
        }
    }

    /// Every list of a run is newer than the last, and than every claim that its writer knew.
    #[test]
    fn a_changed_list_is_newer_and_an_unchanged_one_the_same(list in lists(), known in 0u64..100) {
        for one in members() {
            let lists = [list.left(&one, MembersRevision(known)), list.joined(one.clone(), MembersRevision(known)).unwrap()];
            for after in lists {
                let same = after.members == list.members;
                prop_assert_eq!(same, after == list);
                prop_assert!(same || (after.revision > list.revision && after.revision > MembersRevision(known)));
            }
        }
    }

    #[test]
    fn each_member_is_watched_by_another_and_watches_one(list in lists()) {
        let watched: Vec<_> = list.members.iter().filter_map(|one| list.watched_by(one)).collect();
        let expected = if list.members.len() > 1 { list.members.len() } else { 0 };
        prop_assert_eq!(watched.len(), expected);
        let mut names: Vec<&str> = watched.iter().map(|one| one.instance.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), expected, "nobody is left out");
        prop_assert!(list.members.iter().all(|one| list.watched_by(one) != Some(one)));
    }
}
