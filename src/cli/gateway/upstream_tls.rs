//! TLS from a gateway to claviger: what the gateway verifies, and what it proves itself with.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::failure::Failure;

/// The flags for a claviger that serves TLS.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_field_names,
    reason = "the flags have the names of the fields"
)]
pub(super) struct UpstreamTlsFlags {
    /// The file with the PEM certificates of the issuers of claviger's certificate, where the gateway reads it. With this flag the
    /// gateway asks over TLS, and verifies claviger's certificate and the host of --claviger-address in it.
    #[arg(long, value_name = "FILE")]
    claviger_ca: Option<PathBuf>,
    /// The file with the gateway's client certificate in PEM, where the gateway reads it, if claviger requires one.
    #[arg(
        long,
        value_name = "FILE",
        requires = "claviger_client_key",
        requires = "claviger_ca"
    )]
    claviger_client_cert: Option<PathBuf>,
    /// The file with the private key of --claviger-client-cert, in PEM.
    #[arg(long, value_name = "FILE", requires = "claviger_client_cert")]
    claviger_client_key: Option<PathBuf>,
}

/// How a gateway connects to a claviger that serves TLS. The paths are absolute.
pub(super) struct UpstreamTls {
    /// The file with the certificates of issuers that the gateway trusts.
    pub(super) ca: String,
    /// The gateway's own certificate, if it has one.
    pub(super) client_certificate: Option<ClientCertificate>,
}

/// The files of a client certificate.
pub(super) struct ClientCertificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl UpstreamTlsFlags {
    /// What the flags say; `None` without TLS.
    pub(super) fn read(self) -> Result<Option<UpstreamTls>, Failure> {
        let Self {
            claviger_ca,
            claviger_client_cert,
            claviger_client_key,
        } = self;
        let Some(ca) = claviger_ca else {
            return Ok(None);
        };
        let client_certificate = match claviger_client_cert.zip(claviger_client_key) {
            None => None,
            Some((certificate, key)) => Some(ClientCertificate {
                certificate: file("--claviger-client-cert", &certificate)?,
                key: file("--claviger-client-key", &key)?,
            }),
        };
        Ok(Some(UpstreamTls {
            ca: file("--claviger-ca", &ca)?,
            client_certificate,
        }))
    }
}

/// The path of a file on the gateway's machine, which may be another one, so that the file need not exist here. A relative path
/// is relative to the working directory, as in other flags: each gateway would take it for something else.
fn file(flag: &str, path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("{flag}: {}: {error}", path.display())))?;
    // Inside the quotes of a configuration, all other characters stand for themselves.
    let has_meaning = |c: char| c.is_control() || "\"'`\\${}".contains(c);
    match absolute.into_os_string().into_string() {
        Ok(text) if !text.contains(has_meaning) => Ok(text),
        _ => Err(Failure::usage(format!(
            "{flag}: the path must be UTF-8 without quotes, backslashes, `$`, braces and control characters, which have a \
             meaning in configurations: rename the file"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_ends_no_statement() {
        let here = std::env::current_dir().unwrap();
        for (path, is) in [
            ("/etc/ca.pem", "/etc/ca.pem".to_owned()),
            ("a b;#é.pem", format!("{}/a b;#é.pem", here.display())),
        ] {
            assert_eq!(file("--claviger-ca", Path::new(path)).unwrap(), is);
        }
        for wrong in ["", "a\"b", "a'b", "a`b", "a\\b", "$a", "{a", "a}", "a\nb"] {
            let refusal = file("--claviger-ca", Path::new(wrong)).unwrap_err();
            assert!(refusal.to_string().contains("--claviger-ca"), "{wrong}");
        }
    }
}
