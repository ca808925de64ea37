//! The addresses of servers, and how they are reached: as `http`, `https` or a Unix socket.

use std::borrow::Cow;
use std::error::Error as _;
use std::ffi::OsString;
use std::fs;
use std::path::{self, Path};

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};

use super::Connection;
use crate::cli::failure::Failure;
use crate::cli::redact;

pub(super) const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7700";
/// The scheme of a Unix socket in gRPC's names.
pub(super) const UNIX: &str = "unix:";

impl Connection {
    /// The address of the server, for people and for a context.
    pub(in crate::cli) fn endpoint_name(&self) -> Result<String, Failure> {
        let text = self.one_endpoint()?;
        Ok(name_of(&text, &self.endpoint(&text)?))
    }

    /// The scheme, the host and the port of the server's gRPC address; `None` for a Unix socket.
    pub(in crate::cli) fn server_address(
        &self,
    ) -> Result<Option<(&'static str, String, u16)>, Failure> {
        let text = self.one_endpoint()?;
        let endpoint = self.endpoint(&text)?;
        if text.starts_with(UNIX) {
            return Ok(None);
        }
        let url = endpoint.uri();
        let host = url.host().unwrap_or_default();
        let host = host.trim_matches(['[', ']']).to_owned();
        let (scheme, port) = match url.scheme_str() {
            Some("https") => ("https", 443),
            _ => ("http", 80),
        };
        Ok(Some((scheme, host, url.port_u16().unwrap_or(port))))
    }

    /// The values of --endpoint, or its default.
    pub(super) fn endpoints(&self) -> Vec<Cow<'_, str>> {
        let given = self.endpoint.iter().filter(|text| !text.is_empty());
        let given: Vec<_> = given.map(|text| text.to_string_lossy()).collect();
        if given.is_empty() {
            vec![Cow::Borrowed(DEFAULT_ENDPOINT)]
        } else {
            given
        }
    }

    /// The only value of --endpoint.
    pub(super) fn one_endpoint(&self) -> Result<Cow<'_, str>, Failure> {
        let mut endpoints = self.endpoints();
        // The path of a socket may have a comma.
        let is_list = |text: &str| text.contains(',') && !text.starts_with(UNIX);
        match endpoints.pop() {
            Some(endpoint) if endpoints.is_empty() && !is_list(&endpoint) => Ok(endpoint),
            _ => Err(Failure::usage(
                "--endpoint or CLAVIGER_ENDPOINT: this command calls one server, but several are given",
            )
            .hint("give one endpoint; only `claviger canary` takes several")),
        }
    }

    pub(super) fn endpoint(&self, text: &str) -> Result<Endpoint, Failure> {
        if let Some(path) = text.strip_prefix(UNIX) {
            let no_socket = || {
                Failure::usage(
                    "--endpoint must name the path of a socket, such as `unix:/run/claviger.sock`",
                )
            };
            if path.trim_start_matches('/').is_empty() || redact::looks_like_key(path) {
                return Err(no_socket());
            }
            return Endpoint::from_shared(text.to_owned()).map_err(|_| no_socket());
        }
        // An API key parses as the name of a host, and later errors would repeat it.
        if !is_host_name(text) && redact::looks_like_key(text) {
            return Err(Failure::usage(
                "--endpoint must look like `http://HOST:PORT` or `HOST:PORT`, but the value looks like an API key",
            ));
        }
        let url = url(text).ok_or_else(|| {
            let text = redact::mask_keys(text, &[]);
            Failure::usage(format!(
                "`{text}` is not an endpoint: it must look like `http://HOST:PORT`, `HOST:PORT` or `unix:PATH`"
            ))
        })?;
        if url
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(Failure::usage(
                "--endpoint must have no user and no password: they would be shown in errors",
            ));
        }
        let is_https = url.scheme_str() == Some("https");
        let endpoint = Endpoint::from(url);
        if !is_https {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new().with_enabled_roots();
        if let Some(pem) = read_pem(self.ca_file.as_ref(), "--ca-file", "CERTIFICATE")? {
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        let certificate = read_pem(self.client_cert.as_ref(), "--client-cert", "CERTIFICATE")?;
        let key = read_pem(self.client_key.as_ref(), "--client-key", "PRIVATE KEY")?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            (None, None) => {}
            _ => {
                return Err(Failure::usage(
                    "--client-cert and --client-key must be given together",
                ));
            }
        }
        endpoint.tls_config(tls).map_err(|error| {
            let why = error
                .source()
                .map_or_else(|| error.to_string(), ToString::to_string);
            Failure::usage(format!("cannot use https: {why}"))
                .hint("check that --client-key belongs to --client-cert, and is not encrypted")
        })
    }
}

