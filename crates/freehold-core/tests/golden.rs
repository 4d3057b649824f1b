//! What is stored and sent is frozen: a change of these texts is a change of the wire.

#![allow(clippy::unwrap_used, reason = "fixed values")]

use std::collections::BTreeMap;

use freehold_core::{
    Attempt, Ballot, BatchPlace, Carried, Change, Claim, CommandId, CommandLogIncarnation, CommandMessage,
    Confirmation, DeadLetter, DecidedCommand, EmittedCommand, Epoch, ErrorCode, Forward, ForwardNumber, ForwardPlace,
    GroupCount, GroupDigest, Hash, Incarnation, Inherited, Json, KindSettings, Life, LogTime, Member, MemberList,
    MembersRevision, Outcome, OwnerDown, Position, RecordId, RecordVersion, Refusal, ResultMessage, Seal, Status,
    Stranded, StreamSequence, Takeover, Term, Update,
};

/// Checked against nats-server's own `partition()` by the end-to-end test `groups`.
const GROUPS: &[(&str, &str, u16, u16)] = &[
    ("a", "a", 44, 5),
    ("EWR-20130101-UA1545", "EWR-20130101-UA1545", 10, 2),
    ("a.b", "a%2Eb", 8, 3),
    ("*", "%2A", 53, 2),
    (">", "%3E", 4, 3),
    ("with space", "with%20space", 48, 5),
    ("✈", "%E2%9C%88", 21, 5),
    ("ewr-1", "ewr-1", 43, 0),
];

#[test]
fn groups_stay_where_they_are() {
    for (id, token, of_64, of_7) in GROUPS {
        let id: RecordId = id.parse().unwrap();
        assert_eq!(id.token().as_str(), *token);
        assert_eq!(GroupCount::new(64).unwrap().group_of(&id).0, *of_64);
        assert_eq!(GroupCount::new(7).unwrap().group_of(&id).0, *of_7);
    }
}

/// Prints as the golden text, and reads back from it, also with a field of a later release in it.
fn check<T>(value: &T, golden: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_string(value).unwrap(), golden.trim_end());
    assert_eq!(serde_json::from_str::<T>(golden).unwrap(), *value);
    let later = format!("{},\"a_later_field\":{{\"of\":[1]}}}}", golden.trim_end().strip_suffix('}').unwrap());
    assert_eq!(serde_json::from_str::<T>(&later).unwrap(), *value);
}

/// What an entry is stands for the whole of it.
fn check_stranded(entry: &Stranded, golden: &str) {
    assert_eq!(serde_json::to_string(entry).unwrap(), golden.trim_end());
    assert_eq!(serde_json::from_str::<Stranded>(golden).unwrap(), *entry);
}

fn json(text: &str) -> Json {
    Json::from_text(text.to_owned()).unwrap()
}

fn id(text: &str) -> CommandId {
    CommandId::from_caller(text).unwrap()
}

fn applied(version: u64, reply: &str) -> Outcome {
    Outcome { status: Status::Applied, version: RecordVersion(version), reply: Some(json(reply)), error: None }
}

fn not_applied(status: Status, version: u64, error: Refusal) -> Outcome {
    Outcome { status, version: RecordVersion(version), reply: None, error: Some(error) }
}

/// The entry of command `c-1`.
fn change() -> Change {
    Change {
        id: Some("EWR-1".parse().unwrap()),
        command_id: id("c-1"),
        name: Some("depart".parse().unwrap()),
        log: CommandLogIncarnation(0),
        sequence: StreamSequence(17),
        time_ms: LogTime(5),
        fingerprint: Hash(1),
        outcome: applied(2, "{}"),
        emits: Vec::new(),
        forwarded: None,
        repeats: false,
    }
}

/// The entry of a command that could not be read.
fn unreadable(sequence: u64, time: u64) -> Change {
    let (log, sequence) = (CommandLogIncarnation(0), StreamSequence(sequence));
    Change {
        id: None,
        command_id: CommandId::of_unreadable(log, sequence),
        name: None,
        sequence,
        time_ms: LogTime(time),
        fingerprint: Hash::default(),
        outcome: not_applied(Status::Dead, 0, Refusal::new(ErrorCode::Invalid, "the command cannot be read: EOF")),
        ..change()
    }
}

fn decided() -> DecidedCommand {
    DecidedCommand { sequence: StreamSequence(17), command_id: id("c-1"), time_ms: LogTime(5) }
}

