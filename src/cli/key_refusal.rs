//! The refusal of the key that a command calls with: what is wrong with the key, and what to do.

use std::collections::HashMap;

use prost_types::Timestamp;

use super::when;

/// Parts of the messages of servers that tell no facts of the key.
const MESSAGES: [(&str, Objection); 6] = [
    ("does not know the caller's key", Objection::Unknown),
    ("the caller's key is revoked", Objection::Revoked),
    ("the caller's key is disabled", Objection::Disabled),
    (
        "the caller's key or its old secret has expired",
        Objection::Expired,
    ),
    (
        "the partner that owns the caller's key is suspended",
        Objection::PartnerSuspended,
    ),
    (
        "the caller's key may not be used from this address",
        Objection::AddressDenied,
    ),
];

/// What the server has against the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Objection {
    Unknown,
    Revoked,
    Disabled,
    Expired,
    OldSecret,
    PartnerSuspended,
    AddressDenied,
}

/// The refusal of the key that a command calls with, and what the server tells of this key.
#[derive(Debug)]
pub(super) struct KeyRefusal<'s> {
    objection: Objection,
    /// The metadata of the server's `ErrorInfo`.
    facts: &'s HashMap<String, String>,
}

impl<'s> KeyRefusal<'s> {
    /// The refusal that an error is about; `None` if the error is about something else.
    pub(super) fn of(message: &str, facts: &'s HashMap<String, String>) -> Option<Self> {
        let objection = match facts.get("verdict").map(String::as_str) {
            Some("VERDICT_REVOKED") => Objection::Revoked,
            Some("VERDICT_DISABLED") => Objection::Disabled,
            Some("VERDICT_EXPIRED") if facts.contains_key("old_expire_time") => {
                Objection::OldSecret
            }
            Some("VERDICT_EXPIRED") => Objection::Expired,
            Some("VERDICT_PARTNER_SUSPENDED") => Objection::PartnerSuspended,
            Some("VERDICT_ADDRESS_DENIED") => Objection::AddressDenied,
            _ => {
                let mut messages = MESSAGES.iter();
                messages.find(|(part, _)| message.contains(part))?.1
            }
        };
        Some(Self { objection, facts })
    }

    fn fact(&self, name: &str) -> Option<&'s str> {
        self.facts.get(name).map(String::as_str)
    }

    /// A time in both forms, in brackets; empty if the server does not tell the time.
    fn time(&self, name: &str, now: &Timestamp) -> String {
        let time = self.fact(name).and_then(|time| time.parse().ok());
        time.map_or_else(String::new, |at: Timestamp| {
            let (minute, ago) = (when::minute(&at, now), when::ago(&at, now));
            format!(" ({minute} UTC, {ago})")
        })
    }

    /// What is wrong, and with which key: `your key has expired (25 Nov 22:25 UTC, 2 h ago): "demo manager", …WRWi`.
    pub(super) fn sentence(&self, now: &Timestamp) -> String {
        let sentence = match self.objection {
            Objection::Unknown => "this authority does not know your key".to_owned(),
            Objection::Revoked => format!("your key is revoked{}", self.time("revoke_time", now)),
            Objection::Disabled => "your key is disabled".to_owned(),
            Objection::Expired => {
                format!("your key has expired{}", self.time("expire_time", now))
            }
            Objection::OldSecret => format!(
                "your API key was replaced by a rotation, and has expired{}",
                self.time("old_expire_time", now)
            ),
            Objection::PartnerSuspended => match self.fact("partner") {
                Some(partner) => format!("the partner of your key is suspended: {partner}"),
                None => "the partner of your key is suspended".to_owned(),
            },
            Objection::AddressDenied => "your key may not be used from this address".to_owned(),
        };
        let name = self.fact("name").map(|name| format!("\"{name}\""));
        let hint = self.fact("hint").map(end_of_hint);
        let key: Vec<_> = [name, hint].into_iter().flatten().collect();
        if key.is_empty() {
            return sentence;
        }
        let separator = if sentence.contains(": ") { ";" } else { ":" };
        format!("{sentence}{separator} {}", key.join(", "))
    }

    /// What to do. `other_key` says how to call with another key, `source` where this one came from.
    pub(super) fn hint(&self, server: &str, other_key: &str, source: &str) -> String {
        let remedy = match self.objection {
            Objection::Unknown => format!(
                "it may be mistyped, deleted, replaced by a rotation, or of another authority than {server}; {other_key}"
            ),
            Objection::Revoked | Objection::Expired => other_key.to_owned(),
            Objection::Disabled => {
                let key = self.fact("hint").map(end_of_hint);
                let key = key.as_deref().or(self.fact("key_id")).unwrap_or("KEY");
                let realm = self.fact("realm").unwrap_or("REALM");
                format!(
                    "an administrator can enable it: claviger keys enable {key} --realm {realm}; or {other_key}"
                )
            }
            Objection::OldSecret => {
                format!("use the new API key that the rotation has made: {other_key}")
            }
            Objection::PartnerSuspended => {
                let fact = |name, other| self.fact(name).unwrap_or(other);
                let (partner, realm) = (fact("partner", "ID"), fact("realm", "REALM"));
                format!(
                    "an administrator can restore it: claviger partner restore {partner} --realm {realm}"
                )
            }
            Objection::AddressDenied => {
                let key = self.fact("key_id").unwrap_or("KEY");
                format!(
                    "call from an address in the key's ranges; an administrator can change them: \
                     claviger keys update {key} --allow-cidr CIDR"
                )
            }
        };
        format!("{remedy}; this one came from {source}")
    }
}