/// Reads a file of PEM blocks, of which one must have a label that ends like this. An empty path counts as unset.
fn read_pem(path: Option<&OsString>, flag: &str, label: &str) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = path.filter(|path| !path.is_empty()).map(Path::new) else {
        return Ok(None);
    };
    let pem = fs::read(path).map_err(|error| {
        Failure::usage(format!("{flag}: cannot read {}: {error}", path.display()))
    })?;
    let has_label = |line: &[u8]| {
        line.starts_with(b"-----BEGIN ")
            && line
                .trim_ascii_end()
                .ends_with(format!("{label}-----").as_bytes())
    };
    if !pem.split(|byte| *byte == b'\n').any(has_label) {
        return Err(Failure::usage(format!(
            "{flag}: {} is not a PEM file with a {}",
            path.display(),
            label.to_lowercase()
        )));
    }
    Ok(Some(pem))
}

/// The address of a Unix socket with an absolute path; another address as it is.
pub(in crate::cli) fn absolute_socket(text: &str) -> String {
    let absolute = text
        .strip_prefix(UNIX)
        .and_then(|path| path::absolute(path).ok());
    absolute.map_or_else(
        || text.to_owned(),
        |path| format!("{UNIX}{}", path.display()),
    )
}

/// The address of a server, for people.
pub(super) fn name_of(text: &str, endpoint: &Endpoint) -> String {
    if text.starts_with(UNIX) {
        return text.to_owned();
    }
    let url = endpoint.uri().to_string();
    url.trim_end_matches('/').to_owned()
}

/// Whether the text is a host name with a domain, such as `keys.internal.example`.
fn is_host_name(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    text.contains('.') && text.chars().all(is_name)
}

fn url(text: &str) -> Option<Uri> {
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url: Uri = url.parse().ok()?;
    let is_known = matches!(url.scheme_str(), Some("http" | "https"));
    (is_known && url.host().is_some_and(|host| !host.is_empty())).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::connect::read_key;
    use crate::cli::connect::tests::connection;

    #[test]
    fn an_endpoint_needs_no_scheme() {
        for (text, is) in [
            ("127.0.0.1:7700", Some("http://127.0.0.1:7700/")),
            ("localhost:1", Some("http://localhost:1/")),
            ("[::1]:7700", Some("http://[::1]:7700/")),
            ("https://keys.example", Some("https://keys.example/")),
            ("ftp://keys.example", None),
            ("http://", None),
            ("not an address", None),
            ("", None),
        ] {
            assert_eq!(
                url(text).map(|url| url.to_string()).as_deref(),
                is,
                "{text}"
            );
        }
    }

    #[test]
    fn an_api_key_in_the_place_of_an_address_or_a_file_is_not_repeated() {
        for key in [
            "demo_live_4fzs3fzs3fzs3fzs3fzs3fz",
            "TtgGcQFq.s3fzs3fzs3fzs3fz",
        ] {
            let failure = connection("--endpoint", key.into())
                .server_address()
                .unwrap_err();
            assert!(failure.is_usage());
            assert_eq!(
                failure.to_string(),
                "error: --endpoint must look like `http://HOST:PORT` or `HOST:PORT`, but the value looks like an API key"
            );
            let failure = read_key(Path::new(key), "--key-file").unwrap_err();
            assert_eq!(
                failure.to_string(),
                "error: --key-file must name a file, but the value looks like an API key"
            );
            let text = format!("Bearer {key}");
            let failure = connection("--endpoint", text.into())
                .server_address()
                .unwrap_err();
            assert!(!failure.to_string().contains("s3fz"), "{failure}");
        }
        for address in [
            "keys.internal.example.com",
            "claviger-server-production:7700",
        ] {
            assert!(
                connection("--endpoint", address.into())
                    .server_address()
                    .is_ok()
            );
        }
        let failure = read_key(Path::new("/absent/demo.key"), "--key-file").unwrap_err();
        assert!(
            failure.to_string().contains("/absent/demo.key"),
            "{failure}"
        );
    }
}
