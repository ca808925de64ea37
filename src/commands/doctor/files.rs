//! The files: who may read and change them. Judged by their modes, so that root finds what the server's user would meet.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{getegid, geteuid, getgroups};

use super::report::{Check, Finding, Report, counted, problems_or};
use crate::config::{LocationArgs, Resolved, ServeArgs};
use crate::hashing::Peppers;
use crate::open::{DATABASE, LOCK, OpenStoreError, has_database, operator_key_path};

/// All the server's user may do with a directory.
const OWNER_ALL: u32 = 0o700;

/// Examines all files but those of TLS.
pub(super) fn examine(report: &mut Report, args: &ServeArgs, resolved: &Resolved) {
    report.add(Check::ConfigurationFile, configuration_file(resolved));
    let location = &args.store.location;
    if location.database().is_some() {
        let checks = [Check::DataDirectory, Check::DataFiles];
        report.skip(&checks, "the database is PostgreSQL");
    } else {
        report.add(Check::DataDirectory, data_directory(location, args.init));
        report.add(Check::DataFiles, data_files(location));
    }
    report.add(Check::PepperFile, pepper_file(args));
    report.add(Check::OperatorKey, operator_key(location));
}

fn configuration_file(resolved: &Resolved) -> Vec<Finding> {
    let Some(path) = &resolved.config_file else {
        return vec![Finding::skipped("there is none")];
    };
    let mut problems = changeable(path, "the configuration file");
    // Each ends with what to do.
    let warnings = resolved.warnings.iter();
    problems.extend(warnings.map(|warning| Finding::warning(warning, "")));
    problems_or(problems, path.display().to_string())
}

fn data_directory(location: &LocationArgs, creates: bool) -> Vec<Finding> {
    let path = &location.data_dir;
    let shown = path.display();
    let directory = match fs::metadata(path) {
        Ok(directory) if directory.is_dir() => directory,
        Ok(_) => {
            return vec![Finding::failed(
                format!("{shown} is not a directory"),
                "correct --data-dir",
            )];
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && creates => {
            return vec![Finding::passed("`serve --init` makes it")];
        }
        Err(error) => {
            return vec![Finding::failed(
                format!("{shown} cannot be used: {error}"),
                "mount its volume, or correct --data-dir. Only for a new authority: --init",
            )];
        }
    };
    let mode = mode(&directory);
    if may_use(path) && is_given_by_group(&directory) && mode & 0o002 == 0 {
        return vec![Finding::passed(shown.to_string())];
    }
    let mut problems = changeable(path, "the data directory");
    if mode & OWNER_ALL != OWNER_ALL || !may_use(path) {
        problems.push(Finding::failed(
            format!("the server's user cannot write to {shown} (mode {mode:04o})"),
            format!("make it the owner, then chmod 700 {shown}"),
        ));
    } else if mode & 0o005 != 0 && problems.is_empty() {
        problems.push(Finding::warning(
            format!("every user of this machine may look into {shown} (mode {mode:04o})"),
            format!("chmod 700 {shown}"),
        ));
    }
    problems_or(problems, shown.to_string())
}

/// Whether this process may read, write and enter a directory. Root may always.
fn may_use(path: &Path) -> bool {
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, path, all, AtFlags::EACCESS).is_ok()
}

/// Whether root has given a directory to a group of this process. Kubernetes does this with a volume (`fsGroup`), and sets its mode.
fn is_given_by_group(directory: &Metadata) -> bool {
    let is_ours = |group: u32| {
        getegid().as_raw() == group
            || getgroups().is_ok_and(|groups| groups.iter().any(|own| own.as_raw() == group))
    };
    !geteuid().is_root()
        && directory.uid() == 0
        && mode(directory) & 0o020 != 0
        && is_ours(directory.gid())
}

