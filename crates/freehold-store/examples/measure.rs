//! Measures what the store costs a command: `cargo run --release -p freehold-store --example measure`.
//!
//! Each message is an update of one of 10,000 records of 256 B with the outcome of one command: a record, an outcome and a
//! row of `messages`. Times are for whole transactions, fsync included.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use freehold_core::{
    BatchPlace, Change, CommandLogIncarnation, CopyRead as _, Epoch, GroupCount, Hash, Incarnation, Json, KindName,
    LogMessage, LogTime, Outcome, RecordId, RecordVersion, Retention, SiteName, Status, StreamSequence, Update, apply,
    subject::{RecordsSubject, RecordsTopic},
};
use freehold_store::{Error, Options, Store};

const RECORDS: u64 = 10_000;

fn main() {
    let directory = tempfile::Builder::new().prefix("measure").tempdir_in(".").unwrap();
    let site: SiteName = "ewr".parse().unwrap();
    let options = Options::new(directory.path().join("copy.redb"), site.clone(), "a".parse().unwrap());
    let (mut writer, reader) = Store::open(&options).unwrap().into_parts();
    let mut log = Log::new(site.clone());

    let transact = |writer: &mut freehold_store::Writer, messages: &[LogMessage]| {
        let start = Instant::now();
        let applied = writer.transact(|tables| {
            messages
                .iter()
                .map(|message| apply(tables, Retention::default(), message))
                .collect::<Result<Vec<_>, Error>>()
        });
        assert!(applied.unwrap().iter().all(|applied| applied.anomaly.is_none()));
        start.elapsed()
    };
    for _ in 0..20 {
        transact(&mut writer, &log.next(1_000));
    }
    println!("file after {} messages: {} KiB", log.sequence, std::fs::metadata(&options.path).unwrap().len() / 1024);
    for (size, rounds) in [(1, 300), (10, 200), (100, 100), (1_000, 40)] {
        let batches: Vec<_> = (0..rounds).map(|_| log.next(size)).collect();
        let times: Vec<_> = batches.iter().map(|batch| transact(&mut writer, batch)).collect();
        report(&format!("transaction of {size} messages"), times, size);
    }

    let kind = log.kind.clone();
    let ids: Vec<RecordId> = (0..RECORDS).map(record_id).collect();
    let start = Instant::now();
    for id in &ids {
        reader.snapshot().unwrap().record(&kind, id).unwrap();
    }
    println!("snapshot and get: {:?} each", start.elapsed() / ids.len() as u32);
    let snapshot = reader.snapshot().unwrap();
    let start = Instant::now();
    for id in &ids {
        snapshot.record(&kind, id).unwrap();
    }
    println!("get: {:?} each", start.elapsed() / ids.len() as u32);
    let start = Instant::now();
    assert_eq!(snapshot.list(&kind, "", None, 1_000).unwrap().items.len(), 1_000);
    println!("list of 1,000: {:?}", start.elapsed());
    drop(snapshot);

    drop((writer, reader));
    let start = Instant::now();
    let bytes = std::fs::metadata(&options.path).unwrap().len();
    let (mut writer, _) = Store::open(&options).unwrap().into_parts();
    println!("open with verification of {} KiB: {:?}", bytes / 1024, start.elapsed());

    let start = Instant::now();
    let mut dropped = 0;
    loop {
        let expired =
            writer.transact(|tables| tables.expire::<Error>(&site, LogTime(u64::MAX), |_, _, _| Ok(true))).unwrap();
        dropped += expired.outcomes;
        if !expired.more {
            break;
        }
    }
    println!("expiry: {:?} an outcome ({dropped})", start.elapsed() / dropped as u32);
}

fn report(what: &str, mut times: Vec<Duration>, size: u64) {
    times.sort();
    let median = times[times.len() / 2];
    println!("{what}: median {median:?}, {:?} a message; best {:?}", median / size as u32, times[0]);
}

fn record_id(number: u64) -> RecordId {
    format!("EWR-20130101-UA{number:05}").parse().unwrap()
}

/// Makes the messages of a records log.
struct Log {
    site: SiteName,
    kind: KindName,
    sequence: u64,
    random: u64,
    newest: Vec<Option<(RecordVersion, Hash)>>,
}

impl Log {
    fn new(site: SiteName) -> Self {
        let newest = vec![None; usize::try_from(RECORDS).unwrap()];
        Self { site, kind: "flight".parse().unwrap(), sequence: 0, random: 0x9e37_79b9_7f4a_7c15, newest }
    }

    fn next(&mut self, count: u64) -> Vec<LogMessage> {
        (0..count).map(|_| self.message()).collect()
    }

    fn message(&mut self) -> LogMessage {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.sequence += 1;
        let number = self.random % RECORDS;
        let id = record_id(number);
        let before = self.newest[usize::try_from(number).unwrap()];
        let time = LogTime(1_700_000_000_000 + self.sequence);
        let version = before.map_or(RecordVersion(1), |(version, _)| version.next());
        let command_id = format!("01JD{:022}", self.sequence);
        let mut update = Update {
            log: Incarnation::new(1, "measure"),
            id: id.clone(),
            kind: self.kind.clone(),
            version,
            owner: self.site.clone(),
            epoch: Epoch(0),
            time_ms: time,
            record: Some(Json::from_value(&serde_json::json!({"n": self.sequence, "text": "x".repeat(220)})).unwrap()),
            schema: 1,
            hash: Hash::default(),
            previous: before.map(|(_, hash)| hash),
            batch: BatchPlace::ALONE,
            changes: vec![Change {
                id: None,
                command_id: freehold_core::CommandId::from_caller(&command_id).unwrap(),
                name: Some("depart".parse().unwrap()),
                log: CommandLogIncarnation(0),
                sequence: StreamSequence(self.sequence),
                time_ms: time,
                fingerprint: Hash(u128::from(self.random) << 60),
                outcome: Outcome {
                    status: Status::Applied,
                    version,
                    reply: Some(Json::from_text(r#"{"status":"departed"}"#.to_owned()).unwrap()),
                    error: None,
                },
                emits: Vec::new(),
                forwarded: None,
                repeats: false,
            }],
            moved: std::collections::BTreeMap::new(),
        };
        update.hash = update.content_hash();
        self.newest[usize::try_from(number).unwrap()] = Some((version, update.hash));
        let subject = RecordsSubject {
            site: self.site.clone(),
            kind: self.kind.clone(),
            group: GroupCount::DEFAULT.group_of(&id),
            topic: RecordsTopic::Update(id.token()),
        };
        LogMessage {
            sequence: StreamSequence(self.sequence),
            time,
            subject,
            payload: serde_json::to_vec(&update).unwrap().into(),
        }
    }
}
