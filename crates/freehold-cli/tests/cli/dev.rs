//! `freehold dev` from its first start over a killed instance and an interrupt to a second start with everything still there.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Dev, is_alive, wait_until};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn everything_works_and_is_still_there_after_an_interrupt() {
    let directory = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(directory.path(), "ewr,jfk", 2);

    // The line for programs.
    assert_eq!(keys(&dev.ready), ["hub", "sites"]);
    assert_eq!(keys(&dev.ready["hub"]), ["pid", "port"]);
    assert_eq!(keys(&dev.ready["sites"]), ["ewr", "jfk"]);
    let ewr = dev.ready["sites"]["ewr"].clone();
    assert_eq!(keys(&ewr), ["instances", "server_pid", "url"]);
    assert_eq!(ewr["url"], json!(format!("nats://127.0.0.1:{}", dev.first_port)));
    assert_eq!(dev.ready["hub"]["port"], json!(dev.first_port + 2));
    let names: Vec<_> = ewr["instances"].as_array().unwrap().iter().map(|instance| instance["id"].clone()).collect();
    assert_eq!(names, ["ewr-1", "ewr-2"]);
    let first_pids = dev.pids();
    assert_eq!(first_pids.len(), 7);
    assert!(first_pids.iter().all(|pid| is_alive(*pid)));

    requests(&dev);

    let status = dev.run("jfk", &["status", "--json"]).exits(0).json();
    let instances = status["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 4);
    let held = instances.iter().map(|instance| instance["groups_held"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(held, 2 * 64);
    let table = dev.run("ewr", &["status"]).exits(0).stdout;
    assert!(table.contains("groups held") && table.contains("jfk-2"), "{table}");
    dev.run("ewr", &["verify", "--sites", "ewr,jfk", "--kind", "customer"]).exits(0);

    // A killed instance stays dead, the other one goes on, and who asks for both is told.
    let killed = i32::try_from(ewr["instances"][1]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
    dev.run("ewr", &["send", "customer", "create", "ewr-9", "--body", r#"{"record":{}}"#]).exits(0);
    let told = || std::fs::read_to_string(directory.path().join("dev.log")).unwrap().contains("instance ewr-2 ");
    assert!(wait_until(Duration::from_secs(90), told), "nobody was told");
    dev.run("ewr", &["verify", "--instance", "ewr-1,ewr-2"]).exits(2);
    assert!(dev.is_running());

    dev.interrupt();
    assert!(!first_pids.iter().any(|pid| is_alive(*pid)));

    let dev = Dev::start(directory.path(), "ewr,jfk", 2);
    let records = dev.run("jfk", &["--json", "list", "customer", "--all"]).exits(0).stdout;
    assert_eq!(records.lines().count(), 4, "{records}");
    let record = dev.run("jfk", &["--json", "get", "customer", "ewr-1"]).exits(0).json();
    assert_eq!((&record["version"], &record["record"]["city"]), (&json!(2), &json!("Newark")));
    // A command id is remembered over the restart.
    let again = ["--json", "send", "customer", "create", "ewr-1", "--command-id", "first", "--body"];
    let again = dev.run("ewr", &[&again[..], &[r#"{"record":{"name":"Ada","n":1.50}}"#]].concat());
    assert_eq!(again.exits(0).json()["version"], json!(1));
    // The server's own mirror may take more than a minute to wake up after a restart; copies do not wait for it.
    dev.run("ewr", &["verify"]).exits(0);
    links(&dev);
    dev.interrupt();
}

/// A link is cut and healed from another terminal.
fn links(dev: &Dev) {
    let data = dev.directory().join("data").to_str().unwrap().to_owned();
    let nothing = dev.run("ewr", &["dev", "--data", dev.directory().to_str().unwrap(), "--cut", "ewr"]);
    nothing.exits(2).says(&["no `freehold dev` runs on "]);
    let order = |what: &str, site: &str| dev.run("ewr", &["dev", "--data", &data, what, site]);
    order("--cut", "ewr").exits(0);
    dev.run("ewr", &["send", "customer", "create", "ewr-cut", "--body", r#"{"record":{}}"#]).exits(0);
    dev.run("jfk", &["get", "customer", "ewr-cut"]).exits(1).says(&["not_found: "]);
    order("--heal", "ewr").exits(0);
    let healed = || dev.run("jfk", &["get", "customer", "ewr-cut"]).code == 0;
    assert!(wait_until(Duration::from_secs(60), healed), "the link was not healed");
    order("--cut", "lga").exits(2).says(&["lga"]);
}

/// `send`, `get`, `list` and `history`, with positive and negative answers.
fn requests(dev: &Dev) {
    let create = ["--json", "send", "customer", "create", "ewr-1", "--command-id", "first", "--body"];
    let created = dev.run("ewr", &[&create[..], &[r#"{"record":{"name":"Ada","n":1.50}}"#]].concat()).exits(0).json();
    assert_eq!((&created["id"], &created["version"]), (&json!("ewr-1"), &json!(1)));
    std::fs::write(dev_file(dev), r#"{"record":{"name":"Bob"}}"#).unwrap();
    let file = format!("@{}", dev_file(dev).display());
    let minted = dev.run("jfk", &["--json", "send", "customer", "create", "--body", &file]).exits(0).json();
    assert!(minted["id"].as_str().unwrap().starts_with("jfk-"), "{minted}");
    let patch = |version: &str| {
        let body = r#"{"patch":{"city":"Newark"}}"#;
        dev.run("ewr", &["send", "customer", "patch", "ewr-1", "--if-version", version, "--body", body])
    };
    patch("1").exits(0);
    patch("1").exits(1).says(&["conflict: "]);
    let odd = "ewr-a b.*>\n🛫";
    dev.run("ewr", &["send", "customer", "create", odd, "--body", r#"{"record":{}}"#]).exits(0);
    let record = dev.run("ewr", &["--json", "get", "customer", odd]).exits(0).json();
    assert_eq!(record["id"], json!(odd));

    // At the other site, as soon as its copy has it, digit for digit.
    let get = dev.run("jfk", &["get", "customer", "ewr-1", "--min-version", "2"]).exits(0).stdout;
    assert!(get.contains("owned by ewr") && get.contains("\"n\": 1.50"), "{get}");
    dev.run("jfk", &["get", "customer", "nobody"]).exits(1).says(&["not_found: "]);
    let refused = dev.run("jfk", &["--json", "get", "customer", "nobody"]).exits(1).json();
    assert_eq!(refused["code"], json!("not_found"));
    dev.run("jfk", &["send", "customer", "explode", "ewr-1"]).exits(1).says(&["invalid: ", "explode"]);
    dev.run("jfk", &["get", "order", "a"]).exits(2).says(&["no service answers for kind order", "is it running?"]);

    let all = dev.run("ewr", &["--json", "list", "customer", "--prefix", "ewr-"]).exits(0).stdout;
    assert_eq!(all.lines().count(), 2, "{all}");
    let some = dev.run("ewr", &["list", "customer", "--limit", "1"]).exits(0).says(&["--cursor \"ewr-1\""]);
    assert_eq!(some.stdout.lines().count(), 1);
    let rest = dev.run("ewr", &["--json", "list", "customer", "--cursor", "ewr-1"]).exits(0).stdout;
    assert!(!rest.contains("\"ewr-1\""), "{rest}");

    let history = dev.run("ewr", &["--json", "history", "customer", "ewr-1"]).exits(0).json();
    let versions: Vec<_> = history["versions"].as_array().unwrap().iter().map(|it| it["version"].clone()).collect();
    assert_eq!(versions, [1, 2]);
    let table = dev.run("ewr", &["history", "customer", "ewr-1"]).exits(0).stdout;
    assert!(table.contains("create first (applied)"), "{table}");
}

fn dev_file(dev: &Dev) -> std::path::PathBuf {
    dev.directory().join("body.json")
}
