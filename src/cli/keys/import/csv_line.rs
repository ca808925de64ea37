//! Entries as lines of comma-separated values.

use std::collections::BTreeMap;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::entry::{Cell, Field, Said};
use crate::cli::flags;

/// The columns that the header line names.
pub(super) fn header(line: &str) -> Result<Vec<Field>, String> {
    let mut columns = Vec::new();
    for (place, name) in record(line)?.iter().enumerate() {
        let field = Field::find(name, place)
            .map_err(|why| format!("the header line does not fit: {why}"))?;
        if columns.contains(&field) {
            return Err(format!("the header line has `{name}` twice"));
        }
        columns.push(field);
    }
    if !columns.contains(&Field::Text) && !columns.contains(&Field::Sha256) {
        return Err("the header line has neither `text` nor `sha256`".to_owned());
    }
    Ok(columns)
}

/// What a line says; an empty cell says nothing.
pub(super) fn said(line: &str, columns: &[Field]) -> Result<Said, String> {
    let record = record(line)?;
    if record.len() != columns.len() {
        return Err(format!(
            "it has {} columns, and the header line {}",
            record.len(),
            columns.len()
        ));
    }
    let mut said = Said::default();
    for (field, cell) in columns.iter().zip(&record) {
        if !cell.is_empty() {
            said.set(*field, CsvCell(cell))?;
        }
    }
    Ok(said)
}

/// A line is read for itself. To the whole file a quotation mark that is not closed would turn all that follows into one
/// cell; nothing that an entry says may hold a line break, so none is lost.
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
    // The reader's own complaint is dropped, lest it tell what it found.
    match read {
        Ok(true) => Ok(record),
        _ => Err("it is no line of comma-separated values".to_owned()),
    }
}

struct CsvCell<'a>(&'a str);

impl Cell for CsvCell<'_> {
    fn word(self) -> Result<String, &'static str> {
        Ok(self.0.to_owned())
    }

    fn list(self) -> Result<Vec<String>, &'static str> {
        Ok(self.0.split_whitespace().map(str::to_owned).collect())
    }

    fn flag(self) -> Result<bool, &'static str> {
        match self.0.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("it is `true` or `false`"),
        }
    }

    fn pairs(self) -> Result<BTreeMap<String, String>, &'static str> {
        let pairs = self.0.split(';').map(str::trim);
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(flags::pair);
        let pairs = pairs.collect::<Result<_, _>>();
        flags::by_name(pairs.map_err(|_| "it looks like `name=value;name=value`")?)
            .map_err(|_| "a name stands there twice")
    }
}

#[cfg(test)]
mod tests {
    use crate::pb::claviger::v1::ImportEntry;
    use crate::pb::claviger::v1::import_entry::Secret;

    use super::*;

    fn entry(head: &str, line: &str, defaults: &Said) -> Result<ImportEntry, String> {
        let columns = header(head)?;
        Ok(said(line, &columns)?.entry(defaults)?.message)
    }

    #[test]
    fn a_line_is_an_entry() {
        let head = "text, partner,project,level,environment,name,scopes,full_access,expire_time,labels,allowed_cidrs";
        let line = "TtgGcQFq.s3fzs3fzs3fz,acme,web,project,production,\"CI, \"\"nightly\"\"\",read write,false,\
                    2030-01-31T12:00:00Z,team=a;tier=b=c,10.0.0.0/8 ::1/128";
        let entry = entry(head, line, &Said::default()).unwrap();
        assert!(
            matches!(&entry.secret, Some(Secret::PlainKey(text)) if text == "TtgGcQFq.s3fzs3fzs3fz")
        );
        assert_eq!(
            (entry.partner.as_str(), entry.project.as_str()),
            ("acme", "web")
        );
        assert_eq!((entry.level, entry.environment.as_str()), (2, "production"));
        assert_eq!(entry.name, "CI, \"nightly\"");
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
        let defaults = Said {
            partner: Some("acme".to_owned()),
            scopes: Some(vec!["read".to_owned()]),
            ..Said::default()
        };
        let head = "text,partner,scopes,full_access";
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
        let defaults = Said {
            full_access: Some(true),
            ..Said::default()
        };
        let head = "text,scopes,full_access";
        assert!(entry(head, "t,,", &defaults).unwrap().full_access);
        assert!(!entry(head, "t,read,", &defaults).unwrap().full_access);
        assert!(!entry(head, "t,,false", &defaults).unwrap().full_access);
    }

    #[test]
    fn the_header_line_is_judged_before_anything_is_sent() {
        for (head, why) in [
            (
                "text,owner",
                "`owner` is not known; known are text, sha256, partner",
            ),
            ("text,partner,partner", "`partner` twice"),
            ("partner,name", "neither `text` nor `sha256`"),
        ] {
            let said = header(head).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_key_in_the_place_of_a_column_is_not_repeated() {
        let said = header("TtgGcQFq.s3fzs3fzs3fzs3fz,acme").unwrap_err();
        assert!(said.contains("field 1") && !said.contains("s3fz"), "{said}");
    }

    #[test]
    fn a_bad_line_says_why_and_not_what_it_holds() {
        for (line, why) in [
            ("secret,read", "it has 2 columns, and the header line 4"),
            (
                "\"secret,read,,",
                "a quotation mark is not closed on its line",
            ),
            (
                "secret,read,secret,",
                "full_access: it is `true` or `false`",
            ),
            (
                "secret,,,secret",
                "labels: it looks like `name=value;name=value`",
            ),
            (",read,,", "it has neither `text` nor `sha256`"),
        ] {
            let said = entry("text,scopes,full_access,labels", line, &Said::default());
            assert_eq!(said.err().as_deref(), Some(why));
        }
    }

    #[test]
    fn a_text_and_its_hash_are_known_as_the_same() {
        fn digest(head: &str, line: &str) -> Result<u64, String> {
            let said = said(line, &header(head).unwrap()).unwrap();
            said.entry(&Said::default()).map(|entry| entry.digest)
        }
        // SHA-256 of `abc`, by FIPS 180-2.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let base64 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let url_safe = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
        let text = digest("text", "abc");
        for hash in [hex, &hex.to_uppercase(), base64, url_safe] {
            assert_eq!(digest("sha256", hash), text, "{hash}");
        }
        for wrong in ["ba78", &hex[..62], &base64[..40], "?"] {
            assert!(digest("sha256", wrong).is_err(), "{wrong}");
        }
    }
}
