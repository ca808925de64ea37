//! Faults of the files, the disk and the limits of a machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::fixtures::{DATABASE_PASSWORD, Engine, outcome, without_variables};

use super::{FLAGS, Report, authority, examine, examine_with};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Seen red with the modes left out of the judgement: who may change a file, and who may read it.
#[test]
fn files_that_others_can_read_or_change_are_found() {
    let test_store = authority(Engine::Sqlite);
    let (data, pepper) = (test_store.data(), test_store.pepper());
    let database = data.join("claviger.db");
    for (path, good, bad, id, has_failed, found) in [
        (&data, 0o700, 0o755, "data-directory", false, "look into"),
        (
            &data,
            0o700,
            0o770,
            "data-directory",
            false,
            "the group can change",
        ),
        (
            &data,
            0o700,
            0o777,
            "data-directory",
            true,
            "every user of this machine can change",
        ),
        (&data, 0o700, 0o500, "data-directory", true, "cannot write"),
        (
            &database,
            0o600,
            0o644,
            "data-files",
            false,
            "can read the file",
        ),
        (
            &database,
            0o600,
            0o666,
            "data-files",
            true,
            "can change the file",
        ),
        (
            &pepper,
            0o600,
            0o644,
            "pepper-file",
            false,
            "can read the pepper file",
        ),
        (
            &pepper,
            0o600,
            0o606,
            "pepper-file",
            true,
            "can change the pepper file",
        ),
    ] {
        set_mode(path, bad);
        let report = examine(&test_store, &[]);
        if has_failed {
            report.failed(id, found, "chmod");
        } else {
            report.warned(id, found, "chmod");
        }
        set_mode(path, good);
    }
    let key = data.join("operator.key");
    fs::write(&key, "a secret").unwrap();
    set_mode(&key, 0o600);
    let report = examine(&test_store, &[]);
    report.warned(
        "operator-key",
        "still has the first operator key",
        "move it",
    );
    assert!(!report.text.contains("a secret"));
    fs::remove_file(&key).unwrap();

    if rustix::process::geteuid().is_root() {
        chown(&database, Some(65_534), None).unwrap();
        let report = examine(&test_store, &[]);
        report.failed(
            "data-files",
            "does not belong to the owner of its directory",
            "chown --reference=",
        );
        chown(&database, Some(0), None).unwrap();
        // SQLite would give it the owner of the database, if root reads it.
        let log = data.join("claviger.db-wal");
        fs::write(&log, "").unwrap();
        set_mode(&log, 0o600);
        chown(&log, Some(65_534), None).unwrap();
        let report = examine(&test_store, &[]);
        report.has(&["data-files", "store"], &[]);
        report.says("store", "has another owner", "chown --reference=");
        assert_eq!(fs::metadata(&log).unwrap().uid(), 65_534);
        fs::remove_file(&log).unwrap();
    }
    examine(&test_store, &[]).is_healthy(&["data-directory", "data-files", "pepper-file"]);
}

/// As Kubernetes gives a volume to `fsGroup`: root owns the directory, and the server its files. Seen red without the look at the
/// groups: each file should have been given to root, with which no server starts.
#[test]
fn a_volume_that_belongs_to_the_group_of_the_server_is_healthy() {
    const USER: u32 = 65_532;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let test_store = authority(Engine::Sqlite);
    let data = test_store.data();
    for entry in fs::read_dir(&data).unwrap() {
        chown(entry.unwrap().path(), Some(USER), Some(USER)).unwrap();
    }
    chown(&data, Some(0), Some(USER)).unwrap();
    set_mode(&data, 0o2775);
    set_mode(data.parent().unwrap(), 0o755);
    // The program may be where only root may look.
    let program = data.with_file_name("claviger");
    let built = env!("CARGO_BIN_EXE_claviger");
    if fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).unwrap();
    }
    let examined = || {
        let mut doctor = Command::new(&program);
        let flags = FLAGS.iter().map(|flag| (*flag).to_owned());
        doctor.arg("doctor").args(flags.chain(test_store.flags()));
        let output = outcome(without_variables(&mut doctor).uid(USER).gid(USER));
        String::from_utf8(output.stdout).unwrap()
    };
    let report = examined();
    assert!(report.contains("passed   data-files"), "{report}");
    assert!(report.contains("passed   data-directory"), "{report}");

    chown(data.join("claviger.db"), Some(0), None).unwrap();
    let report = examined();
    assert!(report.contains("does not belong to this user"), "{report}");
    assert!(report.contains("chown 65532 "), "{report}");
    assert!(!report.contains("restore the database"), "{report}");
    assert!(report.contains("Run this as the server's user"), "{report}");
}

