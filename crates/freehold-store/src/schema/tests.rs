//! Every table's rows survive their encoding, no altered row is read, and the layouts of format 1 stay as they are.

use freehold_core::{
    Attempt, Change, Claim, CommandLogIncarnation, CommandName, DecidedCommand, EmittedCommand, ErrorCode,
    ForwardPlace, Json, Member, MembersRevision, Outcome, Refusal, Status,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn site() -> impl Strategy<Value = SiteName> {
    "[a-z][a-z0-9_]{0,6}".prop_map(|text| text.parse().unwrap())
}

fn kind() -> impl Strategy<Value = KindName> {
    "[a-z][a-z0-9_-]{0,6}".prop_map(|text| text.parse().unwrap())
}

fn instance() -> impl Strategy<Value = InstanceName> {
    "[A-Za-z0-9_-]{1,8}".prop_map(|text| text.parse().unwrap())
}

fn id() -> impl Strategy<Value = RecordId> {
    "\\PC{1,12}|[\\x00-\\x7f]{1,8}".prop_map(|text| text.parse().unwrap())
}

/// Whatever a log may hold, not only what a caller may give.
fn any_command_id() -> impl Strategy<Value = CommandId> {
    "\\PC{0,30}|[\\x00-\\x7f]{0,8}|a{126,130}".prop_map(|text| command_id(&text).unwrap())
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<u128>().prop_map(Hash)
}

fn json() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just("null".to_owned()),
        Just(r#"{"a":1,  "a":2.50e3}"#.to_owned()),
        "\\PC{0,20}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ]
    .prop_map(|text| Json::from_text(text).unwrap())
}

fn uncarried() -> impl Strategy<Value = Vec<Uncarried>> {
    let one = |(sequence, time)| Uncarried { sequence: StreamSequence(sequence), time: LogTime(time) };
    vec(any::<(u64, u64)>().prop_map(one), 0..5)
}

fn last_update() -> impl Strategy<Value = LastUpdate> {
    let last = |(numbers, hash, uncarried): ([u64; 2], Hash, Vec<Uncarried>)| LastUpdate {
        sequence: StreamSequence(numbers[0]),
        version: RecordVersion(numbers[1]),
        hash,
        uncarried,
    };
    (any::<[u64; 2]>(), hash(), uncarried()).prop_map(last)
}

fn forward_place() -> impl Strategy<Value = ForwardPlace> {
    (site(), site(), any::<u64>()).prop_map(|(from, to, number)| ForwardPlace {
        from,
        to,
        number: ForwardNumber(number),
    })
}

prop_compose! {
    fn record_state()(
        numbers in any::<[u64; 4]>(),
        owner in site(),
        record in option::of(json()),
        schema in any::<u32>(),
        hash in hash(),
        uncarried in uncarried(),
        origin in site(),
        moved in btree_map(site(), any::<u64>().prop_map(StreamSequence), 0..3),
        elsewhere in btree_map(site(), last_update(), 0..3),
    ) -> RecordState {
        RecordState {
            version: RecordVersion(numbers[0]),
            owner,
            epoch: Epoch(numbers[1]),
            time: LogTime(numbers[2]),
            record,
            schema,
            hash,
            origin,
            sequence: StreamSequence(numbers[3]),
            uncarried,
            moved,
            elsewhere,
        }
    }
}

fn command_name() -> impl Strategy<Value = CommandName> {
    "[a-z][a-z0-9_-]{0,6}".prop_map(|text| text.parse().unwrap())
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Status::Applied, Status::Rejected, Status::Refused, Status::Dead, Status::Forwarded])
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let codes = vec![
        ErrorCode::Invalid,
        ErrorCode::NotFound,
        ErrorCode::Rejected,
        ErrorCode::Conflict,
        ErrorCode::NotOwner,
        ErrorCode::TooLarge,
        ErrorCode::Busy,
        ErrorCode::OwnerUnreachable,
        ErrorCode::OutcomeUnknown,
        ErrorCode::Internal,
    ];
    (prop::sample::select(codes), "\\PC{0,20}", option::of(json())).prop_map(|(code, message, details)| Refusal {
        code,
        message,
        details,
    })
}

