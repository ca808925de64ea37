//! What an entry of an import says, and what is said in its place by the flags.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use clap::ValueEnum as _;
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::pb::claviger::v1::ImportEntry;
use crate::pb::claviger::v1::import_entry::Secret;

use crate::cli::flags::{self, Level};

/// No text as long as this is shown where a name should stand: it may be a key that has slipped. Keys that can be imported
/// have 22 characters at least.
const LONGEST_NAME: usize = 21;

/// A column of a CSV file, or a field of a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Text,
    Sha256,
    Partner,
    Project,
    Level,
    Environment,
    Name,
    Scopes,
    FullAccess,
    ExpireTime,
    Labels,
    AllowedCidrs,
}

const FIELDS: [(&str, Field); 12] = [
    ("text", Field::Text),
    ("sha256", Field::Sha256),
    ("partner", Field::Partner),
    ("project", Field::Project),
    ("level", Field::Level),
    ("environment", Field::Environment),
    ("name", Field::Name),
    ("scopes", Field::Scopes),
    ("full_access", Field::FullAccess),
    ("expire_time", Field::ExpireTime),
    ("labels", Field::Labels),
    ("allowed_cidrs", Field::AllowedCidrs),
];

impl Field {
    /// The field of this name, or a sentence that names what there is.
    pub(super) fn find(name: &str, place: usize) -> Result<Self, String> {
        if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
            return Ok(*field);
        }
        let known: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        let known = known.join(", ");
        if name.chars().count() > LONGEST_NAME {
            return Err(format!(
                "the name of its field {} is not known; it is not shown, as it may be a key. Known are {known}",
                place + 1
            ));
        }
        Err(format!("`{name}` is not known; known are {known}"))
    }

    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        FIELDS
            .iter()
            .find_map(|(name, field)| (*field == self).then_some(*name))
            .unwrap_or_default()
    }
}

/// The content of a field, in the manner of its format. A complaint never repeats it.
pub(super) trait Cell {
    fn word(self) -> Result<String, &'static str>;
    fn list(self) -> Result<Vec<String>, &'static str>;
    fn flag(self) -> Result<bool, &'static str>;
    fn pairs(self) -> Result<BTreeMap<String, String>, &'static str>;
}

/// What is said by an entry, or by the flags for those that do not say it.
#[derive(Clone, Default)]
pub(super) struct Said {
    pub(super) text: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) partner: Option<String>,
    pub(super) project: Option<String>,
    pub(super) level: Option<i32>,
    pub(super) environment: Option<String>,
    pub(super) name: Option<String>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) full_access: Option<bool>,
    pub(super) expire_time: Option<Timestamp>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) allowed_cidrs: Option<Vec<String>>,
}

/// An entry to send.
pub(super) struct Entry {
    pub(super) message: ImportEntry,
    pub(super) digest: TextDigest,
}

/// The first eight bytes of a text's SHA-256, by which it is known again within one file.
pub(super) type TextDigest = u64;

impl Said {
    /// Takes over what stands in a field.
    pub(super) fn set(&mut self, field: Field, cell: impl Cell) -> Result<(), String> {
        self.put(field, cell)
            .map_err(|why| format!("{}: {why}", field.name()))
    }