fn command() -> CommandMessage {
    CommandMessage {
        kind: "flight".parse().unwrap(),
        id: "EWR-1".parse().unwrap(),
        name: "depart".parse().unwrap(),
        command_id: id("c-1"),
        if_version: Some(RecordVersion(1)),
        owner_down: None,
        body: json(r#"{"at":"05:17"}"#),
    }
}

fn update() -> Update {
    let mut update = Update {
        log: Incarnation::new(1, "01J"),
        id: "EWR-1".parse().unwrap(),
        kind: "flight".parse().unwrap(),
        version: RecordVersion(2),
        owner: "ewr".parse().unwrap(),
        epoch: Epoch(0),
        time_ms: LogTime(1_357_020_000_123),
        record: Some(json(r#"{"status":"departed"}"#)),
        schema: 1,
        hash: Hash::default(),
        previous: Some(Hash(7)),
        batch: BatchPlace::ALONE,
        changes: vec![Change { id: None, time_ms: LogTime(1_357_020_000_123), ..change() }],
        moved: BTreeMap::new(),
    };
    update.hash = update.content_hash();
    update
}

#[test]
fn an_update_stays_as_it_is() {
    check(&update(), include_str!("golden/update.json"));
}

/// The second of a batch of three, with a rejection folded in and a command to emit.
#[test]
fn an_update_that_deletes_stays_as_it_is() {
    let refusal = Refusal::new(ErrorCode::Rejected, "the flight is in the air")
        .with_details(&json(r#"{"rejection":"in_the_air","reason":"InTheAir"}"#));
    let rejected = Change {
        id: None,
        command_id: id("c-4"),
        name: Some("cancel".parse().unwrap()),
        log: CommandLogIncarnation(1),
        sequence: StreamSequence(18),
        time_ms: LogTime(1_357_020_000_500),
        fingerprint: Hash(10),
        outcome: not_applied(Status::Rejected, 4, refusal),
        emits: Vec::new(),
        forwarded: None,
        repeats: false,
    };
    let emitted = EmittedCommand {
        kind: "gate".parse().unwrap(),
        id: "EWR-A7".parse().unwrap(),
        name: "free".parse().unwrap(),
        body: json(r#"{"flight":"EWR-1"}"#),
    };
    let removed = Change {
        command_id: id("c-5"),
        name: Some("remove".parse().unwrap()),
        sequence: StreamSequence(19),
        time_ms: LogTime(1_357_020_000_999),
        fingerprint: Hash(11),
        outcome: applied(5, r#"{"removed":true}"#),
        emits: vec![emitted],
        ..rejected.clone()
    };
    let mut update = Update {
        log: Incarnation::new(3, "01JD"),
        id: "EWR-1 ✈".parse().unwrap(),
        version: RecordVersion(5),
        epoch: Epoch((1 << 32) + 2),
        time_ms: LogTime(1_357_020_000_999),
        record: None,
        schema: 2,
        previous: None,
        batch: BatchPlace { index: 1, size: 3 },
        changes: vec![rejected, removed],
        ..update()
    };
    update.hash = update.content_hash();
    check(&update, include_str!("golden/update_that_deletes.json"));
}

#[test]
fn results_stay_as_they_are() {
    let owner =
        Refusal::new(ErrorCode::NotOwner, "site lga owns this record").with_details(&json(r#"{"owner":"lga"}"#));
    let refused = Change {
        id: Some("EWR-2".parse().unwrap()),
        command_id: id("c-2"),
        sequence: StreamSequence(18),
        time_ms: LogTime(6),
        fingerprint: Hash(2),
        outcome: not_applied(Status::Refused, 0, owner),
        ..change()
    };
    let result = ResultMessage {
        log: Incarnation::new(1, "01J"),
        kind: "flight".parse().unwrap(),
        changes: vec![change(), refused, unreadable(19, 7)],
        carries: vec![Carried { id: "EWR-1".parse().unwrap(), sequence: StreamSequence(40) }],
        inherits: Vec::new(),
        forwards: Vec::new(),
        returns: Vec::new(),
    };
    check(&result, include_str!("golden/result_that_carries.json"));
    let empty = ResultMessage { changes: Vec::new(), carries: Vec::new(), ..result };
    check(&empty, include_str!("golden/result.json"));
    let inherited = Inherited {
        origin: "lga".parse().unwrap(),
        sequence: StreamSequence(40),
        time_ms: LogTime(4),
        changes: vec![change()],
    };
    let inherits = ResultMessage { inherits: vec![inherited], ..empty.clone() };
    check(&inherits, include_str!("golden/result_that_inherits.json"));
    let forward = Forward {
        place: place("ewr", "jfk", 7),
        epoch: Epoch(1),
        command: CommandMessage { owner_down: Some(OwnerDown::Fail), ..command() },
        log: CommandLogIncarnation(2),
        sequence: StreamSequence(17),
        time_ms: LogTime(5),
        instead_of: Some(place("ewr", "lga", 9)),
    };
    let decided = Change { forwarded: Some(place("lga", "ewr", 3)), ..change() };
    let routed = ResultMessage {
        changes: vec![decided],
        forwards: vec![forward],
        returns: vec![place("lga", "ewr", 4)],
        ..empty
    };
    check(&routed, include_str!("golden/result_between_sites.json"));
}

fn place(from: &str, to: &str, number: u64) -> ForwardPlace {
    ForwardPlace { from: from.parse().unwrap(), to: to.parse().unwrap(), number: ForwardNumber(number) }
}

/// Given to another site by one that had it from a third.
#[test]
fn an_update_that_moves_a_record_stays_as_it_is() {
    let mut update = Update {
        owner: "jfk".parse().unwrap(),
        epoch: Epoch(2),
        moved: BTreeMap::from([("lga".parse().unwrap(), StreamSequence(12))]),
        ..update()
    };
    update.hash = update.content_hash();
    check(&update, include_str!("golden/update_that_moves.json"));
}

#[test]
fn control_messages_stay_as_they_are() {
    let position = Position {
        log: CommandLogIncarnation(2),
        decided: Some(decided()),
        decided_until_ms: LogTime::default(),
        sent: BTreeMap::new(),
        received: BTreeMap::new(),
        settled: Vec::new(),
        digest: None,
    };
    check(&position, include_str!("golden/position.json"));
    let void = Position {
        log: CommandLogIncarnation(3),
        decided: None,
        decided_until_ms: LogTime(1_357_020_000_123),
        ..position.clone()
    };
    check(&void, include_str!("golden/position_void.json"));
    let between_sites = Position {
        sent: BTreeMap::from([("jfk".parse().unwrap(), ForwardNumber(7))]),
        received: BTreeMap::from([("lga".parse().unwrap(), ForwardNumber(3))]),
        digest: Some(GroupDigest { records: 2, sum: Hash(5) }),
        ..position
    };
    check(&between_sites, include_str!("golden/position_between_sites.json"));
    let claim = Claim {
        log: Incarnation::new(1, "01J"),
        instance: "one".parse().unwrap(),
        nonce: "n1".parse().unwrap(),
        members: MembersRevision(3),
    };
    check(&claim, include_str!("golden/claim.json"));
    let confirmation = Confirmation { log: Incarnation::new(1, "01J"), position: StreamSequence(77) };
    check(&confirmation, r#"{"log":"1-01J","position":77}"#);
    let attempt = Attempt { log: CommandLogIncarnation(2), command: decided(), number: 3 };
    check(&attempt, include_str!("golden/attempt.json"));
}

/// What sites say of one that is lost.
#[test]
fn takeovers_stay_as_they_are() {
    let ballot = Ballot { term: Term(3), taker: "jfk".parse().unwrap() };
    check(&Seal { ballot: ballot.clone() }, r#"{"ballot":{"term":3,"taker":"jfk"}}"#);
    let takeover = Takeover {
        log: Incarnation::new(1, "01J"),
        ballot: ballot.clone(),
        lost: "ewr".parse().unwrap(),
        lost_log: Incarnation::new(2, "01K"),
        cut: StreamSequence(77),
        sealed: BTreeMap::from([("jfk".parse().unwrap(), StreamSequence(77))]),
        adopted: true,
        accepted: false,
    };
    check(&takeover, include_str!("golden/takeover.json"));
    let life = Life::after(takeover, StreamSequence(9));
    check(&life, include_str!("golden/life.json"));
    let stranded = Stranded::Command {
        ballot: ballot.clone(),
        sequence: StreamSequence(5),
        time_ms: LogTime(1_357_020_000_123),
        command: Box::new(command()),
    };
    check_stranded(&stranded, include_str!("golden/stranded_command.json"));
    let stranded = Stranded::Outcome { ballot, sequence: StreamSequence(6), change: Box::new(unreadable(17, 5)) };
    check_stranded(&stranded, include_str!("golden/stranded_outcome.json"));
}

#[test]
fn dead_letters_stay_as_they_are() {
    let dead = Refusal::new(ErrorCode::Internal, "5 attempts ended without an outcome");
    let change = Change { outcome: not_applied(Status::Dead, 2, dead), ..change() };
    let command = Json::from_value(&CommandMessage { if_version: None, ..command() }).unwrap();
    let letter = DeadLetter { kind: "flight".parse().unwrap(), change, command: Some(command) };
    check(&letter, include_str!("golden/dead_letter.json"));
    let letter = DeadLetter { change: unreadable(17, 5), command: None, ..letter };
    check(&letter, include_str!("golden/dead_letter_unreadable.json"));
}

#[test]
fn commands_and_their_message_ids_stay_as_they_are() {
    check(&command(), include_str!("golden/command_if_version.json"));
    assert_eq!(command().message_id().to_string(), include_str!("golden/message_id.txt").trim_end());
    let emitted = CommandMessage { command_id: id("c-1").emitted(0), if_version: None, body: json("{}"), ..command() };
    check(&emitted, include_str!("golden/command.json"));
}

/// Kept in a key-value bucket and in a stream's metadata.
#[test]
fn settings_and_member_lists_stay_as_they_are() {
    check(&KindSettings::default(), r#"{"groups":64,"hash":"fnv1a-32"}"#);
    let noted = KindSettings { home: Some("prefix".to_owned()), ..KindSettings::default() };
    check(&noted, r#"{"groups":64,"hash":"fnv1a-32","home":"prefix"}"#);
    let member =
        |instance: &str, nonce: &str| Member { instance: instance.parse().unwrap(), nonce: nonce.parse().unwrap() };
    let list = MemberList {
        revision: MembersRevision(42),
        members: vec![member("one", "n1"), member("two", "n2")],
        groups: vec![Some("one".parse().unwrap()), Some("two".parse().unwrap()), Some("one".parse().unwrap())],
    };
    check(&list, include_str!("golden/member_list.json"));
}
