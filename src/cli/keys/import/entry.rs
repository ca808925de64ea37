//! The entries of an import: the fields of a row, the defaults from the flags, and the message to send.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use clap::ValueEnum as _;
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::cli::flags::{self, Level};
use crate::pb::claviger::v1::ImportEntry;
use crate::pb::claviger::v1::import_entry::Secret;

/// The longest unknown field name that an error shows. A longer one may be a misplaced API key: API keys that can be imported
/// have at least 22 characters.
const MAX_SHOWN_NAME: usize = 21;

/// A column of a CSV file, or a field of a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    PlainKey,
    Sha256,
    Partner,
    Project,
    Level,
    Environment,
    Name,
    ExternalId,
    Scopes,
    FullAccess,
    ExpireTime,
    Labels,
    AllowedCidrs,
}

const FIELDS: [(&str, Field); 13] = [
    ("plain_key", Field::PlainKey),
    ("sha256", Field::Sha256),
    ("partner", Field::Partner),
    ("project", Field::Project),
    ("level", Field::Level),
    ("environment", Field::Environment),
    ("name", Field::Name),
    ("external_id", Field::ExternalId),
    ("scopes", Field::Scopes),
    ("full_access", Field::FullAccess),
    ("expire_time", Field::ExpireTime),
    ("labels", Field::Labels),
    ("allowed_cidrs", Field::AllowedCidrs),
];

impl Field {
    /// Returns the field with this name, or an error that lists the names. `index` is the position of the field.
    pub(super) fn find(name: &str, index: usize) -> Result<Self, String> {
        if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
            return Ok(*field);
        }
        let known: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        let known = known.join(", ");
        if name.chars().count() > MAX_SHOWN_NAME {
            return Err(format!(
                "the name of field {} is not known, and not shown because it may be an API key; known are {known}",
                index + 1
            ));
        }
        Err(format!("`{name}` is not known; known are {known}"))
    }

    /// The name of the column or JSON field.
    pub(super) fn name(self) -> &'static str {
        FIELDS
            .iter()
            .find_map(|(name, field)| (*field == self).then_some(*name))
            .unwrap_or_default()
    }
}

/// The content of a field, parsed by the rules of its format. An error never repeats the content.
pub(super) trait Cell {
    fn string(self) -> Result<String, &'static str>;
    fn list(self) -> Result<Vec<String>, &'static str>;
    fn flag(self) -> Result<bool, &'static str>;
    fn pairs(self) -> Result<BTreeMap<String, String>, &'static str>;
}

/// The fields that a row of the file sets, or that the flags set as defaults.
#[derive(Clone, Default)]
pub(super) struct Row {
    pub(super) plain_key: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) partner: Option<String>,
    pub(super) project: Option<String>,
    pub(super) level: Option<i32>,
    pub(super) environment: Option<String>,
    pub(super) name: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) full_access: Option<bool>,
    pub(super) expire_time: Option<Timestamp>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) allowed_cidrs: Option<Vec<String>>,
}

/// An entry to send to the server.
pub(super) struct Entry {
    pub(super) message: ImportEntry,
    pub(super) digest: KeyDigest,
}

/// The first eight bytes of the SHA-256 of an API key, by which duplicates within one file are found.
pub(super) type KeyDigest = u64;

impl Row {
    /// Sets a field. The error starts with the name of the field.
    pub(super) fn set(&mut self, field: Field, cell: impl Cell) -> Result<(), String> {
        self.set_value(field, cell)
            .map_err(|why| format!("{}: {why}", field.name()))
    }

    fn set_value(&mut self, field: Field, cell: impl Cell) -> Result<(), &'static str> {
        match field {
            Field::PlainKey => self.plain_key = Some(cell.string()?),
            Field::Sha256 => self.sha256 = Some(cell.string()?),
            Field::Partner => self.partner = Some(cell.string()?),
            Field::Project => self.project = Some(cell.string()?),
            Field::Level => self.level = Some(level(&cell.string()?)?),
            Field::Environment => self.environment = Some(cell.string()?),
            Field::Name => self.name = Some(cell.string()?),
            Field::ExternalId => self.external_id = Some(cell.string()?),
            Field::Scopes => self.scopes = Some(cell.list()?),
            Field::FullAccess => self.full_access = Some(cell.flag()?),
            Field::ExpireTime => {
                let time = flags::time(&cell.string()?);
                self.expire_time =
                    Some(time.map_err(|_| "must be a time such as `2030-01-31T12:00:00Z`")?);
            }
            Field::Labels => self.labels = Some(cell.pairs()?),
            Field::AllowedCidrs => self.allowed_cidrs = Some(cell.list()?),
        }
        Ok(())
    }

    /// Converts the row to an entry, with `defaults` for the fields that it does not set.
    pub(super) fn into_entry(self, defaults: &Self) -> Result<Entry, String> {
        let (secret, digest) = match (self.plain_key, self.sha256) {
            (Some(plain_key), None) => {
                let digest = digest_of(&plain_key);
                (Secret::PlainKey(plain_key), digest)
            }
            (None, Some(hash)) => {
                let digest = first_eight_bytes(&decode_sha256(&hash)?);
                (Secret::Sha256(hash), digest)
            }
            (Some(_), Some(_)) => {
                return Err("plain_key: set either `plain_key` or `sha256`, not both".to_owned());
            }
            (None, None) => {
                return Err("plain_key: is required: set either `plain_key` or `sha256`".to_owned());
            }
        };
        // Scopes and full access belong together: a row that sets one of them does not get the default of the other.
        let full_access = match (self.full_access, &self.scopes) {
            (None, None) => defaults.full_access.unwrap_or_default(),
            (own, _) => own.unwrap_or_default(),
        };
        let scopes = match self.scopes {
            None if !full_access => defaults.scopes.clone().unwrap_or_default(),
            scopes => scopes.unwrap_or_default(),
        };
        // So do the project and the level.
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
                external_id: self.external_id.unwrap_or_default(),
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

fn level(name: &str) -> Result<i32, &'static str> {
    let short = name.strip_prefix("KEY_LEVEL_").unwrap_or(name);
    Level::from_str(short, true)
        .map(Level::to_proto)
        .map_err(|_| "must be `partner` or `project`")
}

/// Decodes a SHA-256 from hexadecimal digits, or from base64 in either alphabet.
fn decode_sha256(hash: &str) -> Result<[u8; 32], String> {
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
        .ok_or_else(|| "sha256: must be 64 hexadecimal digits, or 32 bytes in base64".to_owned())
}

/// The first eight bytes of the SHA-256 of a text.
pub(super) fn digest_of(text: &str) -> KeyDigest {
    first_eight_bytes(&Sha256::digest(text.as_bytes()))
}

fn first_eight_bytes(digest: &[u8]) -> KeyDigest {
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