    fn put(&mut self, field: Field, cell: impl Cell) -> Result<(), &'static str> {
        match field {
            Field::Text => self.text = Some(cell.word()?),
            Field::Sha256 => self.sha256 = Some(cell.word()?),
            Field::Partner => self.partner = Some(cell.word()?),
            Field::Project => self.project = Some(cell.word()?),
            Field::Level => self.level = Some(level(&cell.word()?)?),
            Field::Environment => self.environment = Some(cell.word()?),
            Field::Name => self.name = Some(cell.word()?),
            Field::Scopes => self.scopes = Some(cell.list()?),
            Field::FullAccess => self.full_access = Some(cell.flag()?),
            Field::ExpireTime => {
                let time = flags::time(&cell.word()?);
                self.expire_time =
                    Some(time.map_err(|_| "a time looks like `2030-01-31T12:00:00Z`")?);
            }
            Field::Labels => self.labels = Some(cell.pairs()?),
            Field::AllowedCidrs => self.allowed_cidrs = Some(cell.list()?),
        }
        Ok(())
    }

    /// The entry as it is sent, with `defaults` for what it does not say.
    pub(super) fn entry(self, defaults: &Self) -> Result<Entry, String> {
        let (secret, digest) = match (self.text, self.sha256) {
            (Some(text), None) => {
                let digest = beginning(&Sha256::digest(text.as_bytes()));
                (Secret::PlainKey(text), digest)
            }
            (None, Some(hash)) => {
                let digest = beginning(&decoded(&hash)?);
                (Secret::Sha256(hash), digest)
            }
            (Some(_), Some(_)) => return Err("it has both `text` and `sha256`".to_owned()),
            (None, None) => return Err("it has neither `text` nor `sha256`".to_owned()),
        };
        // Scopes and full access are one thing: whoever has the one shall not get the other by default.
        let full_access = match (self.full_access, &self.scopes) {
            (None, None) => defaults.full_access.unwrap_or_default(),
            (said, _) => said.unwrap_or_default(),
        };
        let scopes = match self.scopes {
            None if !full_access => defaults.scopes.clone().unwrap_or_default(),
            scopes => scopes.unwrap_or_default(),
        };
        // So are the project and the level: an entry that names one of them is not moved to another by default.
        let project = match (self.project, self.level) {
            (None, None) => defaults.project.clone().unwrap_or_default(),
            (project, _) => project.unwrap_or_default(),
        };
        let level = match self.level {
            None if project.is_empty() => defaults.level.unwrap_or_default(),
            level => level.unwrap_or_default(),
        };
        let or = |own: Option<String>, default: &Option<String>| {
            own.or_else(|| default.clone()).unwrap_or_default()
        };
        Ok(Entry {
            message: ImportEntry {
                secret: Some(secret),
                partner: or(self.partner, &defaults.partner),
                project,
                level,
                environment: or(self.environment, &defaults.environment),
                name: self.name.unwrap_or_default(),
                scopes,
                full_access,
                expire_time: self.expire_time.or(defaults.expire_time),
                labels: self
                    .labels
                    .or_else(|| defaults.labels.clone())
                    .unwrap_or_default(),
                allowed_cidrs: self
                    .allowed_cidrs
                    .or_else(|| defaults.allowed_cidrs.clone())
                    .unwrap_or_default(),
            },
            digest,
        })
    }
}

fn level(word: &str) -> Result<i32, &'static str> {
    let short = word.strip_prefix("KEY_LEVEL_").unwrap_or(word);
    Level::from_str(short, true)
        .map(Level::on_wire)
        .map_err(|_| "it is `partner` or `project`")
}

/// The bytes of a SHA-256, by the two alphabets of base64 or in hexadecimal digits.
fn decoded(hash: &str) -> Result<[u8; 32], String> {
    let padding = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(false);
    let in_hex = || {
        let digit = |c: u8| char::from(c).to_digit(16);
        let pairs = hash.as_bytes().chunks(2).map(|pair| match *pair {
            [high, low] => Some((digit(high)? * 16 + digit(low)?) as u8),
            _ => None,
        });
        pairs.collect::<Option<Vec<u8>>>()
    };
    let bytes = match hash.len() {
        64 => in_hex(),
        _ => [STANDARD, URL_SAFE]
            .iter()
            .find_map(|alphabet| GeneralPurpose::new(alphabet, padding).decode(hash).ok()),
    };
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            "sha256: it is neither 64 hexadecimal digits nor 32 bytes in base64".to_owned()
        })
}

fn beginning(digest: &[u8]) -> TextDigest {
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
