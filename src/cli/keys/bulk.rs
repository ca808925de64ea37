//! What the commands that end many keys show.

use prost_types::Timestamp;

use super::columns;
use super::filter::FilterFlags;
use crate::cli::output::Screen;
use crate::cli::rounds::counted;
use crate::pb::claviger::v1::Key;

/// Describes what a command would do to this many keys, of which these are the newest. `more`: it goes on with others afterwards.
pub(super) fn preview(
    verb: &str,
    count: u64,
    more: bool,
    examples: &[Key],
    screen: Option<Screen>,
) -> String {
    if count == 0 {
        return if verb == "revoke" {
            "There are no such keys, or all of them are revoked already.".to_owned()
        } else {
            "There are no such keys.".to_owned()
        };
    }
    let shown = match examples.len() {
        shown if shown as u64 == count => String::new(),
        shown => format!(" The newest {shown} of them:"),
    };
    format!(
        "This would {verb} {} permanently.{shown}\n\n{}\n",
        counted(count, more),
        columns::ended().table(examples, screen)
    )
}

/// The flags that a repetition of the command needs besides its request id.
pub(super) fn repeat(filter: &FilterFlags) -> String {
    let flags = filter.repeated().into_iter();
    let flags: Vec<_> = flags
        .map(|(flag, value)| format!("{flag} {value}"))
        .collect();
    flags.join(" ")
}

/// The time a microsecond later, the precision of the server.
pub(super) fn just_after(time: Timestamp) -> Timestamp {
    let nanos = time.nanos.saturating_add(1_000);
    Timestamp {
        seconds: time
            .seconds
            .saturating_add(i64::from(nanos / 1_000_000_000)),
        nanos: nanos % 1_000_000_000,
    }
}