fn emitted() -> impl Strategy<Value = EmittedCommand> {
    (kind(), id(), command_name(), json()).prop_map(|(kind, id, name, body)| EmittedCommand { kind, id, name, body })
}

prop_compose! {
    fn stored_outcome()(
        id in option::of(id()),
        command_id in any_command_id(),
        name in option::of(command_name()),
        numbers in any::<[u64; 6]>(),
        fingerprint in hash(),
        outcome in (status(), option::of(json()), option::of(refusal())),
        emits in vec(emitted(), 0..3),
        forwarded in option::of(forward_place()),
        origin in site(),
    ) -> StoredOutcome {
        let [log, sequence, time_ms, version, message_sequence, time] = numbers;
        let (status, reply, error) = outcome;
        StoredOutcome {
            change: Change {
                id,
                command_id,
                name,
                log: CommandLogIncarnation(log),
                sequence: StreamSequence(sequence),
                time_ms: LogTime(time_ms),
                fingerprint,
                outcome: Outcome { status, version: RecordVersion(version), reply, error },
                emits,
                forwarded,
                repeats: false,
            },
            origin,
            sequence: StreamSequence(message_sequence),
            time: LogTime(time),
        }
    }
}

fn decided() -> impl Strategy<Value = DecidedCommand> {
    (any::<u64>(), any_command_id(), any::<u64>()).prop_map(|(sequence, command_id, time)| DecidedCommand {
        sequence: StreamSequence(sequence),
        command_id,
        time_ms: LogTime(time),
    })
}

prop_compose! {
    fn group_state()(
        claim in option::of((any::<[u64; 2]>(), instance())),
        claims_since_outcome in any::<u32>(),
        log in any::<u64>(),
        position in option::of(decided()),
        highest in option::of(decided()),
        attempt in option::of(decided()),
        tried_by in prop::collection::vec(instance(), 0..3),
        times in any::<[u64; 2]>(),
        sent in btree_map(site(), any::<u64>().prop_map(ForwardNumber), 0..3),
        received in btree_map(site(), any::<u64>().prop_map(ForwardNumber), 0..3),
    ) -> GroupState {
        GroupState {
            claim: claim.map(|([sequence, members], instance)| (StreamSequence(sequence), Claim {
                log: Incarnation::new(7, "life"),
                instance,
                nonce: "nonce".parse().unwrap(),
                members: MembersRevision(members),
            })),
            claims_since_outcome,
            log: CommandLogIncarnation(log),
            position,
            highest,
            attempt: attempt.map(|command| Attempt { log: CommandLogIncarnation(log), command, number: 3 }),
            tried_by: tried_by.into_iter().map(|instance| Member { instance, nonce: "nonce".parse().unwrap() }).collect(),
            claim_time: LogTime(times[0]),
            decided_until: LogTime(times[1]),
            emitted: received.clone(),
            sent,
            received,
        }
    }
}

prop_compose! {
    fn origin_state()(
        numbers in any::<[u64; 4]>(),
        incarnation in option::of((any::<u64>(), "[a-z0-9]{1,8}")),
        last_hash in option::of(hash()),
        is_ahead in any::<bool>(),
    ) -> OriginState {
        OriginState {
            applied: StreamSequence(numbers[0]),
            time: LogTime(numbers[1]),
            outcomes_complete_from: LogTime(numbers[2]),
            incarnation: incarnation.map(|(counter, id)| Incarnation::new(counter, &id)),
            last_hash,
            dropped_until: StreamSequence(numbers[3]),
            is_ahead,
        }
    }
}

