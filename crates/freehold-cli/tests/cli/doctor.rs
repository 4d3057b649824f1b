//! `freehold doctor`: what is well, and what is not.

use crate::support::{Dev, run};

#[test]
fn a_sound_deployment_has_nothing_to_mend_and_a_cut_off_site_does() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), "ewr,jfk", 2);
    let url = format!("127.0.0.1:{}", dev.first_port + 1);
    let doctor = ["--url", &url, "--json", "doctor", "--sites", "ewr,jfk"];
    let sound = run(directory.path(), &doctor).exits(0).json();
    assert_eq!(sound["worst"], "look", "{sound}");
    let findings = sound["findings"].as_array().unwrap();
    let of = |site: &str, what: &str| findings.iter().find(|it| it["site"] == site && it["what"] == what).unwrap();
    for site in ["ewr", "jfk"] {
        for what in ["domain", "clock", "nats-server", "instances"] {
            assert_eq!(of(site, what)["weight"], "fine", "{}", of(site, what));
        }
    }
    assert_eq!(of("ewr", "mirror of jfk")["weight"], "fine");
    assert_eq!(of("jfk", "FH_STRANDED_jfk")["weight"], "fine");
    assert_eq!(of("ewr", "permissions of operator")["found"], "no limits");
    let text = run(directory.path(), &["--url", &url, "doctor"]).exits(0);
    assert!(text.stderr.contains("0 to mend"), "{text:?}");

    run(directory.path(), &["dev", "--data", "data", "--cut", "ewr"]).exits(0);
    let cut = run(directory.path(), &doctor).exits(1).json();
    let asked = cut["findings"].as_array().unwrap().iter().find(|it| it["weight"] == "mend").unwrap();
    assert_eq!((asked["site"].as_str(), asked["what"].as_str()), (Some("ewr"), Some("JetStream")), "{asked}");
    assert!(asked["mend"].as_str().unwrap().contains("link"), "{asked}");
    dev.interrupt();
}
