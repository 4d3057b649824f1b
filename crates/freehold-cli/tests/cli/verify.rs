//! `freehold verify` finds a copy that was changed behind everybody's back, and no difference where there is none.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use freehold_core::{CopyRead as _, CopyWrite as _, GroupCount, Hash, Json, KindName, RecordId, RecordPlace, SiteName};
use freehold_store::{Options, Store};
use serde_json::json;

use crate::support::Dev;

/// Changes a record in the copy of a stopped instance, so that the file is sound and its content wrong.
fn tamper(data: &Path, site: &str, instance: &str, origin: &str, id: &str) {
    let path = data.join("instances").join(instance).join(format!("{site}-{instance}.redb"));
    let options = Options::new(path, site.parse().unwrap(), instance.parse().unwrap());
    let (mut writer, reader) = Store::open(&options).unwrap().into_parts();
    let (kind, origin): (KindName, SiteName) = ("customer".parse().unwrap(), origin.parse().unwrap());
    let id: RecordId = id.parse().unwrap();
    let mut state = reader.snapshot().unwrap().record(&kind, &id).unwrap().unwrap();
    let before = state.clone();
    state.record = Some(Json::from_value(&json!({ "name": "Mallory" })).unwrap());
    state.hash = Hash::of([b"not what the stream has".as_slice()]);
    let place = RecordPlace {
        origin: &origin,
        kind: &kind,
        group: GroupCount::DEFAULT.group_of(&id),
        id: &id,
        cut: freehold_core::StreamSequence(0),
    };
    writer
        .transact(|transaction| transaction.put_record(&place, Some(&before), &state))
        .map_err(|error: freehold_store::Error| error)
        .unwrap();
}

#[test]
fn a_copy_that_differs_is_found_and_one_under_traffic_is_equal() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), "ewr,jfk", 1);
    let verify = ["verify", "--sites", "ewr,jfk", "--kind", "customer"];
    for number in 0..5 {
        let id = format!("ewr-{number}");
        dev.run("ewr", &["send", "customer", "create", &id, "--body", r#"{"record":{"name":"Ada"}}"#]).exits(0);
    }

    // Under traffic nothing differs: copies are compared at the positions that they have.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                let body = format!(r#"{{"patch":{{"n":{sent}}}}}"#);
                dev.run("ewr", &["send", "customer", "patch", "ewr-0", "--body", &body]).exits(0);
                sent += 1;
            }
            sent
        });
        let reports: Vec<_> = (0..2).map(|_| dev.run("jfk", &[&["--json"], &verify[..]].concat())).collect();
        done.store(true, Ordering::Relaxed);
        assert!(traffic.join().unwrap() > 0);
        for report in reports {
            let report = report.exits(0).json();
            assert_eq!(report["verdict"], json!("equal"), "{report}");
            assert_eq!(report["copies"].as_array().unwrap().len(), 4, "each origin at each of the two instances");
        }
    });

    // A site that is not there.
    let absent = dev.run("ewr", &["verify", "--sites", "ewr,jfk,bos", "--kind", "customer"]).exits(2);
    assert!(absent.stdout.contains("bos"), "{absent:?}");
    dev.interrupt();

    tamper(&directory.path().join("data"), "jfk", "jfk-1", "ewr", "ewr-3");
    let dev = Dev::start(directory.path(), "ewr,jfk", 1);
    let report = dev.run("ewr", &[&["--json"], &verify[..]].concat()).exits(1).json();
    assert_eq!(report["verdict"], json!("different"));
    assert_eq!(report["differences_total"], json!(1), "{report}");
    let difference = &report["differences"][0];
    assert_eq!((&difference["id"], &difference["origin"]), (&json!("ewr-3"), &json!("ewr")));
    assert_eq!((&difference["reference"], &difference["place"]), (&json!("the stream of ewr"), &json!("jfk-1 at jfk")));
    assert_eq!(difference["expected"]["version"], json!(1));
    assert_ne!(difference["expected"]["hash"], difference["found"]["hash"]);
    let differing: Vec<_> =
        report["copies"].as_array().unwrap().iter().filter(|copy| copy["standing"] != json!("equal")).collect();
    assert_eq!(differing.len(), 1, "{report}");
    assert_eq!(differing[0]["instance"], json!("jfk-1"));

    let text = dev.run("ewr", &[&verify[..], &["--limit", "0"]].concat()).exits(1).stdout;
    assert!(text.contains("DIFFERENT: 1 copies, 1 differences") && text.contains("0 of 1"), "{text}");
    dev.interrupt();
}
