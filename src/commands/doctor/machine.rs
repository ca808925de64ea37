//! The machine: file descriptors, memory and processors.

use std::fs;
use std::path::Path;

use rustix::system::sysinfo;

use super::disk::bytes;
use super::report::{Finding, counted};
use crate::config::ServeArgs;
use crate::transport::{most_descriptors, needed_descriptors};

/// The memory of a server without keys, in bytes, with connections and calls under load.
const BASE: u64 = 128 << 20;

/// The memory of a key, in bytes. See `docs/performance.md`.
const OF_A_KEY: u64 = 190;

/// The memory of the counts of a key that is in use while the database is away, in bytes.
const OF_A_KEY_IN_AN_OUTAGE: u64 = 450;

pub(super) fn file_descriptors(args: &ServeArgs) -> Finding {
    let listen = &args.listen;
    let others =
        usize::from(listen.admin_listen.is_some()) + usize::from(listen.unix_socket.is_some());
    let needed = needed_descriptors(args.transport, 2 + others);
    match most_descriptors() {
        Some(most) if most < needed => Finding::warning(
            format!(
                "{needed} file descriptors are needed for --max-connections {}, and the limit is {most}, so fewer connections are \
                 accepted",
                args.transport.max_connections
            ),
            "raise the hard limit (LimitNOFILE= in systemd, ulimit -Hn), or set --max-connections lower",
        ),
        Some(most) => Finding::passed(format!("{needed} are needed, the limit is {most}")),
        None => Finding::passed(format!("{needed} are needed, there is no limit")),
    }
}

pub(super) fn threads(args: &ServeArgs) -> Finding {
    let threads = args.transport.verify_threads();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if threads > cores {
        Finding::warning(
            format!("{threads} Verify threads share {cores} processors"),
            "leave out --verify-threads, or set it to the number of processors at most",
        )
    } else {
        Finding::passed(format!("{threads} Verify threads, {cores} processors"))
    }
}

/// Compares what a server needs for its keys with what it can have. Without a number of keys, the keys do not count.
pub(super) fn memory(args: &ServeArgs, keys: Option<u64>) -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let roots = u64::from(args.store.argon2_memory) * 1024 * cores;
    let info = sysinfo();
    let of_machine = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    let limit = of_machine.min(cgroup_limit().unwrap_or(u64::MAX));
    judge_memory(limit, roots, keys)
}

fn judge_memory(limit: u64, roots: u64, keys: Option<u64>) -> Finding {
    let of_keys = keys.unwrap_or(0);
    // Twice, because they can be loaded anew.
    let needed = BASE + roots + 2 * of_keys * OF_A_KEY;
    let in_an_outage = needed + of_keys * OF_A_KEY_IN_AN_OUTAGE;
    let known = match keys {
        Some(keys) => format!("for {}", counted(keys, "key")),
        None => "without its keys".to_owned(),
    };
    let facts = format!(
        "{} needed {known}, {} available",
        bytes(needed),
        bytes(limit)
    );
    let advice = "give the server more memory, or set --argon2-memory lower";
    if needed > limit {
        Finding::failed(
            format!(
                "the memory is too little, so the system may kill the server: {facts}. {} are for the Argon2 hashes of new keys",
                bytes(roots)
            ),
            advice,
        )
    } else if in_an_outage > limit {
        Finding::warning(
            format!(
                "the memory is too little for a long outage of the database, during which counts of usage wait in memory: {facts}, \
                 and up to {} then",
                bytes(in_an_outage)
            ),
            advice,
        )
    } else {
        Finding::passed(facts)
    }
}

/// The memory that the control groups of this process allow, in bytes; `None` if they set no limit.
fn cgroup_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        let group = Path::new(root).join(path.trim_start_matches('/'));
        // A group is limited by those above it too. In a container only the root may be seen.
        let above = group
            .ancestors()
            .take_while(|group| group.starts_with(root));
        above.filter_map(|group| limit_in(&group.join(file))).min()
    });
    limits.min()
}

/// The number in a file; `None` if it says `max`, or is not there.
fn limit_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::report::Outcome;

    /// Seen red with the keys left out, and with the hashes left out.
    #[test]
    fn memory_is_for_keys_and_hashes() {
        const GIB: u64 = 1 << 30;
        for (limit, roots, keys, outcome) in [
            (GIB, 0, Some(0), Outcome::Passed),
            (GIB, 0, None, Outcome::Passed),
            (GIB, 0, Some(1_000_000), Outcome::Passed),
            (GIB, 0, Some(1_200_000), Outcome::Warning),
            (GIB, 0, Some(3_000_000), Outcome::Failed),
            (GIB, 8 * GIB, Some(0), Outcome::Failed),
        ] {
            let finding = judge_memory(limit, roots, keys);
            assert_eq!(finding.outcome, outcome, "{limit} {roots} {keys:?}");
        }
    }
}
