//! File descriptors: each connection takes one, and so does whatever else a process opens.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::TransportArgs;

/// How many listeners there are, each with connections of its own.
const LISTENERS: usize = 2;

/// How many descriptors are left to everything else: the store's connections have a few each, the runtime some, and what
/// cannot open a file when it must is worse off than a client that is refused.
const RESERVED: usize = 128;

/// The same with no more connections than there are descriptors for. Raises the process's own limit to what is needed, as
/// far as the system allows: many start programs with 1,024, for the sake of those that use `select`.
pub fn within_descriptors(args: TransportArgs) -> TransportArgs {
    let needed = (args.max_connections * LISTENERS + RESERVED) as u64;
    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
    if limit.current.is_none_or(|current| current >= needed) {
        return args;
    }
    let raised = limit.maximum.map_or(needed, |most| most.min(needed));
    let wanted = Rlimit {
        current: Some(raised),
        maximum: limit.maximum,
    };
    let got = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => raised,
        Err(_) => limit.current.unwrap_or(raised),
    };
    let max_connections = connections(got, args.max_connections);
    if max_connections < args.max_connections {
        tracing::warn!(
            descriptors = got,
            max_connections,
            "there are not enough file descriptors for --max-connections, so fewer are taken; raise the hard limit (ulimit -Hn)"
        );
    }
    TransportArgs {
        max_connections,
        ..args
    }
}

/// How many connections a listener may have with so many descriptors.
fn connections(descriptors: u64, wanted: usize) -> usize {
    let free = usize::try_from(descriptors)
        .unwrap_or(usize::MAX)
        .saturating_sub(RESERVED);
    wanted.min((free / LISTENERS).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(connections(1024, 4096), 448);
        assert_eq!(connections(1_000_000, 4096), 4096);
        assert_eq!(connections(64, 4096), 1);
    }
}
