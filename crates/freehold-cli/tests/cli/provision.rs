//! `freehold provision` shows what it would do, does it, and has nothing to do the second time.

use freehold_sandbox::Sandbox;
use serde_json::json;

use crate::support::run;

#[tokio::test]
async fn it_is_idempotent_and_a_dry_run_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::builder().site("ewr").site("jfk").start().await.unwrap();
    let url = sandbox.site("ewr").url();
    let provision = |more: &[&str]| {
        let arguments = ["--json", "--url", &url, "provision", "--sites", "ewr,jfk", "--kind", "customer"];
        run(directory.path(), &[&arguments, more].concat())
    };
    let planned = provision(&["--dry-run"]).exits(0).json();
    let steps = &planned["sites"][0]["steps"];
    for step in [
        "create stream FH_RECORDS_ewr",
        "create stream FH_COMMANDS_ewr",
        "create mirror FH_RECORDS_jfk",
        "create key-value bucket FH_MEMBERS_ewr",
    ] {
        assert!(steps.as_array().unwrap().contains(&json!(step)), "{step} is not in {planned}");
    }
    assert_eq!(planned["dry_run"], json!(true));
    // The dry run changed nothing, so the same is still to be done; and it is done at both sites.
    let done = provision(&[]).exits(0).json();
    assert_eq!(done["sites"], planned["sites"]);
    assert_eq!(done["sites"].as_array().unwrap().len(), 2);
    let nothing = json!([{ "site": "ewr", "steps": [] }, { "site": "jfk", "steps": [] }]);
    assert_eq!(provision(&[]).exits(0).json()["sites"], nothing);

    let one = provision(&["--site", "ewr", "--max-command-log-bytes", "1000000", "--dry-run"]).exits(0).json();
    let steps = one["sites"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 1, "{one}");
    assert!(steps[0].as_str().unwrap().starts_with("update stream FH_COMMANDS_ewr: max bytes"), "{one}");

    provision(&["--groups", "32"]).exits(2).says(&["kind customer exists at ewr", "for good"]);
    provision(&["--history", "16"]).exits(2).says(&["history", "64", "16"]);
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_without_the_sites_domain_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::builder().site("ewr").start().await.unwrap();
    let url = sandbox.site("ewr").url();
    let ran = run(directory.path(), &["--url", &url, "provision", "--site", "jfk", "--kind", "customer", "--dry-run"]);
    ran.exits(2).says(&["site jfk", &url]);
    sandbox.stop().await.unwrap();
}
