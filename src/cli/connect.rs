//! How the server is reached, and with whose key.

use std::borrow::Cow;
use std::env;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Uri};

use super::client::Client;
use super::failure::Failure;
use super::flags;
use super::key_text::KeyText;
use super::link::Link;

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7700";
const DEFAULT_TIMEOUT: &str = "10s";

/// How to reach the server.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    // These are flags of `claviger serve` as well. So that no variable of a client stops a server, those with one take
    // any text at all here, and `connect` judges it; an empty one is as good as none.
    /// Where the server answers gRPC: `http://HOST:PORT`, `https://HOST:PORT`, or `HOST:PORT` for http.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_ENDPOINT",
        value_name = "URL",
        default_value = DEFAULT_ENDPOINT,
        help_heading = "Connection"
    )]
    endpoint: OsString,
    /// The file with the PEM certificates to trust with https.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_CA_FILE",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    ca_file: Option<OsString>,
    // Its id is not `key`: a command that has an argument of that id would get, or give, the key of the wrong one.
    /// The caller's own key. Better leave it in the environment variable `CLAVIGER_KEY` or in a --key-file: what stands on
    /// a command line is seen by every user of the machine in the list of processes, and stays in the shell's history.
    #[arg(
        id = "caller_key",
        long = "key",
        global = true,
        value_name = "KEY",
        value_parser = clap::value_parser!(KeyText),
        conflicts_with = "key_file",
        help_heading = "Connection"
    )]
    key: Option<KeyText>,
    /// The file with the caller's own key; one newline at its end is not part of it. Wins over `CLAVIGER_KEY`, and
    /// `CLAVIGER_KEY` over `CLAVIGER_KEY_FILE`.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    key_file: Option<PathBuf>,
    /// How long to wait for each answer.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_TIMEOUT",
        value_name = "SPAN",
        default_value = DEFAULT_TIMEOUT,
        help_heading = "Connection"
    )]
    timeout: OsString,
    /// Print the response message as JSON, and errors too: the proto's names, times as RFC 3339.
    #[arg(long, global = true, help_heading = "Connection")]
    pub(super) json: bool,
}

impl Connection {
    /// Reaches the server.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        // What is wrong here is said before a server is looked for.
        let (key, source) = self.key()?;
        let authorization = authorization(&key, &source)?;
        let endpoint = self.endpoint()?;
        let timeout = timeout(&text_or(&self.timeout, DEFAULT_TIMEOUT))
            .map_err(|why| Failure::usage(format!("--timeout or CLAVIGER_TIMEOUT: {why}")))?;
        let link = Link {
            endpoint: endpoint.uri().to_string().trim_end_matches('/').to_owned(),
            key_source: source.name(),
            timeout,
        };

        let channel = tokio::time::timeout(timeout, endpoint.connect())
            .await
            .map_err(|_| link.timeout(false))?
            .map_err(|error| link.unreachable(&error))?;
        Ok(Client::new(channel, authorization, link))
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let text = text_or(&self.endpoint, DEFAULT_ENDPOINT);
        let url = url(&text).ok_or_else(|| {
            Failure::usage(format!(
                "`{text}` is no endpoint: it looks like `http://HOST:PORT` or `HOST:PORT`"
            ))
        })?;
        let is_https = url.scheme_str() == Some("https");
        let endpoint = Endpoint::from(url);
        if !is_https {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new().with_enabled_roots();
        let ca_file = self.ca_file.as_ref().filter(|path| !path.is_empty());
        if let Some(path) = ca_file.map(Path::new) {
            let pem = fs::read(path).map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", path.display()))
            })?;
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        endpoint.tls_config(tls).map_err(|error| {
            let why = error
                .source()
                .map_or_else(|| error.to_string(), ToString::to_string);
            Failure::usage(format!("https cannot be used: {why}"))
        })
    }

    fn key(&self) -> Result<(KeyText, KeySource), Failure> {
        let source = KeySource::choose(
            self.key.is_some(),
            self.key_file.as_ref(),
            env::var_os("CLAVIGER_KEY").as_ref(),
            env::var_os("CLAVIGER_KEY_FILE").as_ref(),
        );
        let key = match &source {
            Some(KeySource::Flag) => self.key.clone(),
            Some(KeySource::Environment(text)) => Some(text.clone()),
            Some(KeySource::File(path)) => Some(read_key(path)?),
            None => None,
        };
        key.zip(source).ok_or_else(|| {
            Failure::usage("no key to call the server with").hint(
                "put your own key into the environment variable CLAVIGER_KEY, or name a file that holds it with \
                 --key-file; the first operator key is the one that `claviger serve --init` or `claviger bootstrap` \
                 made",
            )
        })
    }
}

/// Where the caller's key comes from.
#[derive(Debug)]
enum KeySource {
    Flag,
    File(PathBuf),
    Environment(KeyText),
}

