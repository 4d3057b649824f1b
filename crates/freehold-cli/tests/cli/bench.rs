//! `freehold bench` measures what it says; how fast this build is does not matter here.

use std::fs;

use serde_json::Value;

use crate::support::run;

/// Runs it briefly, and gives its lines.
fn lines(arguments: &[&str]) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let brief = ["bench", "--json", "--seconds", "1", "--rounds", "1", "--records", "100", "--most-records", "1000"];
    let ran = run(directory.path(), &[&brief[..], arguments].concat()).exits(0);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "it leaves nothing behind");
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bench(arguments: &[&str]) -> Value {
    let mut lines = lines(arguments);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {report}"))
}

#[test]
fn freehold_is_measured_beside_the_floor() {
    let report = bench(&["--workload", "zipfian", "--in-flight", "16"]);
    assert_eq!(report["name"], "zipfian, 16 in flight, 100 records");
    for service in ["freehold", "floor"] {
        let of = |what: &str| number(&report, &format!("/{service}/{what}"));
        assert!(of("per_second") > 0.0 && of("disk_bytes") > 0.0 && of("memory_bytes") > 1e6, "{report}");
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
fn commands_are_measured_at_three_sites() {
    for workload in ["forwarded", "confirmed"] {
        let report = bench(&["--workload", workload, "--in-flight", "8"]);
        assert!(number(&report, "/freehold/per_second") > 0.0, "{report}");
        assert!(report.get("floor").is_none() && report.get("ratio").is_none(), "{report}");
    }
}

#[test]
fn reads_are_measured_beside_commands_and_page_by_page() {
    let reports = lines(&["--suite", "reads"]);
    let [beside, listing] = &reports[..] else { panic!("{reports:?}") };
    let kept = number(beside, "/beside_per_second") / number(beside, "/alone_per_second");
    assert!((number(beside, "/kept") - kept).abs() < 1e-6 && number(beside, "/commands_per_second") > 0.0, "{beside}");
    assert!((0.0..=1.0).contains(&number(beside, "/commands_share")), "{beside}");
    assert_eq!(number(listing, "/records"), 1000.0);
    assert!(number(listing, "/memory_most_bytes") >= number(listing, "/memory_before_bytes"), "{listing}");
}

#[test]
fn an_instance_is_killed_hangs_and_is_stopped() {
    let reports = lines(&["--suite", "failover", "--failovers", "2"]);
    assert_eq!(reports.iter().map(|it| it["failover"].as_str().unwrap()).collect::<Vec<_>>(), ["kill", "hang", "stop"]);
    for report in &reports {
        assert!(number(report, "/first_ms/p50") > 0.0, "{report}");
        assert!(number(report, "/first_ms/max") <= number(report, "/all_ms/max"), "{report}");
    }
    // Nobody answers for a group while its holder hangs, until that is noticed.
    assert!(number(&reports[1], "/first_ms/p50") > 500.0, "{reports:?}");
}

#[test]
fn copies_are_measured_and_figures_drawn() {
    let plots = tempfile::tempdir().unwrap();
    let drawn = plots.path().to_str().unwrap();
    let reports = lines(&["--suite", "copies", "--suite", "records", "--suite", "sizes", "--plots", drawn]);
    let named = |name: &str| reports.iter().find(|it| it["name"].as_str().unwrap().starts_with(name)).unwrap();
    for meanwhile in ["500 commands/s", "5000 updates/s"] {
        let lag = named(&format!("update to another site at {meanwhile}"));
        assert!(number(lag, "/from_sending_ms/p50") > 0.0 && number(lag, "/per_second") > 0.0, "{lag}");
    }
    assert_eq!(number(named("1000 updates missed"), "/missed"), 1000.0);
    assert!(number(named("joining with 1000 records"), "/site_seconds") > 0.0);
    let mut files: Vec<_> =
        fs::read_dir(plots.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["bytes-memory.svg", "bytes-rate.svg"], "no growth has one point");
    let drawn = fs::read_to_string(plots.path().join("bytes-rate.svg")).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("bytes of a record"), "{drawn}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &["bench", "--rate", "5", "--in-flight", "5"]).exits(2).says(&["--rate", "--in-flight"]);
    run(directory.path(), &["bench", "--all", "--workload", "hot"]).exits(2).says(&["--all", "--workload"]);
    run(directory.path(), &["bench", "--all", "--suite", "idle"]).exits(2).says(&["--all", "--suite"]);
    run(directory.path(), &["bench", "--records", "0"]).exits(2).says(&["--records"]);
}
