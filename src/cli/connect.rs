//! The connection flags: the address of the server, and the caller's API key.

use std::borrow::Cow;
use std::env;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{self, Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};
use uuid::Uuid;

use super::api_key::ApiKey;
use super::client::Client;
use super::contexts::{CONTEXT, ChosenContext, Context, ContextKey, Contexts, ContextsFile};
use super::diagnostics::CallContext;
use super::failure::Failure;
use super::flags;
use super::output;
use super::pager::PAGER;
use super::realm_flag::{ENVIRONMENT, REALM};
use super::redact;
use super::waiting::attended;

pub(super) use super::key_file::read_key;
pub(super) use super::key_source::{KEY, KEY_FILE, KeySource};

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7700";
/// The scheme of a Unix socket in gRPC's names.
const UNIX: &str = "unix:";
const DEFAULT_TIMEOUT: &str = "10s";

/// The flags that say how to reach the server.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// The context to take the server, the key and other settings from [default: the current one of `claviger use`].
    #[arg(
        long,
        short,
        global = true,
        env = CONTEXT,
        value_name = "NAME",
        help_heading = "Connection"
    )]
    context: Option<OsString>,
    // These flags are accepted by `claviger serve` too. A client's environment variable must not stop a server, so flags
    // with a variable accept any string here, and `connect` validates it. An empty variable counts as unset.
    // A list for `canary`. clap would refuse a second value for the other commands with a message of its own, but it cannot
    // tell them apart: the flag is global.
    /// The server's gRPC address: `http://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT` for http, or `unix:PATH`
    /// [default: that of the context, or `http://127.0.0.1:7700`]. Only `claviger canary` takes several, separated by commas or
    /// with the flag repeated.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_ENDPOINT",
        value_name = "URL",
        help_heading = "Connection"
    )]
    endpoint: Vec<OsString>,
    /// The file with the PEM certificates to trust with https.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_CA_FILE",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    ca_file: Option<OsString>,
    /// The file with the client's own certificate in PEM, for a server that wants one with https.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_CLIENT_CERT",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    client_cert: Option<OsString>,
    /// The file with the private key of --client-cert, in PEM.
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_CLIENT_KEY",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    client_key: Option<OsString>,
    // The id is not `key`: clap would confuse it with an argument of that id in a command.
    /// The caller's own API key. Prefer `claviger login` or --key-file: every user of the machine can see a command line in the
    /// list of processes, and the shell's history keeps it.
    #[arg(
        id = "caller_key",
        long = "key",
        global = true,
        value_name = "KEY",
        value_parser = clap::value_parser!(ApiKey),
        conflicts_with = "key_file",
        help_heading = "Connection"
    )]
    key: Option<ApiKey>,
    /// The file with the caller's own API key; one newline at its end, also CR LF, is ignored. Overrides `CLAVIGER_KEY`, which overrides
    /// `CLAVIGER_KEY_FILE`, which overrides the key of the context.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    key_file: Option<PathBuf>,
    /// How long to wait for each answer [default: 10s; healthcheck: 3s].
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_TIMEOUT",
        value_name = "SPAN",
        help_heading = "Connection"
    )]
    timeout: Option<OsString>,
    /// Print responses and errors as JSON, with the field names of the proto and times in RFC 3339.
    #[arg(long, global = true)]
    pub json: bool,
    #[arg(skip)]
    chosen: Option<ChosenContext>,
    /// The context that was not taken, because it is for another server.
    #[arg(skip)]
    unused_context: Option<String>,
    /// Whether the address is that of the context.
    #[arg(skip)]
    has_endpoint_of_context: bool,
    /// Print only this field of the answer, by its name in the JSON, with dots for fields in fields: `scopes`, `labels.team`. A list
    /// has one value on each line.
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) field: Option<String>,
}

impl Connection {
    /// The variables of the client commands that no flag has. All others are those of flags.
    pub const VARIABLES: [&str; 5] = [KEY, KEY_FILE, REALM, ENVIRONMENT, PAGER];

