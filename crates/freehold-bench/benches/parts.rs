//! The parts of a command's way that need no server: `cargo bench --package freehold-bench`.

#![allow(missing_docs, reason = "criterion's macros make functions without")]
#![allow(clippy::unwrap_used, reason = "what fails here ends the benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use freehold_core::subject::{RecordsSubject, RecordsTopic};
use freehold_core::{
    Claim, CommandId, CommandMessage, Effect, Event, FlushContext, GroupCount, GroupNumber, HolderOptions, HomeRule,
    Incarnation, Json, LogMessage, LogTime, LoggedCommand, MembersRevision, RecordId, Retention, SiteName,
    StreamSequence, Update, apply,
};
use freehold_core::{Holder, KindDefinition};
use freehold_store::{Options, Reader, Store, Writer};

const RECORD: &str =
    r#"{"name":"Ada","city":"London","email":"ada@example.com","born":1815,"tags":["first","analyst"]}"#;
/// Commands or messages that are taken together.
const COUNTS: [u64; 3] = [1, 16, 256];
/// One group, so that all ids are its own.
const GROUP: GroupNumber = GroupNumber(0);
const CLAIM: StreamSequence = StreamSequence(1);

fn site() -> SiteName {
    "ewr".parse().unwrap()
}

fn log() -> Incarnation {
    Incarnation::new(1, "bench")
}

fn definition() -> KindDefinition {
    let mut definition = records::kind_definition("customer".parse().unwrap(), HomeRule::Prefix, None);
    definition.settings.groups = GroupCount::new(1).unwrap();
    definition
}

fn command(number: u64) -> CommandMessage {
    CommandMessage {
        kind: "customer".parse().unwrap(),
        id: format!("ewr-{number}").parse().unwrap(),
        name: "create".parse().unwrap(),
        command_id: CommandId::from_caller(&format!("01K0000000000000000000{number:04}")).unwrap(),
        if_version: None,
        owner_down: None,
        body: Json::from_text(format!(r#"{{"record":{RECORD}}}"#)).unwrap(),
    }
}

fn logged(number: u64) -> LoggedCommand {
    let payload = serde_json::to_vec(&command(number)).unwrap();
    LoggedCommand::read(StreamSequence(number + 1), LogTime(1_000), &payload)
}

/// A store whose copy knows of a claim.
struct Copy {
    _directory: tempfile::TempDir,
    writer: Writer,
    reader: Reader,
}

fn copy() -> Copy {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new(directory.path().join("copy.redb"), site(), "one".parse().unwrap());
    let (mut writer, reader) = Store::open(&options).unwrap().into_parts();
    let claim = Claim {
        log: log(),
        instance: "one".parse().unwrap(),
        nonce: "n".parse().unwrap(),
        members: MembersRevision(1),
    };
    let claim = message(CLAIM.0, RecordsTopic::Claim, serde_json::to_vec(&claim).unwrap());
    commit(&mut writer, &[claim]);
    Copy { _directory: directory, writer, reader }
}

fn message(sequence: u64, topic: RecordsTopic, payload: Vec<u8>) -> LogMessage {
    let subject = RecordsSubject { site: site(), kind: "customer".parse().unwrap(), group: GROUP, topic };
    LogMessage { sequence: StreamSequence(sequence), time: LogTime(1_000), subject, payload: payload.into() }
}

fn commit(writer: &mut Writer, messages: &[LogMessage]) {
    let applied = writer.transact(|tables| {
        for message in messages {
            apply(tables, Retention::default(), message)?;
        }
        Ok::<_, freehold_store::Error>(())
    });
    applied.unwrap();
}

/// A holder that holds the group.
fn holder(copy: &Copy) -> Holder {
    let flush = FlushContext {
        definition: Arc::new(definition()),
        site: site(),
        sites: vec![site()],
        group: GROUP,
        log: log(),
        retention: Retention::default(),
        max_payload_bytes: 1 << 20,
    };
    let mut holder = Holder::new(HolderOptions {
        flush,
        instance: "one".parse().unwrap(),
        nonce: "n".parse().unwrap(),
        batched: false,
        audit_window_ms: 0,
    });
    let snapshot = copy.reader.snapshot().unwrap();
    holder.handle(Event::Assigned(MembersRevision(1)), &snapshot).unwrap();
    holder.handle(Event::Claimed(Ok(CLAIM)), &snapshot).unwrap();
    assert_eq!(holder.holds(), Some(CLAIM));
    holder
}

/// What the holder publishes for so many commands on as many records.
fn decide(holder: &mut Holder, copy: &Copy, commands: Vec<LoggedCommand>) -> Vec<freehold_core::FlushMessage> {
    let snapshot = copy.reader.snapshot().unwrap();
    let effects = holder.handle(Event::Delivered(commands), &snapshot).unwrap();
    let published = effects.into_iter().find_map(|effect| match effect {
        Effect::Publish { messages, .. } => Some(messages),
        _ => None,
    });
    published.unwrap()
}

fn updates(copy: &Copy, count: u64) -> Vec<LogMessage> {
    let messages = decide(&mut holder(copy), copy, (0..count).map(logged).collect());
    let numbered = (CLAIM.0 + 1..).zip(messages);
    numbered.map(|(sequence, it)| message(sequence, it.subject.topic, it.payload)).collect()
}

fn ids(criterion: &mut Criterion) {
    let id: RecordId = "EWR-20130101-UA1545".parse().unwrap();
    criterion.bench_function("id to token and group", |bencher| {
        bencher.iter(|| GroupCount::DEFAULT.group_of_token(&black_box(&id).token()));
    });
}

fn envelopes(criterion: &mut Criterion) {
    let command = command(1);
    let printed = serde_json::to_vec(&command).unwrap();
    criterion.bench_function("command, print", |bencher| bencher.iter(|| serde_json::to_vec(black_box(&command))));
    criterion.bench_function("command, read", |bencher| {
        bencher.iter(|| LoggedCommand::read(StreamSequence(1), LogTime(1), black_box(&printed)));
    });
    let payload = updates(&copy(), 1).remove(0).payload;
    let update: Update = serde_json::from_slice(&payload).unwrap();
    criterion.bench_function("update, print", |bencher| bencher.iter(|| serde_json::to_vec(black_box(&update))));
    criterion.bench_function("update, read", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Update>(black_box(&payload)).unwrap());
    });
    criterion.bench_function("update, hash", |bencher| bencher.iter(|| black_box(&update).content_hash()));
}

fn flushes(criterion: &mut Criterion) {
    let copy = copy();
    let mut group = criterion.benchmark_group("decide a flush");
    for count in COUNTS {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let setup = || (holder(&copy), (0..count).map(logged).collect::<Vec<_>>());
            bencher.iter_batched(
                setup,
                |(mut holder, commands)| decide(&mut holder, &copy, commands),
                BatchSize::SmallInput,
            );
        });
    }
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply and commit");
    group.sample_size(10);
    for count in COUNTS {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let setup = || {
                let copy = copy();
                let updates = updates(&copy, count);
                (copy, updates)
            };
            bencher.iter_batched(
                setup,
                |(mut copy, updates)| {
                    commit(&mut copy.writer, &updates);
                    copy
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(parts, ids, envelopes, flushes, commits);
criterion_main!(parts);
