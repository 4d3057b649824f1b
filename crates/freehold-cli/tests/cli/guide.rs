//! The commands of docs/guide/two-sites.md, run from the page.

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

#[test]
fn the_commands_of_the_guide_do_what_the_page_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/two-sites.md");
    let steps = steps(&std::fs::read_to_string(page).unwrap());
    assert!(steps.len() > 15, "{} commands were found", steps.len());
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), "ewr,jfk", 2);
    let (ewr, jfk) = (format!("127.0.0.1:{}", dev.first_port), format!("127.0.0.1:{}", dev.first_port + 1));
    for Step { line, exits, says } in steps {
        let here =
            line.replace("127.0.0.1:4222", &ewr).replace("127.0.0.1:4223", &jfk).replace("--data play", "--data data");
        let programs = Path::new(env!("CARGO_BIN_EXE_freehold")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let ran =
            Command::new("sh").args(["-c", &here]).current_dir(directory.path()).env("PATH", path).output().unwrap();
        let ran = Ran::of(ran).exits(exits);
        for text in says {
            assert!(ran.stdout.contains(&text) || ran.stderr.contains(&text), "{line}\n{}{}", ran.stdout, ran.stderr);
        }
    }
    dev.interrupt();
}
