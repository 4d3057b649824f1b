//! What is wrong is told in one line, with what to do, and exit code 2.

use std::fs;

use crate::support::{Ran, freehold, run};

#[test]
fn a_wrong_key_is_told_with_the_file_that_it_stands_in() {
    let directory = tempfile::tempdir().unwrap();
    let check = |text: &str, expected: &[&str]| {
        fs::write(directory.path().join("mine.toml"), text).unwrap();
        let ran =
            run(directory.path(), &["status", "--config", "mine.toml"]).exits(2).says(&["mine.toml"]).says(expected);
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    };
    check("nots = 1", &["nots", "the keys are"]);
    check("[nats]\nurll = \"x\"", &["nats.urll", "url"]);
    check("replicas = \"three\"", &["replicas", "three"]);
    check("site = \"A.B\"", &["A.B", "is not a site name"]);
    check("this is no toml", &[]);

    fs::write(directory.path().join("freehold.toml"), "replicsa = 3").unwrap();
    run(directory.path(), &["status"]).exits(2).says(&["freehold.toml", "replicsa"]);
}

#[test]
fn a_file_that_a_service_shares_is_understood_and_flags_stand_above_it() {
    let directory = tempfile::tempdir().unwrap();
    let text = "site = \"ewr\"\ninstance = \"one\"\ndata_dir = \"x\"\nprovision = false\ncache_bytes = 1\naudit_window_ms = 1\n\
                decide_timeout_ms = 1\nmax_requests = 1\nalone = \"refuse\"\ndefault_wait = \"applied\"\n\
                least_wait = \"accepted\"\nmetrics_address = \"127.0.0.1:9090\"\n[nats]\nurl = \"nats://127.0.0.1:1\"\nuser = \"me\"\npassword = \"secret\"";
    fs::write(directory.path().join("freehold.toml"), text).unwrap();
    run(directory.path(), &["status"]).exits(2).says(&["no connection to nats://127.0.0.1:1:"]);
    run(directory.path(), &["status", "--url", "nats://127.0.0.1:2"]).exits(2).says(&["127.0.0.1:2:"]);
    let ran =
        freehold(directory.path()).arg("status").env("FREEHOLD_NATS__URL", "nats://127.0.0.1:3").output().unwrap();
    Ran::of(ran).exits(2).says(&["127.0.0.1:3:"]);
}

#[test]
fn a_wrong_variable_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let ran = freehold(directory.path()).arg("status").env("FREEHOLD_REPLICSA", "3").output().unwrap();
    Ran::of(ran).exits(2).says(&["FREEHOLD_", "replicsa"]);
}

#[test]
fn wrong_usage_is_told() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("list.json"), "[1]").unwrap();
    let long = "x".repeat(256);
    let cases: [(&[&str], &[&str]); 16] = [
        (&["status", "--config", "nowhere.toml"], &["nowhere.toml"]),
        (&["status", "--url", "nats://127.0.0.1:1"], &["127.0.0.1:1", "Connection refused", "--url"]),
        (&["get", "Customer", "a"], &["Customer", "kind name"]),
        (&["get", "customer", ""], &["the id is empty"]),
        (&["get", "customer", &long], &["256 bytes"]),
        (&["list", "customer", "--limit", "0"], &["--limit"]),
        (&["send", "customer", "create", "a", "--body", "[]"], &["JSON object", "--body"]),
        (&["send", "customer", "create", "a", "--body", "{\"id\":\"b\"}"], &["id", "command line"]),
        (&["send", "customer", "create", "a", "--body", "@nowhere.json"], &["nowhere.json"]),
        (&["send", "customer", "create", "a", "--body", "@list.json"], &["JSON object"]),
        (&["send", "customer", "create", "a", "--command-id", ""], &["the id is empty"]),
        (&["provision"], &["--site"]),
        (&["provision", "--site", "ewr"], &["--kind"]),
        (&["provision", "--site", "ewr", "--kind", "a", "--groups", "2000"], &["1 to 1024"]),
        (&["provision", "--site", "ewr", "--kind", "a", "--history", "2"], &["at least 8"]),
        (&["dev", "--sites", "E-W-R"], &["E-W-R", "site name"]),
    ];
    for (arguments, expected) in cases {
        let ran = run(directory.path(), arguments);
        eprintln!("{arguments:?}: {ran:?}");
        assert_eq!(ran.stdout, "");
        ran.exits(2).says(expected);
    }
}

#[test]
fn every_command_helps_with_examples() {
    let directory = tempfile::tempdir().unwrap();
    let help = run(directory.path(), &["--help"]).exits(0).stdout;
    assert!(help.contains("Exit codes:"), "{help}");
    for command in ["dev", "provision", "status", "get", "list", "history", "send", "verify"] {
        assert!(help.contains(command), "{command}");
        let help = run(directory.path(), &[command, "--help"]).exits(0).stdout;
        assert!(
            help.contains("Example") && help.contains(&format!("freehold {command}")) || help.contains("--json"),
            "{help}"
        );
    }
    let help = run(directory.path(), &["records", "--help"]).exits(0).stdout;
    assert!(help.contains("--kind") && help.contains("--instance"), "{help}");
}