    /// The connection with the settings of its context where no flag and no variable has set them.
    ///
    /// # Errors
    /// If the file of the contexts cannot be used, or has no context with the given name, and the connection needs one.
    pub(super) fn with_context(self) -> Result<Self, Failure> {
        match self.find_context() {
            Ok(None) => Ok(self),
            Ok(Some(ChosenContext { name, context })) => {
                self.warn_of_variables(&name, &context);
                Ok(self.or_of(&name, &context))
            }
            Err(failure) if self.needs_context() => Err(failure),
            Err(failure) => {
                let failure = failure.with_note("the command goes on without a context");
                let said = failure.to_string();
                output::print_error(&said.replacen("error:", "warning:", 1));
                Ok(self)
            }
        }
    }

    fn find_context(&self) -> Result<Option<ChosenContext>, Failure> {
        let contexts = match ContextsFile::of_user() {
            Some(file) => file.read()?,
            None => Contexts::default(),
        };
        contexts.choose(self.context_name())
    }

    /// Whether flags and variables do not say which server to call and with which key, or name a context.
    fn needs_context(&self) -> bool {
        self.context_name().is_some() || !self.has_endpoint() || self.key_source().is_none()
    }

    /// The name of the context whose settings are in force.
    pub(super) fn chosen_name(&self) -> Option<String> {
        self.chosen.as_ref().map(|chosen| chosen.name.clone())
    }

    /// Whether the key comes from a program that the context names.
    pub(super) fn runs_a_program(&self) -> bool {
        let key = self.chosen.as_ref().map(|chosen| &chosen.context.key);
        matches!(key, Some(Some(ContextKey::Command(_))))
    }

    /// The name of the context that the flag or the variable names.
    pub(super) fn context_name(&self) -> Option<String> {
        let name = self.context.as_ref().filter(|name| !name.is_empty());
        name.map(|name| name.to_string_lossy().into_owned())
    }

    /// The connection with the settings of a context where it has none itself.
    ///
    /// If a flag or a variable names another server than the context, nothing is taken: its key is not for that server.
    pub(super) fn or_of(mut self, name: &str, context: &Context) -> Self {
        if self.has_endpoint() && !self.is_for(context) {
            self.unused_context = Some(name.to_owned());
            return self;
        }
        if !self.has_endpoint()
            && let Some(endpoint) = &context.endpoint
        {
            self.endpoint = vec![endpoint.into()];
            self.has_endpoint_of_context = true;
        }
        for (own, of_context) in [
            (&mut self.ca_file, &context.ca_file),
            (&mut self.client_cert, &context.client_cert),
            (&mut self.client_key, &context.client_key),
        ] {
            if own.as_ref().is_none_or(|own| own.is_empty()) {
                *own = of_context.clone().map(PathBuf::into_os_string);
            }
        }
        self.chosen = Some(ChosenContext {
            name: name.to_owned(),
            context: context.clone(),
        });
        self
    }

    /// Whether the address of a flag or a variable is that of a context.
    fn is_for(&self, context: &Context) -> bool {
        let of_context = context.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
        let plain = |text: &str| {
            let text = text.strip_prefix("http://").unwrap_or(text);
            text.trim_end_matches('/').to_ascii_lowercase()
        };
        self.endpoints()
            .iter()
            .all(|own| plain(own) == plain(of_context))
    }

    /// The connection without the address of a flag or a variable.
    pub(super) fn without_endpoint(mut self) -> Self {
        self.endpoint.clear();
        self
    }

    /// Whether a flag or a variable has the address of the server.
    pub(super) fn has_endpoint(&self) -> bool {
        self.endpoint.iter().any(|text| !text.is_empty())
    }

