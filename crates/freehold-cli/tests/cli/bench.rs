//! `freehold bench` measures what it says; how fast this build is does not matter here.

use std::fs;

use serde_json::Value;

use crate::support::run;

/// Runs it briefly, and gives its only line.
fn bench(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let brief = ["bench", "--json", "--seconds", "1", "--rounds", "1", "--records", "100"];
    let ran = run(directory.path(), &[&brief[..], arguments].concat()).exits(0);
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "it leaves nothing behind");
    serde_json::from_str(&ran.stdout).unwrap()
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {report}"))
}

#[test]
fn freehold_is_measured_beside_the_floor() {
    let report = bench(&["--workload", "zipfian", "--in-flight", "16"]);
    assert_eq!(report["name"], "zipfian, 16 in flight");
    for service in ["freehold", "floor"] {
        let of = |what: &str| number(&report, &format!("/{service}/{what}"));
        assert!(of("per_second") > 0.0 && of("disk_bytes") > 0.0, "{report}");
        assert!(of("latency/p50") > 0.0 && of("latency/p50") <= of("latency/p99"), "{report}");
        assert!(of("latency/p99") <= of("latency/p99_9") && of("latency/p99_9") <= of("latency/max"), "{report}");
        for process in ["client", "service", "server"] {
            assert!(of(&format!("cpu/{process}")) > 0.0, "{service} {process}: {report}");
        }
    }
    let ratio = number(&report, "/freehold/per_second") / number(&report, "/floor/per_second");
    assert!((number(&report, "/ratio") - ratio).abs() < 1e-6, "{report}");
}

#[test]
fn an_open_loop_sends_at_its_rate() {
    let report = bench(&["--workload", "reads", "--rate", "200"]);
    for service in ["freehold", "floor"] {
        let rate = number(&report, &format!("/{service}/per_second"));
        assert!((20.0..=210.0).contains(&rate), "{service}: {report}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &["bench", "--rate", "5", "--in-flight", "5"]).exits(2).says(&["--rate", "--in-flight"]);
    run(directory.path(), &["bench", "--all", "--workload", "hot"]).exits(2).says(&["--all", "--workload"]);
    run(directory.path(), &["bench", "--records", "0"]).exits(2).says(&["--records"]);
}
