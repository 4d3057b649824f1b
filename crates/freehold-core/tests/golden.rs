//! What is stored and sent is frozen: a change of these texts is a change of the wire.

#![allow(clippy::unwrap_used, reason = "fixed values")]

use freehold_core::{
    BatchPlace, Change, Claim, CommandId, CommandLogIncarnation, CommandMessage, DecidedCommand, Epoch, GroupCount,
    Hash, Incarnation, Json, LogTime, MembersRevision, Outcome, Position, RecordId, RecordVersion, Status,
    StreamSequence, Update,
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

fn check<T>(value: &T, golden: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_string(value).unwrap(), golden.trim_end());
    assert_eq!(serde_json::from_str::<T>(golden).unwrap(), *value);
}

fn json(text: &str) -> Json {
    Json::from_text(text.to_owned()).unwrap()
}

#[test]
fn an_update_stays_as_it_is() {
    let change = Change {
        id: None,
        command_id: CommandId::from_caller("c-1").unwrap(),
        name: Some("depart".parse().unwrap()),
        log: CommandLogIncarnation(0),
        sequence: StreamSequence(17),
        time_ms: LogTime(1_357_020_000_123),
        fingerprint: Hash(1),
        outcome: Outcome { status: Status::Applied, version: RecordVersion(2), reply: Some(json("{}")), error: None },
        emits: Vec::new(),
    };
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
        changes: vec![change],
    };
    update.hash = update.content_hash();
    check(&update, include_str!("golden/update.json"));
}

#[test]
fn control_messages_stay_as_they_are() {
    let decided = DecidedCommand {
        sequence: StreamSequence(17),
        command_id: CommandId::from_caller("c-1").unwrap(),
        time_ms: LogTime(5),
    };
    let position = Position { log: CommandLogIncarnation(2), decided: Some(decided), decided_until_ms: LogTime(0) };
    check(&position, r#"{"log":2,"decided":{"sequence":17,"command_id":"c-1","time_ms":5}}"#);
    let claim = Claim {
        log: Incarnation::new(1, "01J"),
        instance: "one".parse().unwrap(),
        nonce: "n1".parse().unwrap(),
        members: MembersRevision(3),
    };
    check(&claim, r#"{"log":"1-01J","instance":"one","nonce":"n1","members":3}"#);
}

#[test]
fn a_command_and_its_message_id_stay_as_they_are() {
    let command = CommandMessage {
        kind: "flight".parse().unwrap(),
        id: "EWR-1".parse().unwrap(),
        name: "depart".parse().unwrap(),
        command_id: CommandId::from_caller("c-1").unwrap(),
        if_version: Some(RecordVersion(1)),
        body: json(r#"{"at":"05:17"}"#),
    };
    let golden =
        r#"{"kind":"flight","id":"EWR-1","name":"depart","command_id":"c-1","if_version":1,"body":{"at":"05:17"}}"#;
    check(&command, golden);
    assert_eq!(command.message_id().to_string(), include_str!("golden/message_id.txt").trim_end());
}
