//! The disk of the embedded database.

use std::fs;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

use super::report::{Check, Finding, Report};
use crate::config::ServeArgs;
use crate::open::DATABASE;

/// The least space beside the reserve with which nobody needs to act.
const ENOUGH: u64 = 64 << 20;

/// The types of file systems on which SQLite's locks or its write-ahead log do not work, or may not, by their magic numbers in
/// `statfs(2)` and `linux/magic.h`.
const SHARED: [(u32, &str); 14] = [
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0000_517b, "SMB"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x1983_0326, "BeeGFS"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x786f_4256, "VirtualBox's shared folders"),
];

const FUSE: u32 = 0x6573_5546;
const TMPFS: u32 = 0x0102_1994;
const OVERLAY: u32 = 0x794c_7630;

/// Examines the disk of the data directory.
pub(super) fn examine(report: &mut Report, args: &ServeArgs) {
    let checks = [Check::FileSystem, Check::DiskSpace];
    let directory = &args.store.location.data_dir;
    if args.store.location.database().is_some() {
        return report.skip(&checks, "the database is PostgreSQL");
    }
    let (Ok(kind), Ok(disk)) = (statfs(directory), statvfs(directory)) else {
        return report.skip(&checks, "there is no data directory");
    };
    let is_read_only = disk.f_flag.contains(StatVfsMountFlags::RDONLY);
    report.add(
        Check::FileSystem,
        file_system(kind.f_type as u32, is_read_only),
    );
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let size = database_size(directory);
    report.add(
        Check::DiskSpace,
        space(free, args.limits.disk_reserve, size),
    );
}

/// The size of the database with all its files, in bytes.
fn database_size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(DATABASE))
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum()
}

fn file_system(magic: u32, is_read_only: bool) -> Finding {
    if is_read_only {
        return Finding::failed(
            "the file system of the data directory is mounted read-only",
            "mount it for writing; if the system did that by itself, look into its log first",
        );
    }
    if let Some((_, name)) = SHARED.iter().find(|(other, _)| *other == magic) {
        return Finding::failed(
            format!(
                "the data directory is on a network file system ({name}), where changes can be lost"
            ),
            "move it to a local disk, or use PostgreSQL",
        );
    }
    match magic {
        FUSE => Finding::warning(
            "the data directory is on a file system of a program (FUSE), which may be of the network",
            "make sure that it is local, and that it keeps locks and syncs; otherwise move the directory",
        ),
        TMPFS => Finding::passed("local (tmpfs: a restart of the machine empties it)"),
        OVERLAY => Finding::passed("local (overlay: a container loses it when it ends)"),
        _ => Finding::passed("local"),
    }
}

fn space(free: u64, reserve: u64, size: u64) -> Finding {
    let facts = format!(
        "{} free, {} reserved, database {}",
        bytes(free),
        bytes(reserve),
        bytes(size)
    );
    let advice = "free some space, or keep less: --retain-events, --retain-keys";
    if free < reserve {
        Finding::failed(
            format!("only changes that take access away are made: {facts}"),
            advice,
        )
    } else if free - reserve < ENOUGH.max(size / 10) {
        Finding::warning(format!("the disk is nearly full: {facts}"), advice)
    } else {
        Finding::passed(facts)
    }
}

/// A number of bytes for people.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..=0x3ff => format!("{bytes} bytes"),
        0x400..=0xf_ffff => format!("{} KiB", bytes >> 10),
        0x10_0000..=0x3fff_ffff => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::report::Outcome;

    /// Seen red with an empty list of the types.
    #[test]
    fn a_disk_that_is_not_local_is_found() {
        for (magic, is_read_only, outcome) in [
            (0xef53, false, Outcome::Passed),
            (TMPFS, false, Outcome::Passed),
            (OVERLAY, false, Outcome::Passed),
            (FUSE, false, Outcome::Warning),
            (0x6969, false, Outcome::Failed),
            (0xff53_4d42, false, Outcome::Failed),
            (0xef53, true, Outcome::Failed),
        ] {
            let finding = file_system(magic, is_read_only);
            assert_eq!(finding.outcome, outcome, "{magic:x}");
        }
    }

    /// Seen red with the reserve left out.
    #[test]
    fn space_is_what_the_reserve_leaves() {
        const MIB: u64 = 1 << 20;
        for (free, reserve, size, outcome) in [
            (63, 64, 1, Outcome::Failed),
            (65, 64, 1, Outcome::Warning),
            (129, 64, 1, Outcome::Passed),
            (129, 64, 1_000, Outcome::Warning),
            (400, 64, 1_000, Outcome::Passed),
            (64, 0, 0, Outcome::Passed),
        ] {
            let finding = space(free * MIB, reserve * MIB, size * MIB);
            assert_eq!(finding.outcome, outcome, "{free} {reserve} {size}");
        }
    }

    #[test]
    fn bytes_have_a_unit() {
        for (count, shown) in [
            (0, "0 bytes"),
            (1_024, "1 KiB"),
            (64 << 20, "64 MiB"),
            (5 << 30, "5 GiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }
}
