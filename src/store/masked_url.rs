//! A database URL without its password.

/// What stands for a part that may be a secret.
const MASK: &str = "***";

/// The parameters whose values are shown. All others may be a secret, or contain one.
const SHOWN: [&str; 14] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Returns the URL with its password masked. A URL that is not of the simplest form is masked as a whole, because a part of its
/// password may be anywhere.
pub(super) fn masked(url: &str) -> String {
    try_masked(url).unwrap_or_else(|| MASK.to_owned())
}

fn try_masked(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "postgres" | "postgresql") {
        return None;
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, location) = match place.split_once('@') {
        Some((user, location)) => (masked_user(user)?, location),
        None => (String::new(), place),
    };
    if !is_location(location) {
        return None;
    }
    let parameters: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(masked_parameter)
        .collect::<Option<_>>()?;
    let query = match parameters.as_slice() {
        [] => String::new(),
        parameters => format!("?{}", parameters.join("&")),
    };
    Some(format!("{scheme}://{user}{location}{query}"))
}

/// `USER@` or `USER:***@`.
fn masked_user(text: &str) -> Option<String> {
    match text.split_once(':') {
        Some((user, _)) if is_plain(user) => Some(format!("{user}:{MASK}@")),
        None if is_plain(text) => Some(format!("{text}@")),
        _ => None,
    }
}

/// Whether this is `HOST:PORT/DATABASE`, of which each part may be missing.
fn is_location(text: &str) -> bool {
    let (address, database) = text.split_once('/').unwrap_or((text, ""));
    let (host, port) = match address.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((host, port)) => (host, port),
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    host.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'))
        && port.chars().all(|c| c.is_ascii_digit())
        && is_plain(database)
}

/// `NAME=VALUE`, or `NAME=***`. An unknown name may be a part of the password.
fn masked_parameter(pair: &str) -> Option<String> {
    let (name, value) = pair.split_once('=')?;
    if SHOWN.contains(&name) && value.chars().all(|c| is_plain_char(c) || c == '/') {
        return Some(pair.to_owned());
    }
    let is_known = name == "password" || SHOWN.contains(&name);
    is_known.then(|| format!("{name}={MASK}"))
}

fn is_plain(text: &str) -> bool {
    text.chars().all(is_plain_char)
}

fn is_plain_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_password_stays_as_it_is() {
        for url in [
            "postgres://claviger@db.example.com/claviger",
            "postgresql://claviger@db.example.com:5432/claviger?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem",
            "postgres://127.0.0.1/claviger",
            "postgres://claviger@[2001:db8::1]:5432/claviger",
            "postgres:///claviger?host=/run/postgresql",
            "postgres://",
        ] {
            assert_eq!(masked(url), url);
        }
    }

    /// Seen red with the part of the password after a `:` left, and with unknown parameters left as they are.
    #[test]
    fn no_part_of_a_password_is_shown() {
        for (url, shown) in [
            (
                "postgres://claviger:hunter2@db.example.com:5432/claviger?sslmode=verify-full",
                "postgres://claviger:***@db.example.com:5432/claviger?sslmode=verify-full",
            ),
            (
                "postgres://claviger:hun%74er2%40@db/claviger",
                "postgres://claviger:***@db/claviger",
            ),
            (
                "postgres://claviger:a:hunter2/b@db/claviger",
                "postgres://claviger:***@db/claviger",
            ),
            (
                "postgres://db/claviger?user=claviger&password=hunter2&port=5433",
                "postgres://db/claviger?user=claviger&password=***&port=5433",
            ),
            (
                "postgres://db/claviger?sslmode=hunter2%20",
                "postgres://db/claviger?sslmode=***",
            ),
            ("postgres://db/claviger?p%61ssword=hunter2", "***"),
            ("postgres://db/claviger?sslkey=hunter2", "***"),
            ("postgres://db/claviger?hunter2", "***"),
            ("postgres://db/claviger#hunter2", "***"),
            ("postgres://claviger:x@hunter2@db/claviger", "***"),
            ("postgres://claviger:1?hunter2=x@db/claviger", "***"),
            ("postgres://claviger:hunter2", "***"),
            ("postgres://claviger%3Ahunter2@db/claviger", "***"),
            ("postgres:/claviger:hunter2@db/claviger", "***"),
            ("mysql://claviger:hunter2@db/claviger", "***"),
            ("claviger:hunter2@db", "***"),
            ("hunter2", "***"),
            ("", "***"),
        ] {
            assert_eq!(masked(url), shown, "{url}");
        }
    }
}
