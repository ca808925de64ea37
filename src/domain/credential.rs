//! The places where an API's requests carry their credentials.

use serde::{Deserialize, Serialize};

/// The number of credential sources that a realm may have.
pub const MAX_SOURCES: usize = 8;

/// The places that carry the credentials of a realm's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The places that may carry the key. Without any, gateways let only public routes through.
    pub sources: Vec<CredentialSource>,
    /// The header that must name the partner, if the API has one.
    pub partner: Option<HeaderName>,
}

/// A place that may carry a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialSource {
    /// A header.
    Header {
        /// The name of the header.
        name: HeaderName,
        /// The scheme before the key, such as `Bearer`. `None`: the key stands alone.
        scheme: Option<Scheme>,
    },
}

impl CredentialSource {
    /// The header that carries the key.
    pub fn header(&self) -> &HeaderName {
        let Self::Header { name, .. } = self;
        name
    }

    /// The scheme before the key.
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
    /// Reads a name, in whatever case: names of headers are compared without it (RFC 9110, section 5.1).
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !fits {
            return Err(
                "must be the name of a header, such as x-api-key: letters, digits and hyphens",
            );
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The scheme of an `Authorization` header (RFC 9110, section 11.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scheme(String);

impl Scheme {
    /// Reads a scheme.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be a scheme such as Bearer")
        }
    }

    /// The scheme as the realm writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows it in a header's value: exactly one space, and then the rest. Its case does not count.
    fn strip<'v>(&self, value: &'v str) -> Option<&'v str> {
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case(&self.0).then_some(rest)
    }
}

/// What a request says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Presented<'r> {
    /// The text of the key; empty if there is none.
    pub key: &'r str,
    /// The partner that it names; empty if the API has no header for that.
    pub partner: &'r str,
}

/// The request does not say who it is in the one way in which it may: a key twice or in two places, another scheme, bytes that
/// no key has, no partner where there must be one. It is the presenter's fault and a denial, never an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Credentials {
    /// Reads what a request says. `headers` are its headers, names in lower case, one entry for each time that a header
    /// stands there. A gateway may have joined them with commas, which no key and no partner's id has.
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
                    Some(scheme) => scheme.strip(value).ok_or(Malformed)?,
                    None => value,
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

    /// Every header that says who a request is.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.secrets().chain(&self.partner)
    }

    /// Those that carry a key, which nobody behind the gateway has to see.
    pub fn secrets(&self) -> impl Iterator<Item = &HeaderName> {
        self.sources.iter().map(CredentialSource::header)
    }
}

/// A value of printable ASCII without a comma, in which a space may stand only where a scheme ends.
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
        Ok((presented.key.to_owned(), presented.partner.to_owned()))
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
    fn a_key_is_read_where_it_should_stand() {
        for value in ["Bearer k", "bearer k", "BEARER k"] {
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

    #[test]
    fn what_stands_there_in_another_way_is_malformed() {
        for value in [
            "",
            "Bearer",
            "k",
            "Basic k",
            "Bearer  k",
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