/// The files of the embedded database.
fn data_files(location: &LocationArgs) -> Vec<Finding> {
    let directory = &location.data_dir;
    let (Ok(owner), Ok(entries)) = (fs::metadata(directory), fs::read_dir(directory)) else {
        return vec![Finding::skipped("there is no directory to look into")];
    };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(DATABASE) || name == LOCK
    };
    let entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<_> = entries.filter(is_ours).collect();
    files.sort();
    if files.is_empty() {
        return vec![Finding::skipped("there are none")];
    }
    let mut problems: Vec<_> = files
        .iter()
        .flat_map(|path| secret(path, "the file"))
        .collect();
    let (user, found, new_owner) = if is_given_by_group(&owner) {
        let user = geteuid().as_raw();
        (user, "this user", user.to_string())
    } else {
        let reference = format!("--reference={}", directory.display());
        (owner.uid(), "the owner of its directory", reference)
    };
    for path in &files {
        let is_foreign = fs::metadata(path).is_ok_and(|file| file.uid() != user);
        if is_foreign {
            let path = path.display();
            problems.push(Finding::failed(
                format!("{path} does not belong to {found}"),
                format!("chown {new_owner} {path}"),
            ));
        }
    }
    problems_or(
        problems,
        format!(
            "{}, for their owner only",
            counted(files.len() as u64, "file")
        ),
    )
}

fn pepper_file(args: &ServeArgs) -> Vec<Finding> {
    let Some(path) = args.store.pepper_path() else {
        return vec![Finding::error(&OpenStoreError::PepperUnnamed)];
    };
    match Peppers::load(&path) {
        Ok(Some(_)) => problems_or(secret(&path, "the pepper file"), path.display().to_string()),
        Ok(None) if lacks_database(&args.store.location) => {
            if args.init {
                vec![Finding::passed("`serve --init` makes it")]
            } else {
                vec![Finding::skipped("there is no authority that needs it")]
            }
        }
        Ok(None) => vec![Finding::error(&OpenStoreError::PepperMissing(path))],
        Err(error) => vec![Finding::failed(
            error.to_string(),
            "put it back from its copy, and let the server's user read it",
        )],
    }
}

/// Whether there is no embedded database, in a directory that could have one.
fn lacks_database(location: &LocationArgs) -> bool {
    location.database().is_none() && has_database(&location.data_dir).is_ok_and(|has| !has)
}

fn operator_key(location: &LocationArgs) -> Vec<Finding> {
    let path = operator_key_path(location);
    if !path.exists() {
        return vec![Finding::passed("no file with the first operator key")];
    }
    let mut problems = vec![Finding::warning(
        format!("{} still has the first operator key", path.display()),
        "move it to where you keep secrets: claviger does not read it",
    )];
    problems.extend(secret(&path, "the operator key"));
    problems
}

/// The problems of a file that only its owner and its group may read.
pub(super) fn secret(path: &Path, what: &str) -> Vec<Finding> {
    let mut problems = changeable(path, what);
    let is_public = fs::metadata(path).is_ok_and(|file| mode(&file) & 0o004 != 0);
    if is_public && problems.is_empty() {
        let shown = path.display();
        problems.push(Finding::warning(
            format!("every user of this machine can read {what} {shown}"),
            format!("chmod o-rwx {shown}"),
        ));
    }
    problems
}

/// The problems of a file or directory that others may change.
fn changeable(path: &Path, what: &str) -> Vec<Finding> {
    let Ok(file) = fs::metadata(path) else {
        return Vec::new();
    };
    let shown = path.display();
    let found = |who| format!("{who} can change {what} {shown} (mode {:04o})", mode(&file));
    let advice = format!("chmod go-w,o-rwx {shown}");
    match mode(&file) {
        // In a directory with the sticky bit others cannot replace files.
        mode if mode & 0o002 != 0 => {
            vec![Finding::failed(found("every user of this machine"), advice)]
        }
        mode if mode & 0o020 != 0 => vec![Finding::warning(found("the group"), advice)],
        _ => Vec::new(),
    }
}

fn mode(file: &Metadata) -> u32 {
    file.permissions().mode() & 0o777
}