proptest! {
    #[test]
    fn meta_survives(site in site(), instance in instance()) {
        let meta = decode_meta(&encode_meta(FORMAT_VERSION, &site, &instance)).unwrap();
        prop_assert_eq!(meta, Meta { format: FORMAT_VERSION, owner: Some((site, instance)) });
    }

    #[test]
    fn records_survive(kind in kind(), id in id(), group in any::<u16>(), state in record_state()) {
        let key = record_key(&kind, id.as_str());
        prop_assert_eq!(record_id_of_key(&kind, &key).unwrap(), id);
        let value = encode_record(&key, GroupNumber(group), &state);
        let head = decode_record_head(&key, &value).unwrap();
        prop_assert_eq!((head.origin, head.group, head.version, head.hash),
            (state.origin.as_str(), GroupNumber(group), state.version, state.hash));
        prop_assert_eq!(decode_record(&key, &value).unwrap(), RecordRow { group: GroupNumber(group), state });
    }

    #[test]
    fn record_keys_are_in_the_order_of_ids_and_apart_by_kind(kind in kind(), other in kind(), one in id(), two in id()) {
        let (left, right) = (record_key(&kind, one.as_str()), record_key(&kind, two.as_str()));
        prop_assert_eq!(left.cmp(&right), one.as_str().as_bytes().cmp(two.as_str().as_bytes()));
        prop_assert!(kind == other || !left.starts_with(&record_key(&other, "")));
    }

    #[test]
    fn outcomes_survive(kind in kind(), outcome in stored_outcome()) {
        let (id, command_id) = (outcome.change.id.clone(), outcome.change.command_id.clone());
        let key = outcome_key(&kind, id.as_ref(), &command_id);
        let prefix = outcome_prefix(&kind, &command_id);
        prop_assert!(key.starts_with(&prefix));
        prop_assert_eq!(&outcome_id_of_key(&prefix, &key).unwrap(), &id);
        let value = encode_outcome(&key, &outcome);
        prop_assert_eq!(decode_outcome(&key, &value, id, command_id).unwrap(), outcome);
    }

    #[test]
    fn outcomes_of_one_command_id_are_not_those_of_another(kind in kind(), id in id(), one in any_command_id(), two in any_command_id()) {
        let starts = outcome_key(&kind, Some(&id), &one).starts_with(&outcome_prefix(&kind, &two));
        prop_assert_eq!(starts, one == two);
    }

    #[test]
    fn messages_survive(
        origin in site(),
        sequence in any::<u64>(),
        time in any::<u64>(),
        kind in kind(),
        commands in vec((option::of(prop_oneof![Just("A-1".parse().unwrap()), id()]), any_command_id()), 0..6),
    ) {
        let key = message_key(&origin, StreamSequence(sequence));
        prop_assert!(key.starts_with(&message_prefix(&origin)));
        prop_assert_eq!(message_sequence_of_key(&key).unwrap(), StreamSequence(sequence));
        let value = encode_message(&key, LogTime(time), &kind, &commands);
        prop_assert_eq!(decode_message(&key, &value).unwrap(), MessageRow { time: LogTime(time), kind, commands });
    }

    #[test]
    fn messages_are_in_the_order_of_the_log(origin in site(), one in any::<u64>(), two in any::<u64>()) {
        let keys = [one, two].map(|sequence| message_key(&origin, StreamSequence(sequence)));
        prop_assert_eq!(keys[0].cmp(&keys[1]), one.cmp(&two));
    }

    #[test]
    fn groups_survive(origin in site(), kind in kind(), group in any::<u16>(), state in group_state()) {
        let key = group_key(&origin, &kind, GroupNumber(group));
        prop_assert_eq!(decode_group(&key, &encode_group(&key, &state).unwrap()).unwrap(), state);
    }

    #[test]
    fn forwards_survive(kind in kind(), group in any::<u16>(), place in forward_place(), returned in any::<bool>()) {
        let lane = Lane { kind: &kind, group: GroupNumber(group), from: &place.from, to: &place.to };
        let key = forward_key(&lane, place.number);
        prop_assert!(key.starts_with(&forward_prefix(&lane)));
        prop_assert_eq!(forward_number_of_key(&key).unwrap(), place.number);
        let state = ForwardState { forward: None, returned, decided: !returned, outcome_of: None };
        prop_assert_eq!(decode_forward(&key, &encode_forward(&key, &state).unwrap()).unwrap(), state);
    }

    #[test]
    fn digests_survive(origin in site(), kind in kind(), digests in vec((any::<u64>(), hash()), 0..70)) {
        let digests: Vec<_> = digests.into_iter().map(|(records, sum)| GroupDigest { records, sum }).collect();
        let key = digest_key(&origin, &kind);
        prop_assert_eq!(decode_digests(&key, &encode_digests(&key, &digests)).unwrap(), digests);
    }

    #[test]
    fn origins_survive(origin in site(), state in origin_state()) {
        let key = origin_key(&origin);
        prop_assert_eq!(origin_of_key(&key).unwrap(), origin);
        prop_assert_eq!(decode_origin(&key, &encode_origin(&key, &state)).unwrap(), state);
    }

    #[test]
    fn no_altered_row_is_read(
        id in id(),
        other in id(),
        state in record_state(),
        byte in any::<prop::sample::Index>(),
        bit in 0..8_u32,
        cut in any::<prop::sample::Index>(),
    ) {
        let kind = "flight".parse().unwrap();
        let key = record_key(&kind, id.as_str());
        let value = encode_record(&key, GroupNumber(1), &state);
        let damage = Err(Damage::Checksum { table: "records" });

        let mut flipped = value.clone();
        flipped[byte.index(value.len())] ^= 1 << bit;
        prop_assert_eq!(&decode_record(&key, &flipped), &damage);
        prop_assert_eq!(&decode_record(&key, &value[..cut.index(value.len())]), &damage);
        // Right bytes in the wrong place.
        prop_assert!(id == other || decode_record(&record_key(&kind, other.as_str()), &value) == damage);
        prop_assert_eq!(decode_group(&key, &value), Err(Damage::Checksum { table: "groups" }));
    }

    #[test]
    fn whatever_passes_its_checksum_is_read_or_refused(bytes in vec(any::<u8>(), 0..80)) {
        let sealed = |table: &TableName| {
            let mut row = Encoder::default();
            row.raw(&bytes);
            row.seal(table, b"key")
        };
        let _ = decode_record(b"key", &sealed(&RECORDS));
        let _ = decode_outcome(b"key", &sealed(&OUTCOMES), None, command_id("c").unwrap());
        let _ = decode_message(b"key", &sealed(&MESSAGES));
        let _ = decode_group(b"key", &sealed(&GROUPS));
        let _ = decode_digests(b"key", &sealed(&DIGESTS));
        let _ = decode_origin(b"key", &sealed(&ORIGINS));
    }
}

