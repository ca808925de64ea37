//! The file that a configuration is written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::cli::failure::Failure;

/// What the first lines of each configuration contain.
const MARK: &str = "# Printed by `claviger gateway config";

/// Writes a configuration to a file that only its owner can read. A file that is no configuration of this command is not
/// overwritten.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let shown = path.display();
    match is_replaceable(path) {
        Ok(true) => {}
        Ok(false) => {
            return Err(Failure::failed(format!(
                "{shown} exists already, and this command did not write it"
            ))
            .hint("nothing was changed; --output-file must name a new file, or one that this command wrote"));
        }
        Err(error) => return Err(Failure::failed(format!("cannot read {shown}: {error}"))),
    }
    replace(path, text).map_err(|error| {
        Failure::failed(format!("cannot write {shown}: {error}"))
            .hint("nothing was changed; the directory must exist and be writable")
    })
}

fn is_replaceable(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut start = Vec::new();
    file.take(1_024).read_to_end(&mut start)?;
    Ok(String::from_utf8_lossy(&start).contains(MARK))
}

/// Puts a new file in the place of the old one, so that a gateway never reads a part of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let new = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        });
    if written.is_err() {
        // A failure is harmless: the file stays.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_configuration_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.conf");
        let text = format!("# nginx\n{MARK} nginx`\n");
        for text in [text.clone(), text + "more\n"] {
            write(&path, &text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(&path, "a key\n").unwrap();
        let refusal = write(&path, "new").unwrap_err().to_string();
        assert!(
            refusal.contains("this command did not write it"),
            "{refusal}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "a key\n");
        let refusal = write(&folder.path().join("absent/file"), "new").unwrap_err();
        assert!(
            refusal.to_string().contains("directory must exist"),
            "{refusal}"
        );
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