    /// Warns of variables that come before a context that the user has named in the command itself, and probably not thought of.
    fn warn_of_variables(&self, name: &str, context: &Context) {
        let set = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty());
        if self.context.is_none() || self.context == set(CONTEXT) {
            return;
        }
        let endpoint = set("CLAVIGER_ENDPOINT");
        let endpoint = endpoint.is_some_and(|endpoint| self.endpoint == [endpoint]);
        let has_key_flag = self.key.is_some() || self.key_file.is_some();
        let key = [KEY, KEY_FILE].into_iter().find(|key| set(key).is_some());
        let key = key.filter(|_| !has_key_flag && context.key.is_some());
        let overriding = [endpoint.then_some("CLAVIGER_ENDPOINT"), key];
        for variable in overriding.into_iter().flatten() {
            output::print_error(&format!(
                "warning: {variable} is set and comes before the context {name}: unset {variable}"
            ));
        }
    }

    /// The key that --key or --key-file gives to a new context.
    pub(super) fn key_of_flags(&self) -> Result<Option<(ContextKey, KeySource)>, Failure> {
        if let Some(key) = &self.key {
            self.warn_of_key_flag();
            return Ok(Some((ContextKey::Stored(key.clone()), KeySource::Flag)));
        }
        let Some(path) = &self.key_file else {
            return Ok(None);
        };
        let absolute = absolute(path)?;
        Ok(Some((
            ContextKey::File(absolute),
            KeySource::File(path.clone()),
        )))
    }

    /// The files of --ca-file, --client-cert and --client-key, by their absolute paths.
    pub(super) fn tls_files(&self) -> Result<[Option<PathBuf>; 3], Failure> {
        let file = |file: &Option<OsString>| {
            let file = file.as_ref().filter(|file| !file.is_empty());
            file.map(|file| absolute(Path::new(file))).transpose()
        };
        Ok([
            file(&self.ca_file)?,
            file(&self.client_cert)?,
            file(&self.client_key)?,
        ])
    }

    /// The address of the server, for people and for a context.
    pub(super) fn endpoint_name(&self) -> Result<String, Failure> {
        let text = self.one_endpoint()?;
        Ok(name_of(&text, &self.endpoint(&text)?))
    }

    fn warn_of_key_flag(&self) {
        if self.key.is_some() && io::stderr().is_terminal() {
            output::print_error(
                "warning: every user of this machine can see the key of --key, and the shell keeps it in its history: use \
                 `claviger login` or --key-file",
            );
        }
    }

    /// Connects to the server with the caller's API key.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        // Errors in the flags are reported before a connection is attempted.
        let (key, source) = self.key()?;
        self.connect_as(&key, &source).await
    }

    /// Connects to the server with an API key from a file.
    pub(super) async fn connect_with(&self, key: &ApiKey, file: &Path) -> Result<Client, Failure> {
        self.connect_as(key, &KeySource::File(file.to_owned()))
            .await
    }

    /// All servers that --endpoint names, with the caller's API key, and one more server at an address of a command's own.
    pub(super) fn servers(
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

    /// The scheme, the host and the port of the server's gRPC address; `None` for a Unix socket.
    pub(super) fn server_address(&self) -> Result<Option<(&'static str, String, u16)>, Failure> {
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

    /// Connects to the server with an API key from this source.
    pub(super) async fn connect_as(
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
    pub(super) fn open_server(&self, timeout: &str) -> Result<(Endpoint, CallContext), Failure> {
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
            other_key: key_source.map(KeySource::replacement).unwrap_or_default(),
            timeout,
            has_client_certificate,
            has_endpoint_of_context: self.has_endpoint_of_context,
            chosen: self.chosen.clone(),
        };
        Ok((endpoint, context))
    }

    /// The values of --endpoint, or its default.
    fn endpoints(&self) -> Vec<Cow<'_, str>> {
        let given = self.endpoint.iter().filter(|text| !text.is_empty());
        let given: Vec<_> = given.map(|text| text.to_string_lossy()).collect();
        if given.is_empty() {
            vec![Cow::Borrowed(DEFAULT_ENDPOINT)]
        } else {
            given
        }
    }

    /// The only value of --endpoint.
    fn one_endpoint(&self) -> Result<Cow<'_, str>, Failure> {
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

    fn endpoint(&self, text: &str) -> Result<Endpoint, Failure> {
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

    fn key_source(&self) -> Option<KeySource> {
        KeySource::choose(
            self.key.is_some(),
            self.key_file.as_ref(),
            env::var_os(KEY).as_ref(),
            env::var_os(KEY_FILE).as_ref(),
            self.chosen.as_ref().and_then(|chosen| {
                let key = chosen.context.key.as_ref()?;
                Some((chosen.name.as_str(), key))
            }),
        )
    }

    fn key(&self) -> Result<(ApiKey, KeySource), Failure> {
        let source = self.key_source();
        self.warn_of_key_flag();
        let key = match &source {
            Some(KeySource::Flag) => {
                let key = self.key.clone();
                if key.as_ref().is_some_and(|key| is_key_id(key.reveal())) {
                    return Err(Failure::usage(
                        "--key: that is a key's id, not an API key; for events use --key-id",
                    )
                    .hint("--key is the API key that the command calls with, for any command"));
                }
                key
            }
            Some(KeySource::Environment(key)) => Some(key.clone()),
            Some(KeySource::File(path)) => {
                let name = match self.key_file {
                    Some(_) => "--key-file",
                    None => KEY_FILE,
                };
                Some(read_key(path, name)?)
            }
            Some(KeySource::Context(name, key)) => Some(key.read(name)?),
            Some(KeySource::Prompt | KeySource::StandardInput) | None => None,
        };
        key.zip(source).ok_or_else(|| {
            if let Some(name) = &self.unused_context {
                return Failure::usage(format!(
                    "no key to call the server with: the context {name} is for another server, so its key is not sent to this one"
                ))
                .hint("leave out --endpoint and CLAVIGER_ENDPOINT, or name the key with --key-file");
            }
            Failure::usage("no key to call the server with").hint(
                "claviger login, or --key-file FILE, or the environment variable CLAVIGER_KEY; `claviger serve --init` or \
                 `claviger bootstrap` issued the first operator key",
            )
        })
    }
}

/// A server and the caller's API key for it. Any number of clients can be made of it.
#[derive(Clone)]
pub(super) struct Server {
    endpoint: Endpoint,
    authorization: MetadataValue<Ascii>,
    context: CallContext,
}

impl Server {
    /// The address, for people.
    pub(super) fn name(&self) -> &str {
        &self.context.endpoint
    }

    /// How long a call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.context.timeout
    }

    /// Lets calls take as long as this.
    pub(super) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.context.timeout = timeout;
        self
    }

    /// Returns a client on a connection of its own, which is established with the first call, and again when it broke.
    pub(super) fn client(&self) -> Client {
        Client::new(
            self.endpoint.connect_lazy(),
            self.authorization.clone(),
            self.context.clone(),
        )
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

/// Whether the text is the id of a key: a UUID of version 7. API keys of other systems may be UUIDs of other versions.
pub(super) fn is_key_id(text: &str) -> bool {
    let is_v7 = |id: Uuid| id.get_version_num() == 7;
    redact::is_hyphenated_uuid(text) && Uuid::try_parse(text).is_ok_and(is_v7)
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

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path::absolute(path).map_err(|error| {
        Failure::usage(format!(
            "cannot find the place of {}: {error}",
            path.display()
        ))
    })
}

/// The address of a server, for people.
fn name_of(text: &str, endpoint: &Endpoint) -> String {
    if text.starts_with(UNIX) {
        return text.to_owned();
    }
    let url = endpoint.uri().to_string();
    url.trim_end_matches('/').to_owned()
}

fn or_default<'a>(value: &'a OsStr, default: &'a str) -> Cow<'a, str> {
    if value.is_empty() {
        Cow::Borrowed(default)
    } else {
        value.to_string_lossy()
    }
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

    /// A flag is parsed like its variable, and needs no change of the test's own environment.
    fn connection(flag: &str, text: OsString) -> Connection {
        let line = ["claviger", "--key", "k", flag].map(OsString::from);
        let line = <Line as clap::Parser>::try_parse_from(line.into_iter().chain([text]));
        line.expect("any value is accepted").connection
    }

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

    #[test]
    fn a_timeout_is_a_span_of_a_day_at_most() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert!(timeout("0s").is_err());
        assert!(timeout("2d").is_err());
        assert!(timeout("10").is_err());
    }
}
