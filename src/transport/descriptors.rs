//! File descriptors: each connection takes one, as do the database and everything else that the process opens.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::TransportArgs;

/// The number of descriptors that are reserved for everything else: each connection of the store takes a few, the runtime some.
/// A file that cannot be opened does more harm than a refused client.
const RESERVED: usize = 128;

/// Reduces `max_connections` of each of so many listeners to the number of file descriptors that the process can have. Before that, the function raises the
/// soft limit of the process as far as the system allows, because many systems start programs with 1,024 for the sake of
/// programs that use `select`.
pub fn within_descriptors(args: TransportArgs, listeners: usize) -> TransportArgs {
    let needed = needed_descriptors(args, listeners);
    let limit = getrlimit(Resource::Nofile);
    // `None` means no limit.
    if limit.current.is_none_or(|current| current >= needed) {
        return args;
    }
    let raised = limit.maximum.map_or(needed, |max| max.min(needed));
    let wanted = Rlimit {
        current: Some(raised),
        maximum: limit.maximum,
    };
    let got = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => raised,
        Err(_) => limit.current.unwrap_or(raised),
    };
    let max_connections = connections(got, args.max_connections, listeners);
    if max_connections < args.max_connections {
        tracing::warn!(
            descriptors = got,
            max_connections,
            "too few file descriptors for --max-connections, so the limit is lower; raise the hard limit (ulimit -Hn)"
        );
    }
    TransportArgs {
        max_connections,
        ..args
    }
}

/// The number of file descriptors that a server needs for all connections of so many listeners.
pub fn needed_descriptors(args: TransportArgs, listeners: usize) -> u64 {
    let connections = args.max_connections.saturating_mul(listeners);
    connections.saturating_add(RESERVED) as u64
}

/// The number of file descriptors that a process of this user can have; `None` if there is no limit.
pub fn most_descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// The number of connections that a listener can have with this number of descriptors.
fn connections(descriptors: u64, wanted: usize, listeners: usize) -> usize {
    let free = usize::try_from(descriptors)
        .unwrap_or(usize::MAX)
        .saturating_sub(RESERVED);
    wanted.min((free / listeners).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(connections(1024, 4096, 2), 448);
        assert_eq!(connections(1024, 4096, 4), 224);
        assert_eq!(connections(1_000_000, 4096, 2), 4096);
        assert_eq!(connections(64, 4096, 2), 1);
    }
}
