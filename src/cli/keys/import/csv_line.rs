//! Rows in CSV.

use std::collections::BTreeMap;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::entry::{Cell, Field, Row};
use crate::cli::flags;

/// Parses the header line.
pub(super) fn header(line: &str) -> Result<Vec<Field>, String> {
    let mut columns = Vec::new();
    for (index, name) in record(line)?.iter().enumerate() {
        let field = Field::find(name, index)?;
        if columns.contains(&field) {
            return Err(format!("the header line has `{name}` twice"));
        }
        columns.push(field);
    }
    if !columns.contains(&Field::PlainKey) && !columns.contains(&Field::Sha256) {
        return Err("the header line has neither `plain_key` nor `sha256`".to_owned());
    }
    Ok(columns)
}

/// Parses a line. An empty cell leaves its field unset.
pub(super) fn parse(line: &str, columns: &[Field]) -> Result<Row, String> {
    let record = record(line)?;
    if record.len() != columns.len() {
        return Err(format!(
            "it has {} columns, but the header line has {}",
            record.len(),
            columns.len()
        ));
    }
    let mut row = Row::default();
    for (field, cell) in columns.iter().zip(&record) {
        if !cell.is_empty() {
            row.set(*field, CsvCell(cell))?;
        }
    }
    Ok(row)
}

/// Splits one line into its cells. Lines are parsed one by one, because in a whole file an unclosed quotation mark would turn
/// the rest of the file into one cell. No field may contain a line break, so this loses nothing.
fn record(line: &str) -> Result<StringRecord, String> {
    if !line.matches('"').count().is_multiple_of(2) {
        return Err("a quotation mark is not closed on its line".to_owned());
    }
    let mut record = StringRecord::new();
    let read = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .buffer_capacity(line.len().max(1))
        .from_reader(line.as_bytes())
        .read_record(&mut record);
    // The reader's own error is dropped, because it may contain the key.
    match read {
        Ok(true) => Ok(record),
        _ => Err("it is not a line of comma-separated values".to_owned()),
    }
}

struct CsvCell<'a>(&'a str);