/// The end of a hint, which tells a key from the others of its holder: `…WRWi`. The hint of a digest stays whole.
fn end_of_hint(hint: &str) -> String {
    match hint.split_once('…') {
        Some((_, end)) if !end.is_empty() => format!("…{end}"),
        _ => hint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-26T00:25:00Z".parse().unwrap()
    }

    fn said(facts: &[(&str, &str)]) -> (String, String) {
        let facts = facts.iter().copied();
        let facts = facts.map(|(name, fact)| (name.to_owned(), fact.to_owned()));
        let facts = facts.collect();
        let refusal = KeyRefusal::of("whatever the server says", &facts).unwrap();
        let other = "claviger login, or --key-file FILE";
        let hint = refusal.hint("127.0.0.1:7700", other, "context prod");
        (refusal.sentence(&now()), hint)
    }

    #[test]
    fn a_refusal_names_the_key_and_the_time_and_fits_the_screen() {
        let (sentence, hint) = said(&[
            ("verdict", "VERDICT_EXPIRED"),
            ("name", "demo manager"),
            ("hint", "claviger_main_…WRWi"),
            ("expire_time", "2026-11-25T22:25:00Z"),
        ]);
        assert_eq!(
            sentence,
            "your key has expired (25 Nov 22:25 UTC, 2 h ago): \"demo manager\", …WRWi"
        );
        assert_eq!(
            hint,
            "claviger login, or --key-file FILE; this one came from context prod"
        );
        for line in [sentence, hint] {
            assert!("error: ".len() + line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_refusal_says_as_much_as_the_server_tells() {
        for (facts, sentence) in [
            (
                &[("verdict", "VERDICT_EXPIRED")][..],
                "your key has expired",
            ),
            (
                &[
                    ("verdict", "VERDICT_EXPIRED"),
                    ("old_expire_time", "2026-11-25T22:25:00Z"),
                    ("hint", "hmac:0a0b0c0d…"),
                ],
                "your API key was replaced by a rotation, and has expired (25 Nov 22:25 UTC, 2 h ago): hmac:0a0b0c0d…",
            ),
            (
                &[
                    ("verdict", "VERDICT_REVOKED"),
                    ("revoke_time", "2025-11-25T22:25:00Z"),
                    ("name", "ci"),
                ],
                "your key is revoked (25 Nov 2025 22:25 UTC, 1 y ago): \"ci\"",
            ),
            (
                &[("verdict", "VERDICT_REVOKED"), ("revoke_time", "soon")],
                "your key is revoked",
            ),
            (
                &[
                    ("verdict", "VERDICT_PARTNER_SUSPENDED"),
                    ("partner", "globex"),
                    ("hint", "…WRWi"),
                ],
                "the partner of your key is suspended: globex; …WRWi",
            ),
        ] {
            assert_eq!(said(facts).0, sentence);
        }
    }

    #[test]
    fn the_hint_follows_the_reason() {
        let came = "; this one came from context prod";
        let other = "claviger login, or --key-file FILE";
        for (verdict, remedy) in [
            ("REVOKED", other.to_owned()),
            (
                "DISABLED",
                format!(
                    "an administrator can enable it: claviger keys enable …WRWi --realm demo; or {other}"
                ),
            ),
            (
                "PARTNER_SUSPENDED",
                "an administrator can restore it: claviger partner restore globex --realm demo"
                    .to_owned(),
            ),
        ] {
            let (_, hint) = said(&[
                ("verdict", &format!("VERDICT_{verdict}")),
                ("hint", "demo_live_…WRWi"),
                ("partner", "globex"),
                ("realm", "demo"),
            ]);
            assert_eq!(hint, format!("{remedy}{came}"));
        }
    }

    #[test]
    fn a_server_that_tells_no_facts_is_understood_by_its_message() {
        let none = HashMap::new();
        for (message, sentence) in [
            (
                "this authority does not know the caller's key: check that it is the right one",
                "this authority does not know your key",
            ),
            (
                "the caller's key or its old secret has expired: use the new secret, or another key",
                "your key has expired",
            ),
        ] {
            let refusal = KeyRefusal::of(message, &none).unwrap();
            assert_eq!(refusal.sentence(&now()), sentence);
        }
        assert!(KeyRefusal::of("the caller's key may not do this", &none).is_none());
    }
}
