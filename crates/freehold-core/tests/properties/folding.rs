//! How commands are cut into flushes changes nothing that anybody can see.

use std::collections::{BTreeMap, BTreeSet};

use freehold_core::{BatchPlace, CommandId, RecordId, StreamSequence};
use proptest::prelude::*;

use crate::bench::{Bench, Setup, told};
use crate::commands::{Pause, command_logs, setups, splits};

/// One command a flush, and each applied before the next is decided.
pub(crate) fn one_by_one(setup: Setup, commands: &[String]) -> Bench {
    let mut bench = Bench::new(setup, commands);
    for _ in commands {
        bench.deliver(1);
        bench.read();
    }
    bench.finish();
    bench
}

pub(crate) fn in_deliveries(setup: Setup, commands: &[String], split: &[(usize, Pause)]) -> Bench {
    let mut bench = Bench::new(setup, commands);
    for (count, pause) in split {
        bench.deliver(*count);
        match pause {
            Pause::None => {}
            Pause::Read => bench.read(),
            Pause::Claim => bench.claim(),
            Pause::PositionAndClaim => {
                bench.log_position();
                bench.claim();
            }
        }
    }
    bench.finish();
    bench
}

/// Every command has one entry, and those of a record come in the order of the command log.
fn check_entries(bench: &Bench, commands: usize) -> Result<(), TestCaseError> {
    let mut places = BTreeSet::<StreamSequence>::new();
    let mut last = BTreeMap::<RecordId, StreamSequence>::new();
    let mut seen = BTreeSet::<(Option<RecordId>, CommandId)>::new();
    for message in &bench.log {
        let told = told(message);
        for change in told.changes {
            let key = (change.id.clone(), change.command_id.clone());
            if !seen.insert(key) {
                prop_assert!(!told.carries.is_empty(), "{change:?} is logged again, and not carried");
                continue;
            }
            prop_assert!(places.insert(change.sequence), "{change:?}");
            if let Some(id) = change.id.clone() {
                let before = last.insert(id, change.sequence);
                prop_assert!(before < Some(change.sequence), "{change:?} behind {before:?}");
            }
        }
    }
    prop_assert_eq!(places.len(), commands);
    Ok(())
}

/// What every flush must be like.
fn check_flushes(bench: &Bench) -> Result<(), TestCaseError> {
    let Setup { max_payload_bytes, history, batched, .. } = bench.setup;
    let mut on_subject = BTreeMap::<String, u64>::new();
    for flush in &bench.flushes {
        let decides = |message: &&freehold_core::LogMessage| {
            matches!(
                message.subject.topic,
                freehold_core::subject::RecordsTopic::Update(_) | freehold_core::subject::RecordsTopic::Result { .. }
            )
        };
        let messages: Vec<_> = flush.iter().filter(decides).collect();
        let mut decided_in = BTreeMap::<RecordId, usize>::new();
        for (place, message) in messages.iter().enumerate() {
            prop_assert!(message.payload.len() < max_payload_bytes, "{} bytes", message.payload.len());
            let told = told(message);
            if let Some(update) = &told.update {
                let (index, size) = (u32::try_from(place).unwrap(), u32::try_from(messages.len()).unwrap());
                let expected = if batched && size > 1 { BatchPlace { index, size } } else { BatchPlace::ALONE };
                prop_assert_eq!(update.batch, expected);
                prop_assert_eq!(
                    message.subject.topic.clone(),
                    freehold_core::subject::RecordsTopic::Update(update.id.token())
                );
            } else {
                let many = on_subject.entry(message.subject.to_string()).or_default();
                *many += 1;
                prop_assert!(*many <= history, "{} results on {}", many, message.subject);
            }
            // What a result repeats may be of a record that this flush updates.
            if told.carries.is_empty() {
                for id in told.changes.into_iter().filter_map(|change| change.id) {
                    let first = *decided_in.entry(id.clone()).or_insert(place);
                    prop_assert_eq!(first, place, "the outcomes of {:?} are split", id);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_split_into_flushes_gives_what_one_by_one_gives(
        setup in setups(),
        commands in command_logs(),
        split in splits(),
    ) {
        let expected = one_by_one(setup, &commands);
        let found = in_deliveries(setup, &commands, &split);
        prop_assert_eq!(found.records(), expected.records());
        prop_assert_eq!(found.outcomes(), expected.outcomes());
        prop_assert_eq!(found.emissions(), expected.emissions());
        prop_assert_eq!(found.dead_letters > 0, expected.dead_letters > 0);
        for bench in [&expected, &found] {
            check_entries(bench, commands.len())?;
            check_flushes(bench)?;
        }
    }
}
