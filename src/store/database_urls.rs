//! The URLs of a database: one, or those of its primary and its standbys.

use std::fmt;

use super::{DatabaseUrl, OpenError};

/// The beginnings of a URL of a PostgreSQL database.
pub(super) const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// The URLs of the servers of one database, of which one is the primary. They may contain passwords and are therefore never shown.
///
/// As text they are separated by commas. A comma that no scheme follows belongs to its URL.
#[derive(Clone)]
pub struct DatabaseUrls(Vec<DatabaseUrl>);

impl DatabaseUrls {
    /// The URLs of several texts, in their order; `None` if there is no text.
    pub fn of(texts: &[Self]) -> Option<Self> {
        let urls: Vec<_> = texts.iter().flat_map(Self::iter).cloned().collect();
        (!urls.is_empty()).then_some(Self(urls))
    }

    /// The URLs, at least one.
    pub fn iter(&self) -> impl Iterator<Item = &DatabaseUrl> {
        self.0.iter()
    }

    /// Returns the text of the URLs with every part masked that may be a secret. It equals the text if there is no such part.
    pub fn masked(&self) -> String {
        let masked: Vec<_> = self.iter().map(DatabaseUrl::masked).collect();
        masked.join(",")
    }

    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// If a URL is not valid or not secure. The error contains no part of a URL.
    pub fn check(&self) -> Result<(), OpenError> {
        self.iter().try_for_each(DatabaseUrl::check)
    }
}

impl From<String> for DatabaseUrls {
    fn from(text: String) -> Self {
        let starts = text.match_indices(',').map(|(comma, _)| comma);
        let starts = starts.filter(|comma| {
            let rest = &text[comma + 1..];
            SCHEMES.iter().any(|scheme| rest.starts_with(scheme))
        });
        let mut urls = Vec::new();
        let mut start = 0;
        for comma in starts.chain([text.len()]) {
            urls.push(DatabaseUrl::from(text[start..comma].to_owned()));
            start = comma + 1;
        }
        Self(urls)
    }
}

impl fmt::Debug for DatabaseUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrls(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red with a split at every comma.
    #[test]
    fn a_comma_separates_urls_only_before_a_scheme() {
        for (text, masked) in [
            ("postgres://a@one/x", vec!["postgres://a@one/x"]),
            (
                "postgres://a@one/x,postgresql://a:secret@two/x",
                vec!["postgres://a@one/x", "postgresql://a:***@two/x"],
            ),
            ("postgres://a:b,c@one/x", vec!["postgres://a:***@one/x"]),
            ("", vec!["***"]),
            ("postgres://a@one/x,two", vec!["***"]),
        ] {
            let urls = DatabaseUrls::from(text.to_owned());
            assert_eq!(urls.masked(), masked.join(","), "{text}");
            assert_eq!(urls.iter().count(), masked.len(), "{text}");
        }
    }
}
