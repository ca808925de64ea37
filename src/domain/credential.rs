//! The places that carry the credentials of an API's requests.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// The maximum number of credential sources of a realm.
pub const MAX_SOURCES: usize = 8;

/// The places that carry the credentials of a realm's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The places that may carry the API key. Without any, gateways let only public routes through.
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
}

impl CredentialSource {
    /// Returns the header that carries the API key.
    pub fn header(&self) -> &HeaderName {
        let Self::Header { name, .. } = self;
        name
    }

    /// Returns the scheme before the API key.
    pub fn scheme(&self) -> Option<&Scheme> {
        let Self::Header { scheme, .. } = self;
        scheme.as_ref()
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

    /// Returns the API key after the scheme and one or more spaces (RFC 9110, section 11.4). The scheme is case-insensitive.
    fn key<'v>(&self, value: &'v str) -> Result<Cow<'v, str>, Malformed> {
        let (scheme, rest) = value.split_once(' ').ok_or(Malformed)?;
        if !scheme.eq_ignore_ascii_case(&self.0) {
            return Err(Malformed);
        }
        let rest = rest.trim_start_matches(' ');
        if scheme.eq_ignore_ascii_case("Basic") {
            return basic(rest).map(Cow::Owned);
        }
        Ok(Cow::Borrowed(rest))
    }
}

/// Returns the password in credentials of the scheme `Basic` (RFC 7617, section 2). Without a password the key is the user name:
/// clients such as `curl -u KEY:` put it there. A user name beside a password says nothing, so it may be any text without control
/// characters.
fn basic(credentials: &str) -> Result<String, Malformed> {
    let decoded = BASE64.decode(credentials).map_err(|_| Malformed)?;
    let decoded = str::from_utf8(&decoded).map_err(|_| Malformed)?;
    let (user, password) = decoded.split_once(':').ok_or(Malformed)?;
    if user.chars().any(char::is_control) {
        return Err(Malformed);
    }
    let key = if password.is_empty() { user } else { password };
    Ok(text(key.as_bytes())?.to_owned())
}

/// The credentials that a request presents.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented<'r> {
    /// The API key; empty if there is none.
    pub key: Cow<'r, str>,
    /// The partner that the request names; empty if there is none.
    pub partner: &'r str,
}

/// The credentials of a request are malformed.
///
/// Examples are a key that occurs twice or in two places, another scheme, bytes that no key has, and a missing partner where
/// the API requires one. The client is at fault, so the result is a denial and never an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Credentials {
    /// Reads the credentials of a request.
    ///
    /// `headers` are the headers of the request, with names in lower case and one entry for each occurrence. A gateway may have
    /// joined several occurrences with commas, which no key and no partner id contains.
    ///
    /// # Errors
    /// [`Malformed`], if the credentials do not have the one accepted form.
    pub fn read<'r>(
        &self,
        headers: impl Iterator<Item = (&'r str, &'r [u8])>,
    ) -> Result<Presented<'r>, Malformed> {
        let mut key = None;
        let mut partner = None;
        for (name, value) in headers {
            let mut sources = self.sources.iter();
            if let Some(source) = sources.find(|source| source.header().as_str() == name) {
                let value = text(value)?;
                let found = match source.scheme() {
                    Some(scheme) => scheme.key(value)?,
                    None => Cow::Borrowed(value),
                };
                if found.contains(' ') || key.replace(found).is_some() {
                    return Err(Malformed);
                }
            }
            if self
                .partner
                .as_ref()
                .is_some_and(|partner| partner.as_str() == name)
            {
                let value = text(value)?;
                if value.is_empty() || value.contains(' ') || partner.replace(value).is_some() {
                    return Err(Malformed);
                }
            }
        }
        if self.partner.is_some() && key.is_some() && partner.is_none() {
            return Err(Malformed);
        }
        Ok(Presented {
            key: key.unwrap_or_default(),
            partner: partner.unwrap_or_default(),
        })
    }

    /// Returns all headers that carry credentials: those of the keys and that of the partner.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.key_headers().chain(&self.partner)
    }

    /// Returns the headers that carry a key. A server behind the gateway does not need them.
    pub fn key_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.sources.iter().map(CredentialSource::header)
    }
}

/// Returns the value as text if it is printable ASCII or spaces, without a comma. The caller checks the spaces.
fn text(value: &[u8]) -> Result<&str, Malformed> {
    let fits = value
        .iter()
        .all(|byte| (byte.is_ascii_graphic() || *byte == b' ') && *byte != b',');
    if fits {
        std::str::from_utf8(value).map_err(|_| Malformed)
    } else {
        Err(Malformed)
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
    ) -> Result<(String, String), Malformed> {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        let presented = credentials.read(headers)?;
        Ok((presented.key.into_owned(), presented.partner.to_owned()))
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
        assert_eq!(
            read(&bearer(), &[("x-api-key", "k")]),
            Ok((String::new(), String::new()))
        );
        assert_eq!(read(&merchant(), &[]), Ok((String::new(), String::new())));
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
        assert_eq!(of(b":", "Basic"), key(""));
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
            assert_eq!(of(malformed, "Basic"), Err(Malformed), "{malformed:?}");
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
                Err(Malformed),
                "{value}"
            );
        }
        for value in ["Basic dTpr", "Basic  dTpr"] {
            assert_eq!(read(&basic, &[("authorization", value)]), key("k"));
        }
    }

    #[test]
    fn credentials_in_another_form_are_malformed() {
        for value in [
            "",
            "Bearer",
            "k",
            "Basic k",
            " Bearer k",
            "Bearer k ",
            "Bearer\tk",
            "Bearer k, Bearer l",
            "Bearer k,l",
            "Bearer k\u{7f}",
            "Bearerk",
            "Bearer k k",
            "Bearer é",
        ] {
            assert_eq!(
                read(&bearer(), &[("authorization", value)]),
                Err(Malformed),
                "{value:?}"
            );
        }
        for headers in [
            &[("authorization", "Bearer k"), ("authorization", "Bearer k")][..],
            &[("authorization", "Bearer k"), ("authorization", "Basic x")],
        ] {
            assert_eq!(read(&bearer(), headers), Err(Malformed), "{headers:?}");
        }
        for headers in [
            &[("x-api-key", "k")][..],
            &[("x-api-key", "k"), ("x-api-user", "")],
            &[("x-api-key", "k"), ("x-api-user", "a"), ("x-api-user", "b")],
            &[("x-api-key", "k"), ("x-api-user", "a,b")],
            &[("x-api-key", "k"), ("x-api-user", "a b")],
            &[("x-api-key", "k"), ("x-api-key", "l"), ("x-api-user", "a")],
        ] {
            assert_eq!(read(&merchant(), headers), Err(Malformed), "{headers:?}");
        }
        let two = Credentials {
            sources: vec![
                header("authorization", Some("Bearer")),
                header("x-api-key", None),
            ],
            partner: None,
        };
        assert_eq!(
            read(&two, &[("authorization", "Bearer k"), ("x-api-key", "k")]),
            Err(Malformed)
        );
        assert_eq!(
            read(&two, &[("x-api-key", "k")]),
            Ok(("k".into(), String::new()))
        );
    }
}
