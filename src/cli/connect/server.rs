//! The connection to a server, with the caller's API key.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

use super::address::name_of;
use super::{Connection, KeySource};
use crate::cli::api_key::ApiKey;
use crate::cli::client::Client;
use crate::cli::diagnostics::CallContext;
use crate::cli::failure::Failure;
use crate::cli::flags;
use crate::cli::waiting::attended;

const DEFAULT_TIMEOUT: &str = "10s";

impl Connection {
    /// Connects to the server with the caller's API key.
    pub(in crate::cli) async fn connect(&self) -> Result<Client, Failure> {
        // Errors in the flags are reported before a connection is attempted.
        let (key, source) = self.key()?;
        self.connect_as(&key, &source).await
    }

    /// Connects to the server with an API key from a file.
    pub(in crate::cli) async fn connect_with(
        &self,
        key: &ApiKey,
        file: &Path,
    ) -> Result<Client, Failure> {
        self.connect_as(key, &KeySource::File(file.to_owned()))
            .await
    }

    /// All servers that --endpoint names, with the caller's API key, and one more server at an address of a command's own.
    pub(in crate::cli) fn servers(
        &self,
        other: Option<&str>,
    ) -> Result<(Vec<Server>, Option<Server>), Failure> {
        // Once, because the file may be a pipe.
        let (key, source) = self.key()?;
        let servers = self
            .endpoints()
            .iter()
            .flat_map(|list| list.split(','))
            .map(|text| self.server(text.trim(), &key, &source))
            .collect::<Result<_, _>>()?;
        let other = other.map(|text| self.server(text, &key, &source));
        Ok((servers, other.transpose()?))
    }

    /// Connects to the server with an API key from this source.
    pub(in crate::cli) async fn connect_as(
        &self,
        key: &ApiKey,
        source: &KeySource,
    ) -> Result<Client, Failure> {
        let server = self.server(&self.one_endpoint()?, key, source)?;
        let context = server.context;
        let connecting = tokio::time::timeout(context.timeout, server.endpoint.connect());
        let channel = attended(&context.server(), false, connecting)
            .await
            .ok_or_else(|| context.interrupted(false))?
            .map_err(|_| context.timeout(false))?
            .map_err(|error| context.unreachable(&error))?;
        Ok(Client::new(channel, server.authorization, context).in_foreground())
    }

    /// Returns the server for calls that need no API key, each with this timeout unless --timeout is set.
    pub(in crate::cli) fn open_server(
        &self,
        timeout: &str,
    ) -> Result<(Endpoint, CallContext), Failure> {
        self.address(&self.one_endpoint()?, None, timeout)
    }

    fn server(&self, text: &str, key: &ApiKey, source: &KeySource) -> Result<Server, Failure> {
        let authorization = authorization(key, source)?;
        let (endpoint, context) = self.address(text, Some(source), DEFAULT_TIMEOUT)?;
        Ok(Server {
            endpoint,
            authorization,
            context,
        })
    }

    fn address(
        &self,
        text: &str,
        key_source: Option<&KeySource>,
        default_timeout: &str,
    ) -> Result<(Endpoint, CallContext), Failure> {
        let endpoint = self.endpoint(text)?;
        let given = self.timeout.as_deref().unwrap_or_default();
        let timeout = timeout(&or_default(given, default_timeout))
            .map_err(|why| Failure::usage(format!("--timeout or CLAVIGER_TIMEOUT: {why}")))?;
        let has_client_certificate = endpoint.uri().scheme_str() == Some("https")
            && self
                .client_cert
                .as_ref()
                .is_some_and(|path| !path.is_empty());
        let context = CallContext {
            endpoint: name_of(text, &endpoint),
            key_source: key_source.map_or_else(|| "no key".to_owned(), KeySource::name),
            other_key: key_source
                .map(|source| source.replacement(self.context_name().is_none()))
                .unwrap_or_default(),
            timeout,
            has_client_certificate,
            has_endpoint_of_context: self.has_endpoint_of_context,
            chosen: self.chosen.clone(),
        };
        Ok((endpoint, context))
    }
}

/// A server and the caller's API key for it. Any number of clients can be made of it.
#[derive(Clone)]
pub(in crate::cli) struct Server {
    endpoint: Endpoint,
    authorization: MetadataValue<Ascii>,
    context: CallContext,
}

impl Server {
    /// The address, for people.
    pub(in crate::cli) fn name(&self) -> &str {
        &self.context.endpoint
    }

    /// How long a call may take.
    pub(in crate::cli) fn timeout(&self) -> Duration {
        self.context.timeout
    }

