//! Reading what was written: in the transaction, after the commit, after a restart.

use std::collections::BTreeMap;

use freehold_core::{
    Ballot, CopyRead, CopyWrite as _, GroupDigest, GroupNumber, GroupState, Hash, Incarnation, LogTime, SiteName,
    StreamSequence, Takeover, Takeovers, Term,
};
use freehold_store::{Error, OriginState, Page, RecordSummary, Snapshot};

use crate::given::{command, group_of, id, kind, open, outcome, put, put_outcomes, site, state};

#[test]
fn a_copy_reads_what_was_written_now_later_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    let group = GroupState { claims_since_outcome: 3, ..GroupState::default() };
    let before = reader.snapshot().unwrap();

    fn check<C: CopyRead>(copy: &C, group: &GroupState) {
        let one = id("A-1");
        assert_eq!(copy.record(&kind(), &one).unwrap(), Some(state(1, Some("x"))));
        assert_eq!(copy.record(&kind(), &id("A-2")).unwrap(), None);
        assert_eq!(copy.record(&"flights".parse().unwrap(), &one).unwrap(), None);
        assert_eq!(copy.outcome(&kind(), Some(&one), &command("c1")).unwrap(), Some(outcome(&one, "c1", 1)));
        assert_eq!(copy.outcome(&kind(), Some(&id("A-2")), &command("c1")).unwrap(), None);
        assert_eq!(copy.outcome(&kind(), None, &command("c1")).unwrap(), None);
        assert_eq!(copy.outcomes_of_message(&site(), StreamSequence(1)).unwrap(), [outcome(&one, "c1", 1)]);
        assert_eq!(copy.outcomes_of_message(&site(), StreamSequence(2)).unwrap(), []);
        assert_eq!(copy.group(&site(), &kind(), GroupNumber(5)).unwrap(), *group);
        assert_eq!(copy.group(&site(), &kind(), GroupNumber(6)).unwrap(), GroupState::default());
        assert_eq!(copy.applied(&site()).unwrap(), StreamSequence(1));
        assert_eq!(copy.applied(&"lhr".parse().unwrap()).unwrap(), StreamSequence(0));
        assert_eq!(copy.outcomes_complete_from(&site()).unwrap(), LogTime(9));
    }

    let origin = writer
        .transact(|tables| {
            tables.put_origin(&site(), OriginState { outcomes_complete_from: LogTime(9), ..OriginState::default() });
            put(tables, &id("A-1"), 1, Some("x"))?;
            tables.put_group(&site(), &kind(), GroupNumber(5), &group)?;
            check(tables, &group);
            tables.origin(&site())
        })
        .unwrap();
    assert_eq!(origin.time, LogTime(1_000));
    assert_eq!(before.applied(&site()).unwrap(), StreamSequence(0), "a snapshot does not move");
    check(&reader.snapshot().unwrap(), &group);
    assert_eq!(reader.snapshot().unwrap().origins().unwrap(), [(site(), origin)]);

    drop((writer, reader, before));
    let store = open(directory.path());
    assert!(!store.is_fresh());
    let (mut writer, reader) = store.into_parts();
    check(&reader.snapshot().unwrap(), &group);
    writer
        .transact(|tables| {
            check(tables, &group);
            Ok::<_, Error>(())
        })
        .unwrap();
}

#[test]
fn an_aborted_transaction_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    #[derive(Debug)]
    struct Refused;
    impl From<Error> for Refused {
        fn from(error: Error) -> Self {
            panic!("{error}")
        }
    }

    writer.transact(|tables| put(tables, &id("A-1"), 1, Some("x"))).unwrap();
    let refused = writer.transact(|tables| {
        put(tables, &id("A-1"), 2, Some("y"))?;
        tables.put_group(
            &site(),
            &kind(),
            GroupNumber(0),
            &GroupState { claims_since_outcome: 1, ..GroupState::default() },
        )?;
        Err::<(), _>(Refused)
    });
    assert!(refused.is_err());

    let snapshot = reader.snapshot().unwrap();
    let digests = snapshot.digests(&site(), &kind()).unwrap();
    assert_eq!(snapshot.applied(&site()).unwrap(), StreamSequence(1));
    // What the writer remembers is as it was before too.
    writer
        .transact(|tables| {
            assert_eq!(tables.applied(&site())?, StreamSequence(1));
            assert_eq!(tables.group(&site(), &kind(), GroupNumber(0))?, GroupState::default());
            put(tables, &id("A-1"), 2, Some("y"))
        })
        .unwrap();
    let after = reader.snapshot().unwrap().digests(&site(), &kind()).unwrap();
    let group = usize::from(group_of(&id("A-1")).0);
    let mut expected = digests[group];
    expected.replace(Some(state(1, Some("x")).hash), state(2, Some("y")).hash);
    assert_eq!(after[group], expected);
}

