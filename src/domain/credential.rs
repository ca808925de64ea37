//! The places that carry the credentials of an API's requests.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::key_text;

/// The maximum length of the headers that carry a key beside other values, in bytes. Answers over HTTP repeat the rest of them in their
/// headers, together with the scopes and labels of the key, and Envoy and nginx take only about 60 kilobytes there.
const MAX_SHARED: usize = 16_384;

/// The maximum number of credential sources of a realm.
pub const MAX_SOURCES: usize = 8;

/// The places that carry the credentials of a realm's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The places that may carry the API key, in the order of precedence. Without any, gateways let only public routes through.
    pub sources: Vec<CredentialSource>,
    /// The header that must name the partner, if the API has one.
    pub partner: Option<HeaderName>,
}

/// A place that may carry an API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialSource {
    /// A header.
    Header {
        /// The name of the header.
        name: HeaderName,
        /// The scheme before the API key, such as `Bearer`. `None`: the value of the header is the API key.
        scheme: Option<Scheme>,
    },
    /// A cookie (RFC 6265, section 4.2).
    Cookie {
        /// The name of the cookie.
        name: Token,
    },
    /// An entry of `Sec-WebSocket-Protocol` (RFC 6455, section 11.3.4).
    WebsocketProtocol {
        /// The part of the entry before the API key.
        prefix: Token,
    },
}

/// The header with the cookies of a request.
const COOKIE: &str = "cookie";

/// The header with the subprotocols that the client of a WebSocket offers.
const WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";

impl CredentialSource {
    /// Returns the name of the header that carries the API key, in lower case.
    pub fn header(&self) -> &str {
        match self {
            Self::Header { name, .. } => name.as_str(),
            Self::Cookie { .. } => COOKIE,
            Self::WebsocketProtocol { .. } => WEBSOCKET_PROTOCOL,
        }
    }

    /// Returns whether the header of the source also carries what the server behind the gateway needs.
    pub fn shares_its_header(&self) -> bool {
        !matches!(self, Self::Header { .. })
    }

    /// Returns whether an entry of a shared header can be a key of both sources.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cookie { name: one }, Self::Cookie { name: two }) => one == two,
            (Self::WebsocketProtocol { prefix: one }, Self::WebsocketProtocol { prefix: two }) => {
                one.as_str().starts_with(two.as_str()) || two.as_str().starts_with(one.as_str())
            }
            _ => false,
        }
    }

    /// Finds the API key of a request in this place.
    fn find<'r>(&self, headers: &[(&'r str, &'r [u8])]) -> Result<Found<'r>, CredentialError> {
        let mut values = values_of(self.header(), headers);
        let found = match self {
            Self::Header { scheme, .. } => {
                let Some(value) = values.next() else {
                    return Ok(Found::Nothing);
                };
                if let Some(scheme) = scheme
                    && !scheme.is_of(value)
                {
                    return Ok(Found::Foreign);
                }
                if values.next().is_some() || value.contains(&b',') {
                    return Err(CredentialError::SeveralKeys);
                }
                let value = text(value)?;
                match scheme {
                    Some(_) => key_after_scheme(value)?,
                    None => Cow::Borrowed(value),
                }
            }
            Self::Cookie { .. } | Self::WebsocketProtocol { .. } => {
                let mut keys = values
                    .flat_map(|value| self.entries(value))
                    .filter_map(Entry::key);
                let Some(key) = keys.next() else {
                    return Ok(Found::Nothing);
                };
                if keys.next().is_some() {
                    return Err(CredentialError::SeveralKeys);
                }
                Cow::Borrowed(text(key)?)
            }
        };
        if found.is_empty() {
            return Ok(Found::Nothing);
        }
        if found.contains(' ') {
            return Err(CredentialError::Malformed);
        }
        Ok(Found::Key(found))
    }

    /// The number of texts in the form of a claviger key in this place.
    fn keys_in_form(&self, headers: &[(&str, &[u8])]) -> usize {
        let values = values_of(self.header(), headers);
        if self.shares_its_header() {
            let keys = values
                .flat_map(|value| self.entries(value))
                .filter_map(Entry::key);
            return keys.map(keys_in).sum();
        }
        values
            .map(|value| {
                let decoded = str::from_utf8(value)
                    .ok()
                    .and_then(|value| value.split_once(' '))
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Basic"))
                    .and_then(|(_, rest)| BASE64.decode(rest.trim()).ok());
                keys_in(value) + decoded.map_or(0, |decoded| keys_in(&decoded))
            })
            .sum()
    }

    /// Returns the entries of a header that carries other values too. A header that carries only a key has none.
    fn entries<'r>(&self, value: &'r [u8]) -> impl Iterator<Item = Entry<'r>> {
        let separator = match self {
            Self::Cookie { .. } => b';',
            Self::Header { .. } | Self::WebsocketProtocol { .. } => b',',
        };
        let entries = value.split(move |byte| *byte == separator);
        entries.map(|entry| self.entry(entry.trim_ascii()))
    }

    fn entry<'r>(&self, entry: &'r [u8]) -> Entry<'r> {
        match self {
            Self::Header { .. } => Entry::Other(entry),
            Self::WebsocketProtocol { prefix } => {
                let key = entry.strip_prefix(prefix.as_str().as_bytes());
                key.map_or(Entry::Other(entry), Entry::Key)
            }
            Self::Cookie { name } => match cookie_value(name, entry) {
                Some(value) => Entry::Key(value),
                // Some gateways join two `Cookie` headers with a comma.
                None if entry
                    .split(|byte| *byte == b',')
                    .any(|pair| cookie_value(name, pair).is_some()) =>
                {
                    Entry::Key(entry)
                }
                None => Entry::Other(entry),
            },
        }
    }
}