    /// Lets calls take as long as this.
    pub(in crate::cli) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.context.timeout = timeout;
        self
    }

    /// Returns a client on a connection of its own, which is established with the first call, and again when it broke.
    pub(in crate::cli) fn client(&self) -> Client {
        Client::new(
            self.endpoint.connect_lazy(),
            self.authorization.clone(),
            self.context.clone(),
        )
    }
}

fn authorization(key: &ApiKey, source: &KeySource) -> Result<MetadataValue<Ascii>, Failure> {
    if let Some(flaw) = key.flaw() {
        return Err(Failure::usage(format!("{} {flaw}", source.subject())));
    }
    // The parser's own error is dropped, because it may contain the key.
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {}", key.reveal()).parse().map_err(|_| {
            Failure::usage(format!(
                "the value from {} is not an API key: an API key is one line of printable ASCII",
                source.name()
            ))
        })?;
    value.set_sensitive(true);
    Ok(value)
}

fn or_default<'a>(value: &'a OsStr, default: &'a str) -> Cow<'a, str> {
    if value.is_empty() {
        Cow::Borrowed(default)
    } else {
        value.to_string_lossy()
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let span = flags::span(text)?;
    // The `grpc-timeout` header holds at most eight digits.
    if span.is_zero() || span > Duration::from_hours(24) {
        return Err("must be more than 0s and at most 24h".to_owned());
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::cli::connect::tests::{Line, connection};

    #[tokio::test]
    async fn only_client_commands_validate_the_client_flags() {
        let no_text = OsString::from_vec(vec![b'h', 0xff]);
        for flag in ["--endpoint", "--timeout"] {
            for text in [OsString::from("not one"), no_text.clone()] {
                let failure = connection(flag, text).connect().await.err().unwrap();
                assert!(failure.is_usage(), "{failure}");
            }
        }
        let absent = Connection {
            endpoint: vec![OsString::from("https://localhost:1")],
            ..connection("--ca-file", OsString::from("/absent/ca.pem"))
        };
        let failure = absent.connect().await.err().unwrap();
        assert!(failure.is_usage(), "{failure}");
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let empty = connection("--endpoint", OsString::new());
        let (servers, _) = empty.servers(None).unwrap();
        assert_eq!(servers[0].name(), "http://127.0.0.1:7700");
        assert_eq!(or_default(OsStr::new(""), DEFAULT_TIMEOUT), "10s");
        let empty = Connection {
            endpoint: vec![OsString::from("https://localhost:1")],
            ..connection("--ca-file", OsString::new())
        };
        assert!(empty.server_address().is_ok());
    }

    #[test]
    fn only_what_asks_several_servers_takes_several_endpoints() {
        let names = |connection: &Connection| -> Vec<_> {
            let servers = connection.servers(None).unwrap().0;
            servers
                .iter()
                .map(|server| server.name().to_owned())
                .collect()
        };
        let line = ["--endpoint", "b:2, unix:/c", "--endpoint", "a:1"];
        let line = ["claviger", "--key", "k"].into_iter().chain(line);
        let repeated = <Line as clap::Parser>::parse_from(line).connection;
        assert_eq!(names(&repeated), ["http://b:2", "unix:/c", "http://a:1"]);
        let failure = repeated.one_endpoint().unwrap_err();
        assert!(failure.is_usage());
        assert!(
            failure.to_string().contains("several are given"),
            "{failure}"
        );

        let list = connection("--endpoint", "a:1,a:1".into());
        assert_eq!(names(&list), ["http://a:1", "http://a:1"]);
        assert!(list.one_endpoint().unwrap_err().is_usage());
        let socket = connection("--endpoint", "unix:/a,b".into());
        assert_eq!(socket.one_endpoint().unwrap(), "unix:/a,b");
        let wrong = connection("--endpoint", "a:1,,b:1".into());
        assert!(wrong.servers(None).err().unwrap().is_usage());
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_not_repeated() {
        let key = ApiKey::from("secret\nsecret".to_owned());
        let failure = authorization(&key, &KeySource::Flag).unwrap_err();
        assert!(failure.is_usage());
        assert!(!format!("{failure} {failure:?}").contains("secret"));
        let key = ApiKey::from("\u{feff}secret".to_owned());
        let failure = authorization(&key, &KeySource::File("my.key".into())).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "error: the file my.key starts with a byte-order mark: save it without one"
        );
    }

    #[test]
    fn a_timeout_is_a_span_of_a_day_at_most() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert!(timeout("0s").is_err());
        assert!(timeout("2d").is_err());
        assert!(timeout("10").is_err());
    }
}
