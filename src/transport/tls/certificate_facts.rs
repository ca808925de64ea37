//! What certificates say, for those who examine a configuration.

use std::ops::Range;
use std::path::Path;

use super::credentials::{CertificateError, certificates};
use super::validity::{Elements, INTEGER, SEQUENCE, VERSION, validity};
use crate::domain::time::Timestamp;

/// The optional unique ids of the issuer and of the subject.
const UNIQUE_IDS: [u8; 2] = [0x81, 0x82];
const EXTENSIONS: u8 = 0xa3;
const OBJECT_ID: u8 = 0x06;
const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;

/// The object ids of the extension `subjectAltName` and of the part `commonName` of a name.
const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 0x1d, 0x11];
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The whole certificate, in DER.
    pub der: Vec<u8>,
    /// From when to when it is valid.
    pub validity: Range<Timestamp>,
    /// The name of its issuer, in DER.
    pub issuer: Vec<u8>,
    /// Its own name, in DER.
    pub subject: Vec<u8>,
    /// Whether it names hosts or addresses, which clients compare with the one that they connect to.
    pub has_names: bool,
}

impl CertificateFacts {
    /// Reads the certificates of a file. Certificates whose fields cannot be read are left out.
    ///
    /// # Errors
    /// If the file cannot be read, or contains no certificate.
    pub fn of_file(flag: &'static str, path: &Path) -> Result<Vec<Self>, CertificateError> {
        let contents = std::fs::read(path).map_err(|source| CertificateError::Read {
            flag,
            path: path.to_owned(),
            source,
        })?;
        let certificates = certificates(flag, path, &contents)?;
        Ok(certificates
            .iter()
            .filter_map(|der| Self::of(der))
            .collect())
    }

    /// Reads a certificate (RFC 5280, section 4.1); `None` if it is not complete.
    fn of(der: &[u8]) -> Option<Self> {
        let mut fields = Elements(Elements(Elements(der).next(SEQUENCE)?).next(SEQUENCE)?);
        let _version = fields.next(VERSION);
        let _serial_number = fields.next(INTEGER)?;
        let _signature_algorithm = fields.next(SEQUENCE)?;
        let issuer = fields.next(SEQUENCE)?.to_vec();
        let _validity = fields.next(SEQUENCE)?;
        let subject = fields.next(SEQUENCE)?.to_vec();
        let _public_key = fields.next(SEQUENCE)?;
        for id in UNIQUE_IDS {
            let _ = fields.next(id);
        }
        let mut extensions = Elements(match fields.next(EXTENSIONS) {
            Some(extensions) => Elements(extensions).next(SEQUENCE)?,
            None => &[],
        });
        let ids = std::iter::from_fn(|| Elements(extensions.next(SEQUENCE)?).next(OBJECT_ID));
        let has_names = ids.into_iter().any(|id| id == ALTERNATIVE_NAMES);
        Some(Self {
            der: der.to_vec(),
            validity: validity(der)?,
            issuer,
            subject,
            has_names,
        })
    }

    /// The common name of the issuer, for people; empty if it has none.
    pub fn issuer_name(&self) -> String {
        let mut parts = Elements(&self.issuer);
        std::iter::from_fn(|| parts.next(SET))
            .find_map(|part| {
                let mut part = Elements(Elements(part).next(SEQUENCE)?);
                let is_common_name = part.next(OBJECT_ID)? == COMMON_NAME;
                let text = part
                    .next(UTF8_STRING)
                    .or_else(|| part.next(PRINTABLE_STRING))?;
                is_common_name.then(|| String::from_utf8_lossy(text).into_owned())
            })
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = u8::try_from(contents.len()).unwrap();
        [&[tag, length][..], contents].concat()
    }

    fn name(common_name: &str) -> Vec<u8> {
        let part = [
            element(OBJECT_ID, &COMMON_NAME),
            element(UTF8_STRING, common_name.as_bytes()),
        ];
        element(SET, &element(SEQUENCE, &part.concat()))
    }

    fn certificate(extension: &[u8]) -> Vec<u8> {
        let time = element(0x17, b"491231235959Z");
        let extension = element(SEQUENCE, &element(OBJECT_ID, extension));
        let fields = [
            element(INTEGER, &[7]),
            element(SEQUENCE, &[5]),
            element(SEQUENCE, &name("ca")),
            element(SEQUENCE, &[&time[..], &time].concat()),
            element(SEQUENCE, &name("server")),
            element(SEQUENCE, &[1]),
            element(EXTENSIONS, &element(SEQUENCE, &extension)),
        ];
        // The length of the outer elements needs two bytes.
        let long = |contents: &[u8]| {
            let length = u8::try_from(contents.len()).unwrap();
            [&[SEQUENCE, 0x81, length][..], contents].concat()
        };
        long(&long(&fields.concat()))
    }

    /// Seen red with the subject in place of the issuer, and with any extension.
    #[test]
    fn the_names_of_a_certificate_are_read() {
        let facts = CertificateFacts::of(&certificate(&ALTERNATIVE_NAMES)).unwrap();
        assert_eq!(facts.issuer_name(), "ca");
        assert_eq!(facts.subject, name("server"));
        assert!(facts.has_names);
        let facts = CertificateFacts::of(&certificate(&[0x55, 0x1d, 0x13])).unwrap();
        assert!(!facts.has_names);
    }

    #[test]
    fn an_incomplete_certificate_has_no_facts() {
        let whole = certificate(&ALTERNATIVE_NAMES);
        for length in 0..whole.len() {
            assert_eq!(CertificateFacts::of(&whole[..length]), None, "{length}");
        }
    }
}