/// The value of a pair of a cookie and its value, if it is this cookie.
fn cookie_value<'r>(name: &Token, pair: &'r [u8]) -> Option<&'r [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let is_named = pair[..equals].trim_ascii() == name.as_str().as_bytes();
    is_named.then(|| pair[equals + 1..].trim_ascii())
}

/// What a source finds in a request.
enum Found<'r> {
    /// The request does not have the header or the entry.
    Nothing,
    /// The header has another scheme, so that it may be meant for the server behind.
    Foreign,
    /// A text that is presented as an API key.
    Key(Cow<'r, str>),
}

/// An entry of a header that carries several values.
enum Entry<'r> {
    /// The text that stands where the API key does.
    Key(&'r [u8]),
    /// Something else.
    Other(&'r [u8]),
}

impl<'r> Entry<'r> {
    fn key(self) -> Option<&'r [u8]> {
        match self {
            Self::Key(key) => Some(key),
            Self::Other(_) => None,
        }
    }

    fn other(self) -> Option<&'r [u8]> {
        match self {
            Self::Key(_) => None,
            Self::Other(other) => Some(other),
        }
    }
}

fn values_of<'r>(header: &str, headers: &[(&'r str, &'r [u8])]) -> impl Iterator<Item = &'r [u8]> {
    headers
        .iter()
        .filter(move |(name, _)| *name == header)
        .map(|(_, value)| *value)
}

/// A token (RFC 9110, section 5.6.2): the name of a cookie, or the beginning of a WebSocket protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Parses a token.
    ///
    /// # Errors
    /// The rule, if the text does not match it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 64 letters, digits and characters of !#$%&'*+-.^_`|~")
        }
    }

    /// Returns the token. Its case is significant.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a header, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeaderName(String);

impl HeaderName {
    /// Parses a name in any case. Header names are case-insensitive (RFC 9110, section 5.1).
    ///
    /// # Errors
    /// The rule, if the name does not match it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !fits {
            return Err("must be a header name of letters, digits and hyphens, such as x-api-key");
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Returns the name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The scheme of an `Authorization` header (RFC 9110, section 11.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scheme(String);

impl Scheme {
    /// Parses a scheme.
    ///
    /// # Errors
    /// The rule, if the scheme does not match it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be an authentication scheme, such as Bearer")
        }
    }