/// Seen red without the warnings of the file, and without the look at its mode.
#[test]
fn a_configuration_file_that_others_can_read_or_change_is_found() {
    let test_store = authority(Engine::Postgres);
    let flags = test_store.flags();
    let url = flags
        .iter()
        .find_map(|flag| flag.strip_prefix("--database-url="))
        .unwrap();
    assert!(url.contains(DATABASE_PASSWORD));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("claviger.toml");
    fs::write(&file, format!("database-url = \"{url}\"\n")).unwrap();
    let (config, pepper) = (
        format!("--config={}", file.display()),
        format!("--pepper-file={}", test_store.pepper().display()),
    );
    let flags = [&*config, &*pepper];
    set_mode(&file, 0o600);
    examine_with(&flags).is_healthy(&["configuration-file", "store"]);
    set_mode(&file, 0o644);
    examine_with(&flags).warned(
        "configuration-file",
        "has a secret (`database-url`)",
        "chmod o-r",
    );
    set_mode(&file, 0o602);
    examine_with(&flags).failed(
        "configuration-file",
        "can change the configuration file",
        "chmod",
    );
}

/// Seen red with a store that need not be there, and with a pepper file that need not.
#[test]
fn what_is_missing_is_found_once() {
    let test_store = authority(Engine::Sqlite);
    let (data, pepper) = (test_store.data(), test_store.pepper());
    let elsewhere = data.with_extension("elsewhere");
    fs::rename(&pepper, &elsewhere).unwrap();
    let report = examine(&test_store, &[]);
    report.failed("pepper-file", "is missing", "Restore it from its backup");
    assert_eq!(report.check("peppers")["outcome"], "skipped");
    fs::write(&pepper, "[peppers]\n1 = \"00\"\n").unwrap();
    set_mode(&pepper, 0o600);
    examine(&test_store, &[]).failed("pepper-file", "is not valid", "put it back");
    fs::write(&pepper, format!("[peppers]\n1 = \"{}\"\n", "ab".repeat(32))).unwrap();
    let report = examine(&test_store, &[]);
    report.failed(
        "peppers",
        "has another pepper of version 1",
        "put the right file back",
    );
    assert!(!report.text.contains("abab"));
    fs::write(&pepper, format!("[peppers]\n2 = \"{}\"\n", "ab".repeat(32))).unwrap();
    examine(&test_store, &[]).failed("peppers", "has no pepper of version 1", "--pepper-file");
    fs::rename(&elsewhere, &pepper).unwrap();

    // As an unmounted volume looks.
    fs::rename(&data, &elsewhere).unwrap();
    let report = examine(&test_store, &[]);
    report.has(&["data-directory", "store"], &[]);
    assert_eq!(report.check("pepper-file")["outcome"], "skipped");
    report.says("data-directory", "cannot be used", "mount its volume");
    report.says("store", "there is no authority", "--init");
    examine(&test_store, &["--init"]).is_healthy(&["data-directory", "pepper-file", "store"]);
    fs::write(&data, "a file").unwrap();
    examine(&test_store, &["--init"]).says("data-directory", "is not a directory", "--data-dir");
}

/// `doctor` on a store, by a shell that changes its surroundings first.
fn examine_by(line: &str, flags: &[String]) -> Report {
    let run = |json: &[&str]| {
        let mut shell = Command::new("unshare");
        without_variables(&mut shell);
        if !rustix::process::geteuid().is_root() {
            shell.args(["--user", "--map-root-user"]);
        }
        let line = format!("{line} && exec \"$0\" doctor \"$@\"");
        shell.args(["--mount", "sh", "-c", &line, env!("CARGO_BIN_EXE_claviger")]);
        outcome(shell.args(FLAGS).args(flags).args(json))
    };
    let text = run(&[]);
    Report::of(&run(&["--json"]), String::from_utf8(text.stdout).unwrap())
}

/// Seen red with every file system taken for a good one, and with the reserve left out.
#[test]
fn a_disk_that_cannot_be_written_or_is_full_is_found() {
    let test_store = authority(Engine::Sqlite);
    let flags = test_store.flags();
    let data = test_store.data();
    let data = data.display();
    let report = examine_by(
        &format!("mount --bind {data} {data} && mount -o remount,bind,ro {data}"),
        &flags,
    );
    // The system refuses to write there, whatever the modes say.
    report.has(&["data-directory", "file-system"], &[]);
    report.says("file-system", "mounted read-only", "mount it for writing");

    let on_a_disk_of = |mib: usize| {
        let copy = format!("{data}.copy");
        let line = format!(
            "cp -rp {data} {copy}$$ && mount -t tmpfs -o size={mib}m,mode=700 tmpfs {data} && cp -p {copy}$$/* {data}"
        );
        examine_by(&line, &flags)
    };
    on_a_disk_of(32).failed(
        "disk-space",
        "only changes that take access away are made",
        "free some space",
    );
    on_a_disk_of(100).warned("disk-space", "nearly full", "free some space");
    on_a_disk_of(200).is_healthy(&["disk-space"]);
}

/// Seen red with the limit of the machine left out of each.
#[test]
fn too_little_of_the_machine_is_found() {
    let test_store = authority(Engine::Sqlite);
    let report = examine(&test_store, &["--verify-threads=1024"]);
    report.warned(
        "threads",
        "1024 Verify threads share",
        "leave out --verify-threads",
    );
    let report = examine(&test_store, &["--argon2-memory=1073741824"]);
    report.failed("memory", "the memory is too little", "--argon2-memory");
    let report = examine_by("ulimit -n 300", &test_store.flags());
    report.warned(
        "file-descriptors",
        "640 file descriptors are needed",
        "LimitNOFILE=",
    );
}
