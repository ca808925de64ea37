//! A file with an API key, and the warning about one that other users can read.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::api_key::ApiKey;
use super::failure::Failure;
use super::{output, redact, text};

/// Warns if every user of the machine can read a file. `what` is in the file: `the API key`.
pub(super) fn warn_if_public(metadata: &Metadata, path: &Path, what: &str) {
    // Not a pipe: a shell turns `<(…)` into one.
    if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
        let path = path.display().to_string();
        let path = text::plain(&path);
        output::print_error(&format!(
            "warning: every user of this machine can read {path} and {what} in it: chmod o-r {path}"
        ));
    }
}

/// Reads the key from a file. `name` names the flag or variable in the error for a path that is an API key itself.
pub(super) fn read_key(path: &Path, name: &str) -> Result<ApiKey, Failure> {
    let read = || {
        let file = File::open(path)?;
        warn_if_public(&file.metadata()?, path, "the API key");
        ApiKey::read(file)
    };
    read().map_err(|error: io::Error| {
        if !path.exists() && path.to_str().is_some_and(redact::looks_like_key) {
            return Failure::usage(format!(
                "{name} must name a file, but the value looks like an API key"
            ));
        }
        Failure::usage(format!(
            "cannot read the key from {}: {error}",
            path.display()
        ))
    })
}