    /// Returns the scheme in the case that the realm uses.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a value begins with this scheme. The scheme is case-insensitive (RFC 9110, section 11.1).
    fn is_of(&self, value: &[u8]) -> bool {
        let scheme = value.split(|byte| *byte == b' ').next();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(self.0.as_bytes()))
    }
}

/// Returns the API key after the scheme and one or more spaces (RFC 9110, section 11.4).
fn key_after_scheme(value: &str) -> Result<Cow<'_, str>, CredentialError> {
    let (scheme, rest) = value.split_once(' ').ok_or(CredentialError::Malformed)?;
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("Basic") {
        return basic(rest).map(Cow::Owned);
    }
    Ok(Cow::Borrowed(rest))
}

/// Returns the password in credentials of the scheme `Basic` (RFC 7617, section 2). Without a password the key is the user name:
/// clients such as `curl -u KEY:` put it there. A user name beside a password says nothing, so it may be any text without control
/// characters.
fn basic(credentials: &str) -> Result<String, CredentialError> {
    let malformed = CredentialError::Malformed;
    let decoded = BASE64.decode(credentials).map_err(|_| malformed)?;
    let decoded = str::from_utf8(&decoded).map_err(|_| malformed)?;
    let (user, password) = decoded.split_once(':').ok_or(malformed)?;
    if user.chars().any(char::is_control) {
        return Err(malformed);
    }
    let key = if password.is_empty() { user } else { password };
    Ok(text(key.as_bytes())?.to_owned())
}

/// The credentials that a request presents.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented<'r> {
    /// The API key, which may be an empty text. `None` if no source has one.
    pub key: Option<Cow<'r, str>>,
    /// The partner that the request names; empty if there is none.
    pub partner: &'r str,
}

/// Why the credentials of a request are not in the one accepted form. The client is at fault, so the result is a denial and never
/// an error of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// A place that carries keys has another scheme, or bytes that no key has.
    Malformed,
    /// The request has several keys.
    SeveralKeys,
    /// The header that must name the partner does not name exactly one.
    Partner,
}

impl CredentialError {
    /// Returns a description for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => {
                "a place that carries keys has another scheme, spaces or bytes that no key has, or more than 16 kilobytes; or a header \
                 has _ for -, or begins with x-claviger-label-"
            }
            Self::SeveralKeys => "the request has several keys, or the same one twice",
            Self::Partner => "the header that names the partner is missing, repeated or malformed",
        }
    }
}

