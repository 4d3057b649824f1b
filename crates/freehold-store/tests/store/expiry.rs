//! Outcomes expire in the order of the log, unless they must be kept.

use freehold_core::{CopyRead as _, LogTime, StreamSequence};
use freehold_store::{Error, Expired, KEPT_OUTCOMES_REVISIT_MS, MAX_EXPIRED_OUTCOMES, Writer};

use crate::given::{command, id, kind, open, put_outcomes, site};

fn expire(writer: &mut Writer, before: LogTime, keep: &[&str]) -> Expired {
    writer
        .transact(|tables| {
            tables.expire::<Error>(&site(), before, |_, _, outcome| {
                Ok(!keep.contains(&outcome.change.command_id.as_str()))
            })
        })
        .unwrap()
}

#[test]
fn only_what_is_old_enough_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    let one = id("A-1");
    writer
        .transact(|tables| {
            put_outcomes(tables, 1, &[(&one, "c1"), (&one, "d1")])?;
            put_outcomes(tables, 2, &[(&one, "c2")])
        })
        .unwrap();
    assert_eq!(expire(&mut writer, LogTime(1_000), &[]), Expired::default());
    let expired = expire(&mut writer, LogTime(2_000), &[]);
    assert_eq!((expired.outcomes, expired.messages, expired.more), (2, 1, false));

    let snapshot = reader.snapshot().unwrap();
    assert_eq!(snapshot.outcome(&kind(), Some(&one), &command("c1")).unwrap(), None);
    assert_eq!(snapshot.outcomes_of_message(&site(), StreamSequence(1)).unwrap(), []);
    assert!(snapshot.outcome(&kind(), Some(&one), &command("c2")).unwrap().is_some());
}

#[test]
fn a_repeated_outcome_lives_as_long_as_the_message_that_repeats_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    let one = id("A-1");
    writer
        .transact(|tables| {
            put_outcomes(tables, 1, &[(&one, "c")])?;
            put_outcomes(tables, 9, &[(&one, "c")])
        })
        .unwrap();
    let expired = expire(&mut writer, LogTime(9_000), &[]);
    assert_eq!((expired.outcomes, expired.messages), (0, 1));
    assert!(reader.snapshot().unwrap().outcome(&kind(), Some(&one), &command("c")).unwrap().is_some());
    assert_eq!(expire(&mut writer, LogTime(9_001), &[]).outcomes, 1);
    assert!(reader.snapshot().unwrap().outcome(&kind(), Some(&one), &command("c")).unwrap().is_none());
}

#[test]
fn what_must_be_kept_holds_nothing_up_and_is_dropped_when_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    let one = id("A-1");
    writer
        .transact(|tables| {
            put_outcomes(tables, 1, &[(&one, "c"), (&one, "kept")])?;
            put_outcomes(tables, 2, &[(&one, "d")])
        })
        .unwrap();
    let expired = expire(&mut writer, LogTime(5_000), &["kept"]);
    assert_eq!((expired.outcomes, expired.messages, expired.kept), (2, 1, 1));
    let left = reader.snapshot().unwrap().outcomes_of_message(&site(), StreamSequence(1)).unwrap();
    assert_eq!(left.iter().map(|outcome| outcome.change.command_id.as_str()).collect::<Vec<_>>(), ["kept"]);

    assert_eq!(expire(&mut writer, LogTime(5_001), &[]), Expired::default(), "not read over and over");
    let expired = expire(&mut writer, LogTime(5_000 + KEPT_OUTCOMES_REVISIT_MS), &[]);
    assert_eq!((expired.outcomes, expired.messages), (1, 1));
    assert_eq!(reader.snapshot().unwrap().outcomes_of_message(&site(), StreamSequence(1)).unwrap(), []);
}

#[test]
fn a_call_is_bounded_and_the_next_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    let one = id("A-1");
    let total = MAX_EXPIRED_OUTCOMES as u64 + 10;
    writer
        .transact(|tables| {
            (1..=total).try_for_each(|sequence| put_outcomes(tables, sequence, &[(&one, &format!("c{sequence}"))]))
        })
        .unwrap();
    let first = expire(&mut writer, LogTime(u64::MAX), &["c1"]);
    assert_eq!((first.outcomes, first.kept, first.more), (MAX_EXPIRED_OUTCOMES - 1, 1, true));
    let second = expire(&mut writer, LogTime(u64::MAX), &[]);
    assert_eq!((second.outcomes, second.more), (10, false));
    // A restart forgets how far the walk was, and starts at the head.
    drop((writer, reader));
    let (mut writer, _) = open(directory.path()).into_parts();
    assert_eq!(expire(&mut writer, LogTime(u64::MAX), &[]).outcomes, 1);
}

#[test]
fn an_origin_expires_only_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(directory.path()).into_parts();
    let one = id("A-1");
    writer.transact(|tables| put_outcomes(tables, 1, &[(&one, "c")])).unwrap();
    let other = writer
        .transact(|tables| tables.expire::<Error>(&"ew".parse().unwrap(), LogTime(u64::MAX), |_, _, _| Ok(true)))
        .unwrap();
    assert_eq!(other, Expired::default());
}