#[test]
fn another_format_is_named_and_its_owner_not_guessed() {
    let meta = encode_meta(FORMAT_VERSION + 1, &"ewr".parse().unwrap(), &"a".parse().unwrap());
    assert_eq!(decode_meta(&meta).unwrap(), Meta { format: FORMAT_VERSION + 1, owner: None });
}

/// A row that differs here cannot be read by the last release: append, or raise the format.
#[test]
fn the_layouts_of_format_1_stay_as_they_are() {
    let (site, kind) = ("ewr".parse().unwrap(), "flight".parse().unwrap());
    let id: RecordId = "A-1".parse().unwrap();
    let command = command_id("c1").unwrap();
    let json = |text: &str| Json::from_text(text.to_owned()).unwrap();

    check(META_KEY, &encode_meta(1, &site, &"a".parse().unwrap()), "73746f7265", "0103657772016179620897c81487f5");

    let key = record_key(&kind, id.as_str());
    let state = RecordState {
        version: RecordVersion(300),
        owner: "lhr".parse().unwrap(),
        epoch: Epoch(1),
        time: LogTime(1000),
        record: Some(json("{}")),
        schema: 2,
        hash: Hash(1),
        origin: site.clone(),
        sequence: StreamSequence(9),
        uncarried: vec![Uncarried { sequence: StreamSequence(8), time: LogTime(1001) }],
        moved: BTreeMap::new(),
        elsewhere: BTreeMap::new(),
    };
    check(
        &key,
        &encode_record(&key, GroupNumber(63), &state),
        "666c6967687400412d31",
        "036577723fac020000000000000000000000000000000101036c687201e807020901027b7d0101024f06d162f6daea02",
    );

    let key = outcome_key(&kind, Some(&id), &command);
    let outcome = StoredOutcome {
        change: Change {
            id: Some(id.clone()),
            command_id: command.clone(),
            name: Some("depart".parse().unwrap()),
            log: CommandLogIncarnation(1),
            sequence: StreamSequence(2),
            time_ms: LogTime(3),
            fingerprint: Hash(4),
            outcome: Outcome {
                status: Status::Rejected,
                version: RecordVersion(5),
                reply: Some(json("1")),
                error: Some(Refusal { code: ErrorCode::Rejected, message: "no".to_owned(), details: Some(json("2")) }),
            },
            emits: vec![EmittedCommand {
                kind: "crew".parse().unwrap(),
                id: id.clone(),
                name: "call".parse().unwrap(),
                body: json("3"),
            }],
            forwarded: None,
            repeats: false,
        },
        origin: site,
        sequence: StreamSequence(6),
        time: LogTime(7),
    };
    check(
        &key,
        &encode_outcome(&key, &outcome),
        "666c696768740002633101412d31",
        "03657772060701066465706172740102030000000000000000000000000000000402050101310103026e6f01013201046372657703412d310463616c6c01331dd95073417a24c0",
    );

    let StoredOutcome { origin: site, .. } = outcome;
    let key = message_key(&site, StreamSequence(258));
    let commands = [(Some(id.clone()), command.clone()), (Some(id), command.clone()), (None, command)];
    check(
        &key,
        &encode_message(&key, LogTime(5), &kind, &commands),
        "657772000000000000000102",
        "0506666c69676874030103412d310263310202633100026331eabcba85292cf3b2",
    );

    let key = group_key(&site, &kind, GroupNumber(258));
    // Fields of the JSON may be added: what the last release wrote must be read.
    check(&key, &[], "65777200666c69676874000102", "");
    let value = unhex(
        "7b22636c61696d223a6e756c6c2c22636c61696d735f73696e63655f6f7574636f6d65223a302c226c6f67223a302c22706f736974696f6e223a6e756c6c2c2268696768657374223a6e756c6c2c22617474656d7074223a6e756c6c7d6c789569a0eb2e49",
    );
    assert_eq!(decode_group(&key, &value).unwrap(), GroupState::default());

    let key = digest_key(&site, &kind);
    let digests = [GroupDigest::default(), GroupDigest { records: 2, sum: Hash(3) }];
    check(
        &key,
        &encode_digests(&key, &digests),
        "65777200666c69676874",
        "0200000000000000000000000000000000000200000000000000000000000000000003c8402ab6ecfca1b5",
    );

    let key = origin_key(&site);
    let origin = OriginState {
        applied: StreamSequence(1),
        time: LogTime(2),
        outcomes_complete_from: LogTime(3),
        incarnation: Some(Incarnation::new(1, "x")),
        last_hash: Some(Hash(4)),
        dropped_until: StreamSequence(5),
        is_ahead: false,
    };
    check(
        &key,
        &encode_origin(&key, &origin),
        "657772",
        "0102030103312d7801000000000000000000000000000000040568641fd7a1597a57",
    );
}

fn check(key: &[u8], value: &[u8], expected_key: &str, expected_value: &str) {
    assert_eq!((hex(key).as_str(), hex(value).as_str()), (expected_key, expected_value));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