impl Credentials {
    /// Reads the credentials of a request. The first source that has a key decides.
    ///
    /// `headers` are the headers of the request, with names in lower case and one entry for each occurrence. A gateway may have
    /// joined several occurrences with commas, which no key and no partner id contains.
    ///
    /// # Errors
    /// See [`CredentialError`]. A header with another scheme is an error only if no source has a key. Two texts in the form of a
    /// claviger key are an error wherever the sources find them.
    pub fn read<'r>(
        &self,
        headers: &[(&'r str, &'r [u8])],
    ) -> Result<Presented<'r>, CredentialError> {
        let shared: usize = [COOKIE, WEBSOCKET_PROTOCOL]
            .into_iter()
            .filter(|name| self.key_headers().any(|header| header == *name))
            .flat_map(|name| values_of(name, headers))
            .map(<[u8]>::len)
            .sum();
        if shared > MAX_SHARED {
            return Err(CredentialError::Malformed);
        }
        let mut key = None;
        let mut is_foreign = false;
        for source in &self.sources {
            match source.find(headers)? {
                Found::Nothing => {}
                Found::Foreign => is_foreign = true,
                Found::Key(found) => {
                    key = Some(found);
                    break;
                }
            }
        }
        if key.is_none() && is_foreign {
            return Err(CredentialError::Malformed);
        }
        if self.sources.len() > 1 {
            let sources = self.sources.iter();
            let in_form: usize = sources.map(|source| source.keys_in_form(headers)).sum();
            if in_form > 1 {
                return Err(CredentialError::SeveralKeys);
            }
        }
        let partner = self.read_partner(headers)?;
        if self.partner.is_some() && key.is_some() && partner.is_none() {
            return Err(CredentialError::Partner);
        }
        Ok(Presented {
            key,
            partner: partner.unwrap_or_default(),
        })
    }

    fn read_partner<'r>(
        &self,
        headers: &[(&'r str, &'r [u8])],
    ) -> Result<Option<&'r str>, CredentialError> {
        let Some(header) = &self.partner else {
            return Ok(None);
        };
        let mut values = values_of(header.as_str(), headers);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let partner = text(value).map_err(|_| CredentialError::Partner)?;
        if partner.is_empty() || partner.contains(' ') || values.next().is_some() {
            return Err(CredentialError::Partner);
        }
        Ok(Some(partner))
    }

    /// Returns the headers that carry keys beside other values, with their values without the keys: for each kind of source of the
    /// realm one, also where nothing is left.
    pub fn without_keys(&self, headers: &[(&str, &[u8])]) -> Vec<(&'static str, String)> {
        [(COOKIE, "; "), (WEBSOCKET_PROTOCOL, ", ")]
            .into_iter()
            .filter_map(|(name, separator)| {
                let sources: Vec<_> = self
                    .sources
                    .iter()
                    .filter(|source| source.shares_its_header() && source.header() == name)
                    .collect();
                let first = sources.first()?;
                let entries = values_of(name, headers)
                    .flat_map(|value| first.entries(value))
                    .filter_map(Entry::other)
                    .filter(|entry| {
                        let mut others = sources.iter().map(|source| source.entry(entry));
                        others.all(|entry| matches!(entry, Entry::Other(_)))
                    });
                // What is no text cannot be passed on in every protocol.
                let entries = entries
                    .filter_map(|entry| str::from_utf8(entry).ok())
                    .filter(|entry| !entry.is_empty());
                Some((name, entries.collect::<Vec<_>>().join(separator)))
            })
            .collect()
    }

    /// Returns all headers that carry credentials: those of the keys and that of the partner.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let partner = self.partner.iter().map(HeaderName::as_str);
        self.key_headers().chain(partner)
    }

    /// Returns the headers that carry a key.
    pub fn key_headers(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(CredentialSource::header)
    }
}

/// The number of texts in the form of a claviger key.
fn keys_in(value: &[u8]) -> usize {
    let words = value.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    words
        .filter_map(|word| str::from_utf8(word).ok())
        .filter(|word| key_text::parse(word).is_ok())
        .count()
}

