//! The pepper: the key of the digests. It is in a file and never in the database.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{ImportHash, random};
use crate::domain::ids::KeyId;
use crate::domain::key::Digest;
use crate::domain::key_text::SecretBytes;

/// The versions of the pepper in a pepper file, prepared for use.
///
/// The type has no `Debug`, because the pepper is the secret that a thief of the database does not have.
pub struct Peppers {
    /// HMAC-SHA256 (RFC 2104) after it has processed the key. A clone for each digest saves two of its four blocks.
    versions: BTreeMap<u32, Hmac<Sha256>>,
}

/// The reason why a pepper file cannot be used. No error contains a part of the file.
#[derive(Debug, thiserror::Error)]
pub enum PepperFileError {
    /// The file cannot be read or written.
    #[error("the pepper file {path} cannot be {verb}: {source}")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The failed operation, as a participle.
        verb: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file does not have the required form.
    #[error(
        "the pepper file {0} is not valid: it must have a table [peppers] with lines such as 1 = \"64 hexadecimal digits\""
    )]
    Form(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PepperFile {
    peppers: BTreeMap<String, Zeroizing<String>>,
}

impl Peppers {
    /// The first version of the pepper of a new authority.
    pub const FIRST: u32 = 1;

    /// Reads a pepper file; `None` if the file does not exist.
    pub fn load(path: &Path) -> Result<Option<Self>, PepperFileError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(path, "read", source)),
        };
        Self::parse(&text)
            .map(Some)
            .ok_or_else(|| PepperFileError::Form(path.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let file: PepperFile = toml::from_str(text).ok()?;
        let versions = file
            .peppers
            .iter()
            .map(|(version, key)| Some((version.parse().ok()?, keyed(&*unhex(key)?))))
            .collect::<Option<BTreeMap<_, _>>>()?;
        (!versions.is_empty()).then_some(Self { versions })
    }

    /// Creates a pepper file with one new pepper. Only its owner can read it. The file is durable when this function returns.
    ///
    /// # Errors
    /// If the file cannot be written, or if it exists already: a pepper is never overwritten.
    pub fn create(path: &Path) -> Result<Self, PepperFileError> {
        let key = Zeroizing::new(random::<32>());
        let digits = Zeroizing::new(key.iter().fold(String::with_capacity(64), |digits, byte| {
            digits + &format!("{byte:02x}")
        }));
        let text = Zeroizing::new(format!(
            "# The pepper of a claviger authority: the key of the digests of its secrets.\n\
             # A thief of this file and of the database can test guessed secrets, but cannot derive a key.\n\
             # Without this file no key can be verified. Keep a copy, but not together with a copy of the database.\n\
             [peppers]\n{} = \"{}\"\n",
            Self::FIRST,
            *digits
        ));
        // The text is written to a temporary file, which is then linked. So the pepper file is complete or does not exist,
        // and it never replaces another file.
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::hard_link(&temporary, path)?;
            fs::remove_file(&temporary)?;
            sync_folder_of(path)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&temporary);
            io_error(path, "created", source)
        })?;
        Ok(Self {
            versions: BTreeMap::from([(Self::FIRST, keyed(&*key))]),
        })
    }

    /// Returns a pepper for tests that the seed determines.
    #[cfg(test)]
    pub(crate) fn for_test(seed: u8) -> Self {
        Self {
            versions: BTreeMap::from([(Self::FIRST, keyed(&[seed; 32]))]),
        }
    }

    /// Returns the digest of a key's secret under this version of the pepper; `None` if the file does not have the version.
    pub fn digest(&self, version: u32, id: KeyId, secret: &SecretBytes) -> Option<Digest> {
        let mut mac = self.versions.get(&version)?.clone();
        // The fields after the label have fixed lengths, so that no two inputs have the same bytes.
        mac.update(b"verify");
        mac.update(id.as_bytes());
        mac.update(secret.expose());
        Some(Digest {
            pepper: version,
            mac: mac.finalize().into_bytes().into(),
        })
    }

    /// Returns the digest of an imported API key under this version of the pepper; `None` if the file does not have the
    /// version.
    pub fn digest_import(&self, version: u32, text: &ImportHash) -> Option<Digest> {
        let mut mac = self.versions.get(&version)?.clone();
        mac.update(b"import");
        mac.update(text.secret().expose());
        Some(Digest {
            pepper: version,
            mac: mac.finalize().into_bytes().into(),
        })
    }

    /// Returns the digest of a request under this version of the pepper; `None` if the file does not have the version.
    ///
    /// A request may contain API keys. Without the pepper, a thief of the database could test guessed API keys against the hash.
    pub fn digest_request(&self, version: u32, fingerprint: &[u8; 32]) -> Option<[u8; 32]> {
        let mut mac = self.versions.get(&version)?.clone();
        mac.update(b"request");
        mac.update(fingerprint);
        Some(mac.finalize().into_bytes().into())
    }

    /// Returns whether `digest` is the digest of the request under a version in the file.
    pub fn is_of_request(&self, digest: &[u8], fingerprint: &[u8; 32]) -> bool {
        let mut versions = self.versions.keys();
        versions.any(|version| {
            let own = self.digest_request(*version, fingerprint);
            own.is_some_and(|own| own[..].ct_eq(digest).into())
        })
    }

    /// Returns the digests of an imported API key under every version in the file. The API key itself does not show under which
    /// version its digest is stored.
    pub fn digests_of_import(&self, text: &ImportHash) -> impl Iterator<Item = Digest> {
        let versions = self.versions.keys();
        versions.filter_map(|version| self.digest_import(*version, text))
    }

    /// Returns whether `digest` is the digest of `secret`; `None` if the file does not have the version.
    ///
    /// The comparison takes constant time.
    pub fn proves(&self, digest: &Digest, id: KeyId, secret: &SecretBytes) -> Option<bool> {
        let offered = self.digest(digest.pepper, id, secret)?;
        Some(offered.mac.ct_eq(&digest.mac).into())
    }

    /// Returns the value by which the store recognizes this version of the pepper; `None` if the file does not have the version.
    pub fn canary(&self, version: u32) -> Option<[u8; 32]> {
        let mut mac = self.versions.get(&version)?.clone();
        mac.update(b"canary");
        Some(mac.finalize().into_bytes().into())
    }
}