impl KeySource {
    /// What was typed now counts more than what was exported some time. An empty variable is as good as none.
    fn choose(
        flag: bool,
        flag_file: Option<&PathBuf>,
        variable: Option<&OsString>,
        variable_file: Option<&OsString>,
    ) -> Option<Self> {
        if flag {
            return Some(Self::Flag);
        }
        if let Some(path) = flag_file {
            return Some(Self::File(path.clone()));
        }
        if let Some(text) = variable.filter(|text| !text.is_empty()) {
            let text = text.to_string_lossy().into_owned();
            return Some(Self::Environment(KeyText::from(text)));
        }
        variable_file
            .filter(|path| !path.is_empty())
            .map(|path| Self::File(PathBuf::from(path)))
    }

    fn name(&self) -> String {
        match self {
            Self::Flag => "--key".to_owned(),
            Self::File(path) => format!("the file {}", path.display()),
            Self::Environment(_) => "CLAVIGER_KEY".to_owned(),
        }
    }
}

fn read_key(path: &PathBuf) -> Result<KeyText, Failure> {
    File::open(path).and_then(KeyText::read).map_err(|error| {
        Failure::usage(format!(
            "cannot read the key from {}: {error}",
            path.display()
        ))
    })
}

fn authorization(key: &KeyText, source: &KeySource) -> Result<MetadataValue<Ascii>, Failure> {
    // The parser's own complaint is dropped, lest it tell what it found.
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {}", key.reveal()).parse().map_err(|_| {
            Failure::usage(format!(
                "what stands in {} cannot be a key: a key is one line of printable ASCII",
                source.name()
            ))
        })?;
    value.set_sensitive(true);
    Ok(value)
}

fn text_or<'a>(text: &'a OsStr, default: &'a str) -> Cow<'a, str> {
    if text.is_empty() {
        Cow::Borrowed(default)
    } else {
        text.to_string_lossy()
    }
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

fn timeout(text: &str) -> Result<Duration, String> {
    let span = flags::span(text)?;
    // The header that tells the server when to give up has no room for more than eight digits.
    if span.is_zero() || span > Duration::from_hours(24) {
        return Err("it is more than nothing and at most 24h".to_owned());
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

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

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        connection: Connection,
    }

    /// A flag's text is parsed as a variable's is, and needs no change of the test's own environment.
    fn connection(flag: &str, text: OsString) -> Connection {
        let line = ["claviger", "--key", "k", flag].map(OsString::from);
        let line = <Line as clap::Parser>::try_parse_from(line.into_iter().chain([text]));
        line.expect("any text will do").connection
    }

    #[tokio::test]
    async fn what_no_command_but_a_clients_needs_is_judged_by_those_alone() {
        let no_text = OsString::from_vec(vec![b'h', 0xff]);
        for flag in ["--endpoint", "--timeout"] {
            for text in [OsString::from("not one"), no_text.clone()] {
                let failure = connection(flag, text).connect().await.err().unwrap();
                assert!(failure.is_usage(), "{failure}");
            }
        }
        let absent = Connection {
            endpoint: OsString::from("https://localhost:1"),
            ..connection("--ca-file", OsString::from("/absent/ca.pem"))
        };
        let failure = absent.connect().await.err().unwrap();
        assert!(failure.is_usage(), "{failure}");
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        let empty = connection("--endpoint", OsString::new());
        let endpoint = empty.endpoint().unwrap();
        assert_eq!(endpoint.uri(), "http://127.0.0.1:7700/");
        assert_eq!(text_or(OsStr::new(""), DEFAULT_TIMEOUT), "10s");
        let empty = Connection {
            endpoint: OsString::from("https://localhost:1"),
            ..connection("--ca-file", OsString::new())
        };
        assert!(empty.endpoint().is_ok());
    }

    #[test]
    fn what_is_typed_counts_more_than_what_is_exported() {
        let file = PathBuf::from("typed");
        let key = OsString::from("exported");
        let key_file = OsString::from("exported.key");
        let empty = OsString::new();
        let name = |source: Option<KeySource>| source.map(|source| source.name());

        let all = KeySource::choose(true, Some(&file), Some(&key), Some(&key_file));
        assert_eq!(name(all).as_deref(), Some("--key"));
        let typed_file = KeySource::choose(false, Some(&file), Some(&key), Some(&key_file));
        assert_eq!(name(typed_file).as_deref(), Some("the file typed"));
        let exported = KeySource::choose(false, None, Some(&key), Some(&key_file));
        assert_eq!(name(exported).as_deref(), Some("CLAVIGER_KEY"));
        let exported_file = KeySource::choose(false, None, Some(&empty), Some(&key_file));
        assert_eq!(
            name(exported_file).as_deref(),
            Some("the file exported.key")
        );
        assert!(KeySource::choose(false, None, Some(&empty), None).is_none());
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_not_repeated() {
        let key = KeyText::from("secret\nsecret".to_owned());
        let failure = authorization(&key, &KeySource::Flag).unwrap_err();
        assert!(failure.is_usage());
        assert!(!format!("{failure} {failure:?}").contains("secret"));
    }

    #[test]
    fn a_timeout_is_a_span_of_a_day_at_most() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert!(timeout("0s").is_err());
        assert!(timeout("2d").is_err());
        assert!(timeout("10").is_err());
    }
}