/// Returns the value as text if it is printable ASCII or spaces, without a comma. The caller checks the spaces.
fn text(value: &[u8]) -> Result<&str, CredentialError> {
    let fits = value
        .iter()
        .all(|byte| (byte.is_ascii_graphic() || *byte == b' ') && *byte != b',');
    if fits {
        std::str::from_utf8(value).map_err(|_| CredentialError::Malformed)
    } else {
        Err(CredentialError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, scheme: Option<&str>) -> CredentialSource {
        CredentialSource::Header {
            name: HeaderName::parse(name).unwrap(),
            scheme: scheme.map(|scheme| Scheme::parse(scheme).unwrap()),
        }
    }

    fn read(
        credentials: &Credentials,
        headers: &[(&str, &str)],
    ) -> Result<(String, String), CredentialError> {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        let Presented { key, partner } = credentials.read(&headers)?;
        // No test presents this text.
        let key = key.map_or("no key".to_owned(), Cow::into_owned);
        Ok((key, partner.to_owned()))
    }

    fn no_key() -> (String, String) {
        ("no key".to_owned(), String::new())
    }

    fn bearer() -> Credentials {
        Credentials {
            sources: vec![header("Authorization", Some("Bearer"))],
            partner: None,
        }
    }

    fn merchant() -> Credentials {
        Credentials {
            sources: vec![header("X-API-Key", None)],
            partner: Some(HeaderName::parse("X-API-User").unwrap()),
        }
    }

    #[test]
    fn a_key_is_read_from_its_source() {
        for value in ["Bearer k", "bearer k", "BEARER k", "Bearer   k"] {
            assert_eq!(
                read(&bearer(), &[("authorization", value)]),
                Ok(("k".into(), String::new()))
            );
        }
        assert_eq!(
            read(
                &merchant(),
                &[("x-api-user", "m"), ("other", "x, y"), ("x-api-key", "k")]
            ),
            Ok(("k".into(), "m".into()))
        );
        assert_eq!(read(&bearer(), &[("x-api-key", "k")]), Ok(no_key()));
        assert_eq!(read(&merchant(), &[]), Ok(no_key()));
    }

    /// Seen red with Basic taken for a scheme before the key, with the user name before the password, with a decoder that takes
    /// everything, and with a user name that must look like a key.
    #[test]
    fn a_key_is_read_from_basic_credentials() {
        let basic = Credentials {
            sources: vec![header("Authorization", Some("Basic"))],
            partner: None,
        };
        let of = |user_and_password: &[u8], scheme: &str| {
            let value = format!("{scheme} {}", BASE64.encode(user_and_password));
            read(&basic, &[("authorization", &value)])
        };
        let key = |key: &str| Ok((key.to_owned(), String::new()));
        for scheme in ["Basic", "basic", "BASIC"] {
            assert_eq!(of(b"user:k", scheme), key("k"));
        }
        for user in ["", "a name", "a, b", "\u{e9}"] {
            assert_eq!(of(format!("{user}:k").as_bytes(), "Basic"), key("k"));
        }
        assert_eq!(of(b"k:", "Basic"), key("k"));
        // A password may contain colons, a user name may not.
        assert_eq!(of(b"user:k:l", "Basic"), key("k:l"));
        assert_eq!(of(b":", "Basic"), Ok(no_key()));
        for malformed in [
            &b"k"[..],
            b"user:k l",
            b"user:k,l",
            b"user:\xff",
            b"user:k\n",
            b"us\ner:k",
            b"a name:",
            b"\xff:k",
            b"",
        ] {
            assert_eq!(
                of(malformed, "Basic"),
                Err(CredentialError::Malformed),
                "{malformed:?}"
            );
        }
        for value in [
            "Basic k",
            "Basic dTpr=",
            "Basic dTpr k",
            "Bearer dTpr",
            "Basic",
        ] {
            assert_eq!(
                read(&basic, &[("authorization", value)]),
                Err(CredentialError::Malformed),
                "{value}"
            );
        }
        for value in ["Basic dTpr", "Basic  dTpr"] {
            assert_eq!(read(&basic, &[("authorization", value)]), key("k"));
        }
    }

    #[test]
    fn credentials_in_another_form_are_refused() {
        use CredentialError::{Malformed, Partner, SeveralKeys};
        for value in [
            "",
            "Bearer",
            "k",
            "Basic k",
            " Bearer k",
            "Bearer k ",
            "Bearer\tk",
            "Bearer k\u{7f}",
            "Bearerk",
            "Bearer k k",
            "Bearer é",
        ] {
            let read = read(&bearer(), &[("authorization", value)]);
            assert_eq!(read, Err(Malformed), "{value:?}");
        }
        for value in ["Bearer k, Bearer l", "Bearer k,l", "Bearer k,"] {
            let read = read(&bearer(), &[("authorization", value)]);
            assert_eq!(read, Err(SeveralKeys), "{value:?}");
        }
        for second in ["Bearer k", "Basic x"] {
            let headers = [("authorization", "Bearer k"), ("authorization", second)];
            assert_eq!(read(&bearer(), &headers), Err(SeveralKeys), "{second}");
        }
        for (headers, error) in [
            (&[("x-api-key", "k")][..], Partner),
            (&[("x-api-key", "k"), ("x-api-user", "")], Partner),
            (
                &[("x-api-key", "k"), ("x-api-user", "a"), ("x-api-user", "b")],
                Partner,
            ),
            (&[("x-api-key", "k"), ("x-api-user", "a,b")], Partner),
            (&[("x-api-key", "k"), ("x-api-user", "a b")], Partner),
            (&[("x-api-user", "a b")], Partner),
            (
                &[("x-api-key", "k"), ("x-api-key", "l"), ("x-api-user", "a")],
                SeveralKeys,
            ),
        ] {
            assert_eq!(read(&merchant(), headers), Err(error), "{headers:?}");
        }
    }

    const IN_FORM: [&str; 2] = [
        "demo_live_02y8wgU7QvIaB4J9cANFdL003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2CbwAq",
        "demo_live_02y8wgU7QvIaB4J9cANFdM003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf1Vdqba",
    ];

    /// Seen red with the last source first, with a header of another scheme taken for a key, and without the count.
    #[test]
    fn the_first_source_with_a_key_decides() {
        use CredentialError::{Malformed, SeveralKeys};
        let [one, other] = IN_FORM;
        assert!(IN_FORM.iter().all(|text| key_text::parse(text).is_ok()));
        let either = |first: CredentialSource, second: CredentialSource| Credentials {
            sources: vec![first, second],
            partner: None,
        };
        let own = || header("x-api-key", None);
        let scheme = |scheme| header("authorization", Some(scheme));
        let own_first = either(own(), scheme("Bearer"));
        let bearer_first = either(scheme("Bearer"), own());
        let basic_first = either(scheme("Basic"), own());
        let key = |key: &str| Ok((key.to_owned(), String::new()));
        let basic_of = |text: &str| format!("Basic {}", BASE64.encode(format!("{text}:")));
        for (credentials, authorization, expected) in [
            (&own_first, "Bearer k", key(one)),
            (&own_first, "Digest a=\"b\", c", key(one)),
            (&own_first, "", key(one)),
            (&bearer_first, "Bearer k", key("k")),
            (&bearer_first, "Basic dTpr", key(one)),
            (&bearer_first, "Bearer k, k", Err(SeveralKeys)),
            (&bearer_first, "Bearer", Err(Malformed)),
            (&own_first, &format!("Bearer {other}"), Err(SeveralKeys)),
            (&own_first, &format!("Bearer {one}"), Err(SeveralKeys)),
            (&own_first, other, Err(SeveralKeys)),
            (&own_first, &basic_of(other), Err(SeveralKeys)),
            (&bearer_first, &format!("Bearer {other}"), Err(SeveralKeys)),
            (&basic_first, &basic_of(other), Err(SeveralKeys)),
            (&basic_first, &basic_of("k"), key("k")),
            (&basic_first, "Basic \u{e9}", Err(Malformed)),
        ] {
            for headers in [
                [("authorization", authorization), ("x-api-key", one)],
                [("x-api-key", one), ("authorization", authorization)],
            ] {
                assert_eq!(read(credentials, &headers), expected, "{authorization}");
            }
        }
        let only_foreign = [("authorization", "Basic dTpr")];
        assert_eq!(read(&own_first, &only_foreign), Err(Malformed));
    }

    fn cookie(name: &str) -> CredentialSource {
        CredentialSource::Cookie {
            name: Token::parse(name).unwrap(),
        }
    }

    fn websocket_protocol(prefix: &str) -> CredentialSource {
        CredentialSource::WebsocketProtocol {
            prefix: Token::parse(prefix).unwrap(),
        }
    }

    /// The key of a request with these values of a header, and what is left of the header.
    fn stripped(
        source: CredentialSource,
        values: &[&[u8]],
    ) -> (Result<Option<String>, CredentialError>, String) {
        let name = source.header().to_owned();
        let headers: Vec<_> = values.iter().map(|value| (name.as_str(), *value)).collect();
        let credentials = Credentials {
            sources: vec![source],
            partner: None,
        };
        let read = credentials.read(&headers);
        let key = read.map(|presented| presented.key.map(Cow::into_owned));
        let [(left_of, left)] = credentials.without_keys(&headers).try_into().unwrap();
        assert_eq!(left_of, name);
        (key, left)
    }

    /// Seen red with the case of the name ignored, with spaces around the name kept, and without the joined headers.
    #[test]
    fn a_cookie_carries_a_key_beside_others() {
        use CredentialError::{Malformed, SeveralKeys};
        let key = |key: &str| Ok(Some(key.to_owned()));
        for (values, expected, left) in [
            (&[][..], Ok(None), ""),
            (&["id=k"], key("k"), ""),
            (&["a=b; id=k; c=d"], key("k"), "a=b; c=d"),
            (&["a=b;id=k;c=d"], key("k"), "a=b; c=d"),
            (&["a=b", "id=k", "c=\u{e9}"], key("k"), "a=b; c=\u{e9}"),
            (
                &["a=id=x; xid=y; Id=z; flag"],
                Ok(None),
                "a=id=x; xid=y; Id=z; flag",
            ),
            (&["id = k ; a"], key("k"), "a"),
            (&["id="], Ok(None), ""),
            (&["id=k; id=l; a=b"], Err(SeveralKeys), "a=b"),
            (&["id=k", "id=k"], Err(SeveralKeys), ""),
            (&["id=k k"], Err(Malformed), ""),
            (&["id=\u{e9}; a=b"], Err(Malformed), "a=b"),
            (&["id=k,l"], Err(Malformed), ""),
            (&["a=b,id=k"], Err(Malformed), ""),
            (&["a=b, c=d,  id=k; e=f"], Err(Malformed), "e=f"),
        ] {
            let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            let found = stripped(cookie("id"), &values);
            assert_eq!(found, (expected, left.to_owned()), "{values:?}");
        }
        let found = stripped(cookie("id"), &[&b"a=\xff; id=k; b=c"[..]]);
        assert_eq!(found, (key("k"), "b=c".to_owned()));
    }

    #[test]
    fn a_websocket_protocol_carries_a_key_beside_others() {
        use CredentialError::{Malformed, SeveralKeys};
        let key = |key: &str| Ok(Some(key.to_owned()));
        for (values, expected, left) in [
            (&["app"][..], Ok(None), "app"),
            (&["x.k, app"], key("k"), "app"),
            (&["app,x.k,  other"], key("k"), "app, other"),
            (&["app", "x.k"], key("k"), "app"),
            (&["x."], Ok(None), ""),
            (&["X.k, app"], Ok(None), "X.k, app"),
            (&["x.k, x.l, app"], Err(SeveralKeys), "app"),
            (&["x.k l, app"], Err(Malformed), "app"),
        ] {
            let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            let found = stripped(websocket_protocol("x."), &values);
            assert_eq!(found, (expected, left.to_owned()), "{values:?}");
        }
    }

    /// Seen red without the limit.
    #[test]
    fn a_shared_header_has_a_limit_and_any_other_has_none() {
        let of = |source, length: usize| {
            let value = format!("a={}; id=k", "b".repeat(length - 8));
            assert_eq!(value.len(), length);
            stripped(source, &[value.as_bytes()]).0
        };
        assert_eq!(of(cookie("id"), MAX_SHARED), Ok(Some("k".to_owned())));
        let too_long = of(cookie("id"), MAX_SHARED + 1);
        assert_eq!(too_long, Err(CredentialError::Malformed));
        let long = "b".repeat(MAX_SHARED + 1);
        let headers = [("x-api-key", "k"), ("x-api-user", "m"), ("cookie", &*long)];
        assert!(read(&merchant(), &headers).is_ok());
    }

    #[test]
    fn all_keys_leave_a_header_that_several_sources_share() {
        let credentials = Credentials {
            sources: vec![cookie("a"), cookie("b"), header("x-api-key", None)],
            partner: None,
        };
        let headers = [("cookie", &b"c=1; b=2; a=3; d=4"[..])];
        let left = credentials.without_keys(&headers);
        assert_eq!(left, [("cookie", "c=1; d=4".to_owned())]);
        assert_eq!(
            credentials.read(&headers).ok().unwrap().key.as_deref(),
            Some("3")
        );
    }
}