#[test]
fn a_later_outcome_takes_the_place_of_an_earlier_one_of_the_same_command() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    let one = id("A-1");
    writer.transact(|tables| put_outcomes(tables, 1, &[(&one, "c")])).unwrap();
    writer.transact(|tables| put_outcomes(tables, 5, &[(&one, "c"), (&one, "d")])).unwrap();

    let snapshot = reader.snapshot().unwrap();
    assert_eq!(snapshot.outcome(&kind(), Some(&one), &command("c")).unwrap(), Some(outcome(&one, "c", 5)));
    let brought = snapshot.outcomes_of_message(&site(), StreamSequence(5)).unwrap();
    assert_eq!(brought, [outcome(&one, "c", 5), outcome(&one, "d", 5)]);
}

#[test]
fn outcomes_are_found_by_command_id_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    let (one, two) = (id("A-1"), id("A-2"));
    let mut unreadable = outcome(&one, "c", 4);
    unreadable.change.id = None;
    writer
        .transact(|tables| {
            put_outcomes(tables, 1, &[(&two, "c"), (&one, "cc"), (&one, "b")])?;
            put_outcomes(tables, 3, &[(&one, "c")])?;
            tables.put_outcome(&kind(), &unreadable)
        })
        .unwrap();

    let found = reader.snapshot().unwrap().outcomes_by_command(&kind(), &command("c")).unwrap();
    assert_eq!(found, [unreadable, outcome(&one, "c", 3), outcome(&two, "c", 1)]);
    assert_eq!(reader.snapshot().unwrap().outcomes_by_command(&kind(), &command("x")).unwrap(), []);
}

#[test]
fn listings_are_in_byte_order_by_prefix_and_page_without_deleted_records() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    writer
        .transact(|tables| {
            for (number, text) in ["B-1", "A-10", "A-1", "A-2", "A", "Ä-1", "A-\0"].into_iter().enumerate() {
                put(tables, &id(text), number as u64 + 1, Some("x"))?;
            }
            put(tables, &id("A-15"), 8, None)
        })
        .unwrap();
    let snapshot = reader.snapshot().unwrap();
    let ids = |page: Page<(freehold_core::RecordId, freehold_core::RecordState)>| {
        let ids: Vec<String> = page.items.iter().map(|(id, _)| id.to_string()).collect();
        (ids, page.resume_after.map(|id| id.to_string()))
    };
    let list = |prefix, after: Option<&str>, limit| {
        ids(snapshot.list(&kind(), prefix, after.map(id).as_ref(), limit).unwrap())
    };

    let all = ["A", "A-\0", "A-1", "A-10", "A-2", "B-1", "Ä-1"].map(str::to_owned).to_vec();
    assert_eq!(list("", None, 100), (all, None));
    assert_eq!(list("A-1", None, 100), (vec!["A-1".to_owned(), "A-10".to_owned()], None));
    assert_eq!(list("A-", Some("A-1"), 1), (vec!["A-10".to_owned()], Some("A-10".to_owned())));
    assert_eq!(list("A-", Some("A-10"), 1), (vec!["A-2".to_owned()], None));
    // A cursor before the prefix, or behind it.
    assert_eq!(list("A-2", Some("A"), 9), (vec!["A-2".to_owned()], None));
    assert_eq!(list("A-2", Some("B"), 9), (Vec::new(), None));
    assert_eq!(list("C", None, 9), (Vec::new(), None));
}

