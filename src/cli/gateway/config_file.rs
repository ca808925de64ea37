//! The file that a configuration is written to.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;

/// The last line of a file that this command wrote, before the checksum of the lines before it.
const CHECKSUM: &str = "# This file was not edited if its other lines have the checksum ";

/// No configuration is longer.
const MAX_READ: u64 = 1 << 20;

/// Writes a configuration to a file that only its owner can read.
///
/// A file that exists is replaced only if this command wrote it for the same gateway and API, and nobody has edited it since. It
/// keeps its owner, group and mode; a symbolic link stays one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let shown = path.display();
    let (target, old) = match existing(path) {
        Ok(existing) => existing,
        Err(error) => {
            return Err(Failure::failed(format!("cannot write {shown}: {error}"))
                .hint("nothing was changed; name a new file with --output-file"));
        }
    };
    if let Some(problem) = old.as_ref().and_then(|(old, _)| obstacle(old, text)) {
        return Err(
            Failure::failed(format!("{shown} exists and {problem}; it is not replaced")).hint(
                "nothing was changed; name a new file with --output-file, and compare the two",
            ),
        );
    }
    let text = format!("{text}{}\n", checksum_line(text));
    let metadata = old.map(|(_, metadata)| metadata);
    replace(&target, &text, metadata.as_ref()).map_err(|error| {
        Failure::failed(format!("cannot write {shown}: {error}"))
            .hint("nothing was changed; the directory must exist and be writable")
    })
}

/// The file that a path leads to, and what it contains if it exists.
fn existing(path: &Path) -> io::Result<(PathBuf, Option<(String, Metadata)>)> {
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((path.to_owned(), None));
        }
        Err(error) => return Err(error),
    }
    let target = fs::canonicalize(path)?;
    let metadata = fs::metadata(&target)?;
    // To open a pipe would wait for its other end.
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(&target)?
        .take(MAX_READ)
        .read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok((target, Some((text, metadata))))
}

/// Why a file must not be replaced by this configuration.
fn obstacle(old: &str, new: &str) -> Option<String> {
    let body = old.trim_end_matches('\n');
    let (body, last) = body.rsplit_once('\n').unwrap_or(("", body));
    let body = format!("{body}\n");
    if !last.starts_with(CHECKSUM) {
        return Some("this command did not write it".to_owned());
    }
    if last != checksum_line(&body) {
        return Some("was edited".to_owned());
    }
    let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    (first(old) != first(new)).then(|| "is for another gateway or API".to_owned())
}

fn checksum_line(text: &str) -> String {
    format!("{CHECKSUM}{:08x}.", crc32fast::hash(text.as_bytes()))
}

/// Puts a new file in the place of the old one, so that a gateway never reads a part of it.
fn replace(path: &Path, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let new = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            if let Some(old) = old {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
                file.set_permissions(old.permissions())?;
            }
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

    /// Seen red with each of the three obstacles left out.
    #[test]
    fn only_what_this_command_wrote_and_nobody_edited_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.conf");
        for text in ["# nginx: demo\nlisten 1;\n", "# nginx: demo\nlisten 2;\n"] {
            write(&path, text).unwrap();
            let written = fs::read_to_string(&path).unwrap();
            assert!(written.starts_with(text), "{written}");
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let written = fs::read_to_string(&path).unwrap();
        let refused = |old: &str, new: &str, why: &str| {
            fs::write(&path, old).unwrap();
            let refusal = write(&path, new).unwrap_err().to_string();
            assert!(refusal.contains(why), "{refusal}");
            assert_eq!(fs::read_to_string(&path).unwrap(), old);
        };
        let new = "# nginx: demo\nlisten 3;\n";
        refused(&written.replace("listen 2", "listen 9"), new, "was edited");
        refused(
            &written,
            "# nginx: other\n",
            "is for another gateway or API",
        );
        for foreign in ["", "a key\n", "# nginx: demo\n"] {
            refused(foreign, new, "this command did not write it");
        }
        let refusal = write(&folder.path().join("absent/file"), new).unwrap_err();
        assert!(
            refusal.to_string().contains("directory must exist"),
            "{refusal}"
        );
        let refusal = write(folder.path(), new).unwrap_err().to_string();
        assert!(refusal.contains("it is not a file"), "{refusal}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    /// Seen red with the mode of a new file, and with the link replaced.
    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link] = ["gateway.conf", "link"].map(|name| folder.path().join(name));
        write(&path, "# nginx: demo\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, "# nginx: demo\nlisten 2;\n").unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("listen 2;"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink("absent", &dangling).unwrap();
        assert!(write(&dangling, "# nginx: demo\n").is_err());
    }
}