impl Cell for CsvCell<'_> {
    fn string(self) -> Result<String, &'static str> {
        Ok(self.0.to_owned())
    }

    fn list(self) -> Result<Vec<String>, &'static str> {
        Ok(self.0.split_whitespace().map(str::to_owned).collect())
    }

    fn flag(self) -> Result<bool, &'static str> {
        match self.0.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("must be `true` or `false`"),
        }
    }

    fn pairs(self) -> Result<BTreeMap<String, String>, &'static str> {
        let pairs = self.0.split(';').map(str::trim);
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(flags::pair);
        let pairs = pairs.collect::<Result<_, _>>();
        flags::by_name(pairs.map_err(|_| "must look like `name=value;name=value`")?)
            .map_err(|_| "a name is given twice")
    }
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::ImportEntry;
    use crate::pb::claviger::v1::import_entry::Secret;

    use super::*;

    fn entry(head: &str, line: &str, defaults: &Row) -> Result<ImportEntry, String> {
        let columns = header(head)?;
        Ok(parse(line, &columns)?.into_entry(defaults)?.message)
    }

    #[test]
    fn a_line_is_an_entry() {
        let head = "plain_key, partner,project,level,environment,name,external_id,scopes,full_access,expire_time,labels,\
                    allowed_cidrs";
        let line = "TtgGcQFq.s3fzs3fzs3fz,acme,web,project,production,\"CI, \"\"nightly\"\"\",21fd1a8d,read write,false,\
                    2030-01-31T12:00:00Z,team=a;tier=b=c,10.0.0.0/8 ::1/128";
        let entry = entry(head, line, &Row::default()).unwrap();
        assert!(
            matches!(&entry.secret, Some(Secret::PlainKey(key)) if key == "TtgGcQFq.s3fzs3fzs3fz")
        );
        assert_eq!(
            (entry.partner.as_str(), entry.project.as_str()),
            ("acme", "web")
        );
        assert_eq!((entry.level, entry.environment.as_str()), (2, "production"));
        assert_eq!(entry.name, "CI, \"nightly\"");
        assert_eq!(entry.external_id, "21fd1a8d");
        assert_eq!(entry.scopes, ["read", "write"]);
        assert_eq!(
            entry.expire_time.unwrap().to_string(),
            "2030-01-31T12:00:00Z"
        );
        assert_eq!(entry.labels["tier"], "b=c");
        assert_eq!(entry.allowed_cidrs, ["10.0.0.0/8", "::1/128"]);
    }

    #[test]
    fn an_empty_cell_leaves_it_to_the_flags() {
        let defaults = Row {
            partner: Some("acme".to_owned()),
            scopes: Some(vec!["read".to_owned()]),
            ..Row::default()
        };
        let head = "plain_key,partner,scopes,full_access";
        let own = entry(head, "t,,,", &defaults).unwrap();
        assert_eq!((own.partner.as_str(), own.scopes.len()), ("acme", 1));
        let own = entry(head, "t,other,write,", &defaults).unwrap();
        assert_eq!(
            (own.partner.as_str(), own.scopes[0].as_str()),
            ("other", "write")
        );
        let own = entry(head, "t,,,true", &defaults).unwrap();
        assert!(own.full_access && own.scopes.is_empty());
    }

    #[test]
    fn full_access_is_no_default_of_an_entry_that_has_scopes() {
        let defaults = Row {
            full_access: Some(true),
            ..Row::default()
        };
        let head = "plain_key,scopes,full_access";
        assert!(entry(head, "t,,", &defaults).unwrap().full_access);
        assert!(!entry(head, "t,read,", &defaults).unwrap().full_access);
        assert!(!entry(head, "t,,false", &defaults).unwrap().full_access);
    }

    #[test]
    fn the_header_line_is_checked_before_anything_is_sent() {
        for (head, why) in [
            (
                "plain_key,owner",
                "`owner` is not known; known are plain_key, sha256, partner",
            ),
            ("plain_key,partner,partner", "`partner` twice"),
            ("partner,name", "neither `plain_key` nor `sha256`"),
        ] {
            let error = header(head).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_key_in_the_place_of_a_column_is_not_repeated() {
        let error = header("TtgGcQFq.s3fzs3fzs3fzs3fz,acme").unwrap_err();
        assert!(
            error.contains("field 1") && !error.contains("s3fz"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_line_says_why_and_not_what_it_holds() {
        for (line, why) in [
            ("secret,read", "it has 2 columns, but the header line has 4"),
            (
                "\"secret,read,,",
                "a quotation mark is not closed on its line",
            ),
            (
                "secret,read,secret,",
                "full_access: must be `true` or `false`",
            ),
            (
                "secret,,,secret",
                "labels: must look like `name=value;name=value`",
            ),
            (
                ",read,,",
                "plain_key: is required: set either `plain_key` or `sha256`",
            ),
        ] {
            let entry = entry("plain_key,scopes,full_access,labels", line, &Row::default());
            assert_eq!(entry.err().as_deref(), Some(why));
        }
    }

    #[test]
    fn an_api_key_and_its_hash_have_the_same_digest() {
        fn digest(head: &str, line: &str) -> Result<u64, String> {
            let row = parse(line, &header(head).unwrap()).unwrap();
            row.into_entry(&Row::default()).map(|entry| entry.digest)
        }
        // SHA-256 of `abc`, by FIPS 180-2.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let base64 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let url_safe = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
        let plain = digest("plain_key", "abc");
        for hash in [hex, &hex.to_uppercase(), base64, url_safe] {
            assert_eq!(digest("sha256", hash), plain, "{hash}");
        }
        for wrong in ["ba78", &hex[..62], &base64[..40], "?"] {
            assert!(digest("sha256", wrong).is_err(), "{wrong}");
        }
    }
}
