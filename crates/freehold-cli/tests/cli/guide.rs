//! The commands of the guides, run from their pages.

use std::path::Path;
use std::process::Command;

use crate::support::{Dev, Ran};

/// A command of the page, the code that it exits with, and what it says.
struct Step {
    line: String,
    exits: i32,
    says: Vec<String>,
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```sh run";
        } else if let (true, Some(note)) = (inside, line.strip_prefix("# ")) {
            let step = steps.last_mut().expect("a note follows a command");
            if let Some(code) = note.strip_prefix("exits ") {
                step.exits = code.parse().unwrap();
            } else if let Some(text) = note.strip_prefix("→ ") {
                step.says.push(text.to_owned());
            }
        } else if inside {
            steps.push(Step { line: line.to_owned(), exits: 0, says: Vec::new() });
        }
    }
    steps
}

/// Runs a page on sites whose first client port is 4222 there.
fn run(page: &str, sites: &[&str], instances: u16) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide").join(page);
    let steps = steps(&std::fs::read_to_string(page).unwrap());
    assert!(steps.len() > 12, "{} commands were found", steps.len());
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), &sites.join(","), instances);
    for Step { line, exits, says } in steps {
        let ports = (0..).zip(sites).map(|(index, _)| (4222 + index, dev.first_port + index));
        let here = ports.fold(line.replace("--data play", "--data data"), |line, (there, here)| {
            line.replace(&format!("127.0.0.1:{there}"), &format!("127.0.0.1:{here}"))
        });
        let programs = Path::new(env!("CARGO_BIN_EXE_freehold")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let ran =
            Command::new("sh").args(["-c", &here]).current_dir(directory.path()).env("PATH", path).output().unwrap();
        let ran = Ran::of(ran);
        assert_eq!(ran.code, exits, "{line}\n{}{}", ran.stdout, ran.stderr);
        for text in says {
            assert!(ran.stdout.contains(&text) || ran.stderr.contains(&text), "{line}\n{}{}", ran.stdout, ran.stderr);
        }
    }
    dev.interrupt();
}

#[test]
fn two_sites_in_ten_minutes() {
    run("two-sites.md", &["ewr", "jfk"], 2);
}

#[test]
fn lose_a_site() {
    run("lose-a-site.md", &["ewr", "jfk", "lga"], 1);
}
