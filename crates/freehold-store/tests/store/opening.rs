//! Scenario 50: what a file must be to be opened, and what is said of one that is not.

use std::fs;
use std::path::Path;

use freehold_core::CopyRead as _;
use freehold_store::{OpenError, Options, Store};
use redb::TableDefinition;

use crate::given::{id, kind, open, options, put};

fn refusal(directory: &Path) -> OpenError {
    let error = Store::open(&options(directory)).unwrap_err();
    assert!(error.to_string().contains("copy.redb"), "{error}");
    error
}

#[test]
fn s50_deleted_a_missing_file_is_made_afresh() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(directory.path()).into_parts();
    writer.transact(|tables| put(tables, &id("A-1"), 1, Some("x"))).unwrap();
    drop((writer, reader));
    fs::remove_file(&options(directory.path()).path).unwrap();

    let store = open(directory.path());
    assert!(store.is_fresh());
    assert_eq!(store.reader().snapshot().unwrap().record(&kind(), &id("A-1")).unwrap(), None);
}

#[test]
fn s50_an_empty_file_is_refused_and_not_taken_for_a_fresh_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(&options(directory.path()).path, b"").unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::Empty { .. }) && error.is_cured_by_rebuilding(), "{error:?}");
    assert_eq!(fs::metadata(&options(directory.path()).path).unwrap().len(), 0, "it was left alone");
}

#[test]
fn s50_a_foreign_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = options(directory.path()).path;
    for content in [b"x".to_vec(), b"redb".to_vec(), vec![0; 1 << 20]] {
        fs::write(&path, content).unwrap();
        let error = refusal(directory.path());
        assert!(matches!(error, OpenError::Foreign { .. }) && error.is_cured_by_rebuilding(), "{error:?}");
    }
    fs::remove_file(&path).unwrap();
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<&str, u64>::new("theirs")).unwrap().insert("a", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(refusal(directory.path()), OpenError::Foreign { .. }));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::Foreign { .. }));
}

#[test]
fn s50_a_read_only_file_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let path = options(directory.path()).path;
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::ReadOnly { .. }) && !error.is_cured_by_rebuilding(), "{error:?}");
}

#[test]
fn another_instances_store_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let path = options(directory.path()).path;
    for (site, instance) in [("lhr", "a"), ("ewr", "b")] {
        let options = Options::new(&path, site.parse().unwrap(), instance.parse().unwrap());
        let error = Store::open(&options).unwrap_err();
        assert!(
            matches!(&error, OpenError::OtherOwner { site, instance, .. }
            if site.as_str() == "ewr" && instance.as_str() == "a"),
            "{error:?}"
        );
        assert!(!error.is_cured_by_rebuilding());
    }
}

#[test]
fn a_store_in_use_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let error = refusal(directory.path());
    assert!(matches!(error, OpenError::InUse { .. }) && !error.is_cured_by_rebuilding(), "{error:?}");
    drop(store);
    open(directory.path());
}

#[test]
fn a_path_without_a_directory_is_the_operators_to_cure() {
    let directory = tempfile::tempdir().unwrap();
    let error = refusal(&directory.path().join("missing"));
    assert!(matches!(error, OpenError::Io { .. }) && !error.is_cured_by_rebuilding(), "{error:?}");
}

#[test]
fn a_file_that_is_set_aside_is_kept_and_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = options(directory.path()).path;
    for number in 1..=3 {
        fs::write(&path, number.to_string()).unwrap();
        let aside = Store::set_aside(&path).unwrap();
        assert_eq!(aside, directory.path().join(format!("copy.redb.damaged-{number}")));
        assert_eq!(fs::read_to_string(aside).unwrap(), number.to_string());
    }
    assert!(Store::set_aside(&path).is_err(), "there is nothing to set aside");
    assert!(open(directory.path()).is_fresh());
}
