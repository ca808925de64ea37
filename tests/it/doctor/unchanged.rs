//! `doctor` changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::fixtures::{Engine, Program};

use super::{authority, examine};

/// The contents of a file, its time, and its owner, group, mode and inode.
type File = (Vec<u8>, [i64; 2], [u64; 4]);

/// The files of a directory, and the directory itself.
fn files(directory: &Path) -> BTreeMap<String, File> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.push(directory.to_owned());
    let file = |path: &Path| {
        let file = fs::metadata(path).unwrap();
        let contents = if file.is_file() {
            fs::read(path).unwrap()
        } else {
            Vec::new()
        };
        let times = [file.mtime(), file.mtime_nsec()];
        let facts = [
            u64::from(file.uid()),
            u64::from(file.gid()),
            u64::from(file.mode()),
            file.ino(),
        ];
        (contents, times, facts)
    };
    paths
        .iter()
        .map(|path| (path.display().to_string(), file(path)))
        .collect()
}

/// Seen red with a connection that may write, and with SQLite's own kind of reading only: both leave files behind.
#[test]
fn no_file_of_an_embedded_database_is_changed() {
    let test_store = authority(Engine::Sqlite);
    let data = test_store.data();
    let before = files(&data);
    examine(&test_store, &[]).is_healthy(&["store", "integrity"]);
    assert!(files(&data) == before);

    let mut program = Program::serve(&test_store, &["--usage-interval=1h"]);
    let mut changed = Vec::new();
    // The server itself writes something at its start and then once a minute: so rarely that not every run can meet it.
    for _ in 0..5 {
        let before = files(&data);
        assert!(before.len() > 4, "SQLite's files are there too");
        examine(&test_store, &[]).is_healthy(&["store", "integrity"]);
        let after = files(&data);
        assert!(after.keys().eq(before.keys()));
        let is_other = |name: &String| after[name] != before[name] && !name.ends_with("-shm");
        changed = before
            .keys()
            .filter(|name| is_other(name))
            .cloned()
            .collect();
        if changed.is_empty() {
            break;
        }
    }
    assert_eq!(changed, [""; 0]);

    // After a crash nobody keeps the index, and the log has changes.
    program.kill();
    let before = files(&data);
    examine(&test_store, &[]).is_healthy(&["store", "integrity"]);
    assert!(files(&data) == before);

    // The lock was not taken, so a server starts and stops as ever.
    let mut program = Program::serve(&test_store, &[]);
    examine(&test_store, &[]).is_healthy(&["store"]);
    program.signal("INT");
    assert!(program.wait().success());
}

/// Seen red with a transaction that may write, in which the time was marked.
#[test]
fn nothing_in_a_database_is_changed() {
    let test_store = authority(Engine::Postgres);
    let written = "SELECT pg_stat_force_next_flush(); SELECT xact_commit > 0, tup_inserted + tup_updated + tup_deleted
                   FROM pg_stat_database WHERE datname = current_database()";
    // Each dump has a random word of its own.
    let dump = || {
        let dump = test_store.database().dump();
        let lines = dump.lines().filter(|line| !line.contains("restrict "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = dump();
    let counted = test_store.database().ask(written);
    examine(&test_store, &[]).is_healthy(&["store", "replicas"]);
    assert!(dump() == before);
    assert_eq!(test_store.database().ask(written), counted);

    let program = Program::serve(&test_store, &["--replica-name=one"]);
    examine(&test_store, &["--replica-name=one"]).is_healthy(&["store", "replicas"]);
    // The server still has its lock, and its row is the only one.
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(test_store.database().ask(locks).trim(), "1");
    assert_eq!(
        test_store
            .database()
            .ask("SELECT count(*) FROM replicas")
            .trim(),
        "1"
    );
    drop(program);
}