/// Syncs the folder of a new file, so that the name of the file is durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

pub(super) fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

fn io_error(path: &Path, verb: &'static str, source: io::Error) -> PepperFileError {
    PepperFileError::Io {
        path: path.to_owned(),
        verb,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn id() -> KeyId {
        KeyId::from_bytes([9; 16])
    }

    #[test]
    fn a_created_pepper_file_can_be_loaded_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pepper.toml");
        assert!(Peppers::load(&path).unwrap().is_none());

        let made = Peppers::create(&path).unwrap();
        let read = Peppers::load(&path).unwrap().unwrap();
        assert_eq!(made.canary(1), read.canary(1));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(
            Peppers::create(&path).is_err(),
            "a pepper is never overwritten"
        );
    }

    #[test]
    fn an_error_about_an_invalid_file_contains_no_part_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pepper.toml");
        for text in [
            "",
            "canary-text",
            "[peppers]\n",
            "[peppers]\n1 = \"c0ffee\"\n",
            "[peppers]\nx = \"00\"\n",
        ] {
            fs::write(&path, text).unwrap();
            let error = Peppers::load(&path).err().unwrap().to_string();
            assert!(
                error.contains("[peppers]")
                    && !error.contains("c0ffee")
                    && !error.contains("canary-text")
            );
        }
    }

    #[test]
    fn only_the_right_secret_of_the_right_key_under_the_right_pepper_proves() {
        let (peppers, secret) = (Peppers::for_test(1), SecretBytes::new([5; 32]));
        let digest = peppers.digest(1, id(), &secret).unwrap();
        assert_eq!(peppers.proves(&digest, id(), &secret), Some(true));
        assert_eq!(
            peppers.proves(&digest, id(), &SecretBytes::new([6; 32])),
            Some(false)
        );
        assert_eq!(
            peppers.proves(&digest, KeyId::from_bytes([8; 16]), &secret),
            Some(false)
        );
        assert_eq!(
            Peppers::for_test(2).proves(&digest, id(), &secret),
            Some(false)
        );
        let later = Digest {
            pepper: 2,
            ..digest
        };
        assert_eq!(peppers.proves(&later, id(), &secret), None);
    }

    #[test]
    fn the_digest_is_hmac_sha256_of_label_id_and_secret() {
        // Computed with Python: hmac.new(bytes([1])*32, b"verify"+bytes([9])*16+bytes([5])*32, "sha256").
        let digest = Peppers::for_test(1)
            .digest(1, id(), &SecretBytes::new([5; 32]))
            .unwrap();
        assert_eq!(digest.mac[..4], HMAC_HEAD);
    }

    const HMAC_HEAD: [u8; 4] = [0x26, 0x52, 0xae, 0x9f];
}
