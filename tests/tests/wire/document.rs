//! The page itself: its examples, and what it must name.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use freehold_core::{ErrorCode, GroupCount, MAX_COMMAND_ID_BYTES, MAX_RECORD_ID_BYTES, MAX_REFUSAL_MESSAGE_BYTES};

/// All codes; their type cannot list them. A new one belongs here and on the page.
fn codes() -> Vec<ErrorCode> {
    use ErrorCode::*;
    vec![
        Invalid,
        NotFound,
        Rejected,
        Conflict,
        NotOwner,
        TooLarge,
        Unconfirmed,
        Busy,
        OwnerUnreachable,
        OutcomeUnknown,
        Internal,
    ]
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The page.
pub(crate) fn page() -> Result<String> {
    std::fs::read_to_string(docs().join("wire.md")).context("docs/wire.md")
}

/// The examples of one language, each line where it stands in the page, so that a failure names the page's line.
pub(crate) fn examples(page: &str, language: &str) -> (String, usize) {
    let (mut text, mut blocks, mut inside) = (String::new(), 0, false);
    for line in page.lines() {
        if line.starts_with("```") {
            inside = !inside && line == format!("```{language} run");
            blocks += usize::from(inside);
        } else if inside {
            text.push_str(line);
        }
        text.push('\n');
    }
    (text, blocks)
}

#[test]
fn every_code_has_a_row_and_a_page_that_is_linked() -> Result<()> {
    let page = page()?;
    for code in codes() {
        let (name, number) = (code.as_str(), code.service_error_code());
        let row = format!("| [`{name}`](errors/{name}.md) | {number} |");
        ensure!(page.contains(&row), "docs/wire.md has no row {row:?}");
        let text = std::fs::read_to_string(docs().join(format!("errors/{name}.md"))).context(name)?;
        ensure!(text.starts_with(&format!("# `{name}` ({number})\n")), "the head of errors/{name}.md");
        for part in ["**What happened**", "**What to do**"] {
            ensure!(text.contains(part), "errors/{name}.md does not say {part}");
        }
        ensure!(text.len() < 3_000, "errors/{name}.md is no short page");
    }
    let pages = std::fs::read_dir(docs().join("errors"))?.count();
    ensure!(pages == codes().len(), "{pages} pages for {} codes", codes().len());
    Ok(())
}

#[test]
fn the_limits_are_those_of_the_code() -> Result<()> {
    let page = page()?;
    let config = freehold::ServiceConfig::new("ewr".parse()?, "one".parse()?, "nats://127.0.0.1:1", "data");
    let (seconds, hours) = (config.decide_timeout_ms / 1_000, config.outcomes_ms / 3_600_000);
    for row in [
        format!("| record id | 1 to {MAX_RECORD_ID_BYTES} bytes |"),
        format!("| command id | 1 to {MAX_COMMAND_ID_BYTES} bytes, no control characters |"),
        format!("| names of sites, kinds and commands | {} bytes |", freehold_core::MAX_NAME_BYTES),
        format!("| the message of an error | {MAX_REFUSAL_MESSAGE_BYTES} bytes |"),
        format!("| `history` | {} updates kept", config.history),
        format!("| wait for an outcome | {seconds} s unless"),
        format!("| outcomes kept (W) | {hours} hour of log time"),
        format!("| requests at a time | {} an instance", config.max_requests),
        format!("| the command log of a site | {} GiB unless", config.max_command_log_bytes >> 30),
        format!("leave it after {} s", config.audit_window_ms / 1_000),
        format!("| nesting of a record of `records` | {} levels |", records::MAX_DEPTH),
        format!("| groups of a kind | {} unless", GroupCount::DEFAULT.get()),
        format!("1 to {}, for good", freehold_core::MAX_GROUP_COUNT),
        format!("less {} bytes, less about", freehold_core::ENVELOPE_RESERVE_BYTES),
        format!("has `violations`, at most {},", records::MAX_VIOLATIONS),
    ] {
        ensure!(page.contains(&row), "docs/wire.md does not say {row:?}");
    }
    Ok(())
}

#[test]
fn only_marked_blocks_are_examples_and_lines_stay_where_they_are() {
    let page =
        "a\n```python run\nx = 1\n```\n```python\nno\n```\n```javascript run\nlet y;\n```\n```python run\ny = 2\n```\n";
    let (text, blocks) = examples(page, "python");
    assert_eq!(blocks, 2);
    assert_eq!(text, "\n\nx = 1\n\n\n\n\n\n\n\n\ny = 2\n\n");
}
