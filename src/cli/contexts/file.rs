//! The file of the contexts: where it is, who may read it, and how it is changed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::process;

use super::Contexts;
use super::parse::{format, parse};
use crate::cli::failure::Failure;
use crate::cli::output;

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// How many links to links are followed, as many as Linux does.
const MAX_LINKS: usize = 40;

/// The file of the contexts.
#[derive(Debug)]
pub(in crate::cli) struct ContextsFile {
    path: PathBuf,
}

impl ContextsFile {
    /// The file of this user, whether it exists or not; `None` if the user has no home.
    pub(in crate::cli) fn of_user() -> Option<Self> {
        // The XDG base directory specification ignores a relative path.
        let folder = |name: &str| {
            let path = std::env::var_os(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
        Some(Self {
            path: config.join("claviger").join("contexts.toml"),
        })
    }

    /// The file of this user, for a command that cannot do without.
    pub(in crate::cli) fn of_user_or_failure() -> Result<Self, Failure> {
        Self::of_user().ok_or_else(|| {
            Failure::usage("there is no place for contexts: neither XDG_CONFIG_HOME nor HOME is an absolute path")
        })
    }

    /// The path of the file.
    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the contexts, to use what is in them: none if there is no file.
    ///
    /// # Errors
    /// If others than the user may read or change the file, or if it cannot be read or parsed.
    pub(in crate::cli) fn read(&self) -> Result<Contexts, Failure> {
        Ok(self.read_unless(|_| true)?.0)
    }

    /// Reads the contexts for a command that changes the file afterwards: this takes the file away from those who may read it.
    pub(in crate::cli) fn read_to_change(&self) -> Result<Contexts, Failure> {
        Ok(self.read_unless(Exposure::lets_change)?.0)
    }

    /// Reads the contexts only to show them, with a warning if the file cannot be trusted.
    pub(in crate::cli) fn read_to_show(&self) -> Result<Contexts, Failure> {
        let (contexts, exposure) = self.read_unless(|_| false)?;
        if let Some(exposure) = exposure {
            let shown = self.path.display();
            let (why, remedy) = exposure.explained();
            output::print_error(&format!(
                "warning: {shown}: {why}, so commands do not use it: {remedy} {shown}"
            ));
        }
        Ok(contexts)
    }

    /// Reads the contexts unless the exposure of the file to others is refused; returns the exposure too.
    fn read_unless(
        &self,
        is_refused: impl FnOnce(Exposure) -> bool,
    ) -> Result<(Contexts, Option<Exposure>), Failure> {
        let shown = self.path.display();
        let is_pipe =
            |path: &Path| fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        if is_pipe(&self.path) {
            return Err(Failure::usage(format!("{shown} is a pipe and not a file")));
        }
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if self.is_absent(&error) => return Ok((Contexts::default(), None)),
            Err(error) => {
                return Err(Failure::usage(format!("cannot read {shown}: {error}")));
            }
        };
        let mut bytes = Vec::new();
        let metadata = file
            .metadata()
            .and_then(|metadata| {
                // One more byte, which tells a file that is larger.
                (&mut file).take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
                Ok(metadata)
            })
            .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
        let me = process::geteuid().as_raw();
        let exposure = Exposure::of(metadata.mode(), metadata.uid(), me);
        if let Some(exposure) = exposure
            && is_refused(exposure)
        {
            let (why, remedy) = exposure.explained();
            return Err(Failure::usage(format!("{shown}: {why}")).hint(format!("{remedy} {shown}")));
        }
        if bytes.len() as u64 > MAX_SIZE {
            // A part must not be taken for the whole, which a change would write back.
            return Err(Failure::usage(format!("{shown} is larger than 1 MiB"))
                .hint("remove everything that is not a context"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::usage(format!("{shown} is not text in UTF-8")))?;
        let contexts = parse(&text).map_err(|why| {
            Failure::usage(format!("{shown}: {why}"))
                .hint("correct the file, or remove it and log in again: claviger login")
        })?;
        Ok((contexts, exposure))
    }

    /// Whether there is no file. What this user may not even look for, because the home is that of another user, is not this user's.
    fn is_absent(&self, error: &io::Error) -> bool {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
            io::ErrorKind::PermissionDenied => fs::symlink_metadata(&self.path).is_err(),
            _ => false,
        }
    }

    /// Changes the contexts. No other program changes them meanwhile, and a crash leaves the file as it was. Afterwards only this user
    /// can read the file.
    pub(in crate::cli) fn change<T>(
        &self,
        change: impl FnOnce(&mut Contexts) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let cannot = |error: io::Error| {
            Failure::failed(format!("cannot write {}: {error}", self.path.display()))
        };
        let folder = self.path.parent().expect("it is in a folder");
        // Folders that exist keep their modes.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(cannot)?;
        // A separate lock file, because the contexts file is replaced. The system releases the lock when the process ends.
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.behind_links().map_err(cannot)?.with_extension("lock"))
            .map_err(cannot)?;
        lock.lock().map_err(cannot)?;
        let (mut contexts, exposure) = self.read_unless(Exposure::lets_change)?;
        let value = change(&mut contexts)?;
        let text = format(&contexts).map_err(Failure::failed)?;
        self.replace(&text).map_err(cannot)?;
        if exposure.is_some() {
            output::print_error(&format!(
                "warning: other users could read {}, and the API keys in it; now they cannot",
                self.path.display()
            ));
        }
        Ok(value)
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let path = self.behind_links()?;
        let new = path.with_file_name(".claviger-contexts.new");
        // Of a crash. Nobody else makes it, because the lock is held.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    /// The path of the file itself: its user may keep such files elsewhere, with a link to them. A link may name a file that does not
    /// exist yet.
    fn behind_links(&self) -> io::Result<PathBuf> {
        let mut path = self.path.clone();
        for _ in 0..MAX_LINKS {
            match fs::read_link(&path) {
                Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
                // It is no link, or there is nothing.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                    ) =>
                {
                    return Ok(path);
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("too many symbolic links"))
    }
}

/// Why this user must not trust a file. Who can change it can name a program in it, which would be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exposure {
    /// Another user owns it.
    Foreign,
    /// Others may change it.
    Writable,
    /// Others may read it.
    Readable,
}

impl Exposure {
    /// The exposure of a file with this mode and owner; `None` if this user can trust it.
    fn of(mode: u32, owner: u32, me: u32) -> Option<Self> {
        if owner != me && owner != 0 {
            return Some(Self::Foreign);
        }
        if mode & 0o022 != 0 {
            return Some(Self::Writable);
        }
        (mode & 0o077 != 0).then_some(Self::Readable)
    }

    /// Whether others than the user may change the file.
    fn lets_change(self) -> bool {
        self != Self::Readable
    }

    /// What is wrong, and the command that helps.
    fn explained(self) -> (&'static str, &'static str) {
        match self {
            Self::Foreign => ("it belongs to another user", "sudo chown $(id -u)"),
            Self::Writable => (
                "other users may change it, and it may name programs to run",
                "chmod 600",
            ),
            Self::Readable => (
                "other users may read it, and it may have API keys",
                "chmod 600",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::contexts::Context;

    #[test]
    fn a_file_of_others_or_open_to_others_is_not_trusted() {
        for (mode, owner, is) in [
            (0o100_600, 7, None),
            (0o100_400, 0, None),
            (0o640, 7, Some(Exposure::Readable)),
            (0o604, 7, Some(Exposure::Readable)),
            (0o610, 7, Some(Exposure::Readable)),
            (0o620, 7, Some(Exposure::Writable)),
            (0o646, 7, Some(Exposure::Writable)),
            (0o600, 8, Some(Exposure::Foreign)),
        ] {
            assert_eq!(Exposure::of(mode, owner, 7), is, "{mode:o} {owner}");
        }
    }

    #[test]
    fn changes_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/claviger/contexts.toml");
        let file = ContextsFile { path: path.clone() };
        std::thread::scope(|threads| {
            for number in 0..16 {
                let file = &file;
                threads.spawn(move || {
                    let add = |contexts: &mut Contexts| {
                        let name = number.to_string();
                        contexts.by_name.insert(name, Context::default());
                        Ok(())
                    };
                    file.change(add).unwrap();
                });
            }
        });
        assert_eq!(file.read().unwrap().by_name.len(), 16);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    }

    /// Seen red with the path of the link where its target does not exist.
    #[test]
    fn a_link_to_a_file_that_does_not_exist_yet_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        std::os::unix::fs::symlink("kept/second", &path).unwrap();
        let kept = folder.path().join("kept");
        fs::create_dir(&kept).unwrap();
        std::os::unix::fs::symlink("../third.toml", kept.join("second")).unwrap();
        let file = ContextsFile { path: path.clone() };
        let add = |contexts: &mut Contexts| {
            contexts.by_name.insert("a".to_owned(), Context::default());
            Ok(())
        };
        file.change(add).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        let content = fs::read_to_string(folder.path().join("third.toml")).unwrap();
        assert_eq!(content, "[contexts.a]\n");

        // A circle is no place.
        let circle = folder.path().join("circle.toml");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        let file = ContextsFile { path: circle };
        assert!(file.change(|_| Ok(())).is_err());
    }

    /// Seen red with the first mebibyte taken for the whole.
    #[test]
    fn a_file_that_is_too_large_is_refused_and_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        let line = "# a comment of sixty-four bytes, of which the file has very many\n";
        let content = line.repeat((1 << 20) / line.len() + 1) + "[contexts.a]\n";
        fs::write(&path, &content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let file = ContextsFile { path: path.clone() };
        let refused = file.change(|_| Ok(())).unwrap_err().to_string();
        assert!(refused.contains("is larger than 1 MiB"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }

    #[test]
    fn a_failed_change_leaves_the_file_and_a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("kept.toml");
        fs::write(&target, "[contexts.a]\n").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let path = folder.path().join("contexts.toml");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let file = ContextsFile { path: path.clone() };
        let refused = file.change(|contexts| {
            contexts.by_name.clear();
            Err::<(), _>(Failure::failed("no"))
        });
        assert!(refused.is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "[contexts.a]\n");
        let rename = |contexts: &mut Contexts| {
            contexts.current = Some("a".to_owned());
            Ok(())
        };
        file.change(rename).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("current"));
    }
}