#[test]
fn digests_follow_the_records_and_lead_down_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    for (number, text) in ["A-1", "A-2", "A-10", "A-1", "A-1"].into_iter().enumerate() {
        writer.transact(|tables| put(tables, &id(text), number as u64 + 1, Some("x"))).unwrap();
    }
    writer.transact(|tables| put(tables, &id("A-2"), 6, None)).unwrap();

    let snapshot = reader.snapshot().unwrap();
    let digests = snapshot.digests(&site(), &kind()).unwrap();
    for group in (0..8).map(GroupNumber) {
        let records = records_of(&snapshot, group);
        let sum = records.iter().fold(0_u128, |sum, record| sum.wrapping_add(record.hash.0));
        let expected = GroupDigest { records: records.len() as u64, sum: Hash(sum) };
        assert_eq!(digests.get(usize::from(group.0)).copied().unwrap_or_default(), expected, "group {group}");
    }
    let group = group_of(&id("A-1"));
    assert_eq!(digests[usize::from(group.0)].records, 2, "deleted ones count");
    let page = snapshot.records_of_group(&site(), &kind(), group, Some(&id("A-1")), 10).unwrap();
    assert_eq!(
        page.items,
        [RecordSummary { id: id("A-2"), version: state(6, None).version, hash: state(6, None).hash }]
    );
    assert_eq!(snapshot.digests(&"lhr".parse().unwrap(), &kind()).unwrap(), []);
    assert_eq!(snapshot.records_of_group(&"lhr".parse().unwrap(), &kind(), group, None, 10).unwrap().items, []);
}

fn records_of(snapshot: &Snapshot, group: GroupNumber) -> Vec<RecordSummary> {
    let mut records = Vec::new();
    let mut after = None;
    loop {
        let page = snapshot.records_of_group(&site(), &kind(), group, after.as_ref(), 1).unwrap();
        records.extend(page.items);
        after = page.resume_after;
        if after.is_none() {
            return records;
        }
    }
}

#[test]
fn the_position_moves_and_what_was_noted_beside_it_stays_or_is_void() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    let noted = OriginState {
        applied: StreamSequence(4),
        time: LogTime(4),
        outcomes_complete_from: LogTime(2),
        incarnation: Some(Incarnation::new(1, "x")),
        last_hash: Some(Hash(1)),
        dropped_until: StreamSequence(3),
        is_ahead: true,
    };
    writer
        .transact(|tables| {
            tables.put_origin(&site(), noted.clone());
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(reader.snapshot().unwrap().origin(&site()).unwrap(), noted);
    writer.transact(|tables| tables.put_applied(&site(), StreamSequence(5), LogTime(6))).unwrap();
    let expected = OriginState { applied: StreamSequence(5), time: LogTime(6), last_hash: None, ..noted };
    assert_eq!(reader.snapshot().unwrap().origin(&site()).unwrap(), expected);
    for (until, known) in [(2, 3), (9, 9)] {
        writer.transact(|tables| tables.put_dropped(&site(), StreamSequence(until))).unwrap();
        assert_eq!(reader.snapshot().unwrap().dropped_until(&site()).unwrap(), StreamSequence(known));
    }
}

/// Whether it was in the writer's memory or is read from the file.
#[test]
fn the_digests_of_a_log_that_is_cut_begin_anew() {
    for restarts in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(directory.path()).into_parts();
        writer.transact(|tables| put(tables, &id("A-1"), 1, Some("x"))).unwrap();
        if restarts {
            drop(writer);
            (writer, _) = open(directory.path()).into_parts();
        }
        let group = group_of(&id("A-1"));
        let mut takeovers = Takeovers::default();
        takeovers.note(takeover(&site(), StreamSequence(1)), StreamSequence(1));
        writer.transact(|tables| tables.put_takeovers(&takeovers)).unwrap();
        writer
            .transact(|tables| {
                assert_eq!(tables.digest(&site(), &kind(), group)?, GroupDigest::default());
                put(tables, &id("B-1"), 2, Some("y"))?;
                assert_eq!(tables.digest(&site(), &kind(), group)?.records, 1);
                // Said again it cuts nothing.
                tables.put_takeovers(&takeovers)
            })
            .unwrap();
        drop(writer);
        let store = open(directory.path());
        let snapshot = store.reader().snapshot().unwrap();
        assert_eq!(snapshot.digest(&site(), &kind(), group).unwrap().records, 1);
        let records: Vec<_> = records_of(&snapshot, group).into_iter().map(|record| record.id).collect();
        assert_eq!(records, [id("B-1")]);
    }
}

fn takeover(lost: &SiteName, cut: StreamSequence) -> Takeover {
    Takeover {
        log: Incarnation::new(1, "x"),
        ballot: Ballot { term: Term(1), taker: "lhr".parse().unwrap() },
        lost: lost.clone(),
        lost_log: Incarnation::new(1, "x"),
        cut,
        sealed: BTreeMap::new(),
        adopted: false,
        accepted: false,
    }
}
