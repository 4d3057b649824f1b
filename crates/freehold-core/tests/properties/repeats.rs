//! A command id of a record has one effect and one answer: the first.

use std::collections::BTreeMap;

use freehold_core::{CommandId, CommandMessage, RecordId};
use proptest::prelude::*;

use crate::commands::{command_of_any_kind, payload, setups, splits, with_id};
use crate::folding::{in_deliveries, one_by_one};

/// Commands whose ids come again: with the same content, with other content, and for other records.
fn logs_with_repeats() -> impl Strategy<Value = Vec<CommandMessage>> {
    let again = any::<prop::sample::Index>();
    let one = (command_of_any_kind(), 0u8..4, again);
    prop::collection::vec(one, 2..30).prop_map(|drawn| {
        let mut messages = Vec::<CommandMessage>::new();
        for (number, (message, how, place)) in drawn.into_iter().enumerate() {
            let fresh = with_id(message, number);
            let known = (!messages.is_empty()).then(|| messages[place.index(messages.len())].clone());
            messages.push(match (how, known) {
                (0, Some(known)) => known,
                (1, Some(known)) => CommandMessage { id: known.id, command_id: known.command_id, ..fresh },
                (2, Some(known)) => CommandMessage { command_id: known.command_id, ..fresh },
                _ => fresh,
            });
        }
        messages
    })
}

proptest! {
    /// In one flush, across flushes and across claims.
    #[test]
    fn repeats_change_nothing(setup in setups(), log in logs_with_repeats(), split in splits()) {
        let mut firsts = BTreeMap::<(RecordId, CommandId), CommandMessage>::new();
        let mut first_only = Vec::new();
        for message in &log {
            let key = (message.id.clone(), message.command_id.clone());
            // Where it is a repeat, something else takes its place, so that the others keep theirs.
            let repeat = firsts.contains_key(&key);
            first_only.push(if repeat { "nothing".to_owned() } else { payload(message) });
            firsts.entry(key).or_insert_with(|| message.clone());
        }
        let all: Vec<String> = log.iter().map(payload).collect();
        let expected = one_by_one(setup, &first_only);
        let found = in_deliveries(setup, &all, &split);
        prop_assert_eq!(found.records(), expected.records());
        let mut outcomes = expected.outcomes();
        outcomes.retain(|(id, _), _| id.is_some());
        prop_assert_eq!(found.outcomes(), outcomes);
        prop_assert_eq!(found.emissions(), expected.emissions());
        // Other content under a known id is told from the first by its fingerprint.
        for message in &log {
            let entry = &found.outcomes()[&(Some(message.id.clone()), message.command_id.clone())];
            let first = &firsts[&(message.id.clone(), message.command_id.clone())];
            prop_assert_eq!(entry.fingerprint, first.fingerprint());
            let same = (&message.name, message.if_version, &message.body) == (&first.name, first.if_version, &first.body);
            prop_assert_eq!(message.fingerprint() == first.fingerprint(), same);
        }
    }
}
