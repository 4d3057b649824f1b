//! A group's digest: the same for the same records in whatever order they came, another one for anything else.

use freehold_core::{GroupDigest, Hash};
use proptest::prelude::*;

fn hashes() -> impl Strategy<Value = Vec<Hash>> {
    // Small numbers too: their sums meet easily.
    let hash = prop_oneof![any::<u128>(), 0u128..4].prop_map(Hash);
    prop::collection::vec(hash, 1..30)
}

fn digest(hashes: &[Hash]) -> GroupDigest {
    let mut digest = GroupDigest::default();
    hashes.iter().for_each(|hash| digest.replace(None, *hash));
    digest
}

proptest! {
    #[test]
    fn the_way_to_a_state_does_not_count(hashes in hashes(), detour in hashes(), order in any::<prop::sample::Index>()) {
        let expected = digest(&hashes);
        // In another order, and each record through states that it has no more.
        let mut turned = hashes.clone();
        turned.rotate_left(order.index(hashes.len()));
        turned.reverse();
        let mut found = GroupDigest::default();
        let firsts: Vec<Hash> = turned.iter().enumerate().map(|(place, _)| detour[place % detour.len()]).collect();
        firsts.iter().for_each(|first| found.replace(None, *first));
        for (first, last) in firsts.iter().zip(&turned) {
            found.replace(Some(*first), *last);
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_single_change_shows(hashes in hashes(), place in any::<prop::sample::Index>(), other in any::<u128>()) {
        let (place, other) = (place.index(hashes.len()), Hash(other));
        let expected = digest(&hashes);
        let mut changed = hashes.clone();
        changed[place] = other;
        prop_assert_eq!(digest(&changed) == expected, hashes[place] == other);
        let mut missing = hashes.clone();
        missing.remove(place);
        prop_assert_ne!(digest(&missing), expected);
        let mut more = hashes.clone();
        more.insert(place, other);
        prop_assert_ne!(digest(&more), expected, "even where its hash is 0: records are counted");
    }
}
