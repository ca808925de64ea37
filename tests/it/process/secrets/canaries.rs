//! Recognisable secrets, and the search for them.

use base64::Engine as _;
use base64::prelude::{
    BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD,
};

/// What must not be found anywhere, each with what it is.
#[derive(Default)]
pub(super) struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    pub(super) fn plant(&mut self, what: &str, text: &str) -> String {
        self.0.push((what.to_owned(), text.as_bytes().to_vec()));
        text.to_owned()
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// A key, and the secret in it by itself.
    pub(super) fn plant_key(&mut self, what: &str, key: &str) {
        self.plant(what, key);
        let body = key.rsplit('_').next().unwrap();
        self.plant(&format!("the secret of {what}"), &body[22..65]);
        let text = claviger::domain::key_text::parse(key).unwrap();
        self.plant_bytes(&format!("the secret of {what}"), text.secret.expose());
    }

    /// The bytes of a secret, in every form that a careless line could give them.
    pub(super) fn plant_bytes(&mut self, what: &str, bytes: &[u8]) {
        let list = |between| {
            bytes
                .iter()
                .map(u8::to_string)
                .collect::<Vec<_>>()
                .join(between)
        };
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = digits.concat();
        for (form, text) in [
            ("in capital hexadecimals", hex.to_uppercase()),
            ("in hexadecimals", hex),
            ("as a list", list(", ")),
            ("as a list of JSON", list(",")),
            ("in base64", STANDARD_NO_PAD.encode(bytes)),
            ("in base64 for URLs", URL_SAFE_NO_PAD.encode(bytes)),
        ] {
            self.0.push((format!("{what} {form}"), text.into_bytes()));
        }
        self.0.push((format!("{what} as it is"), bytes.to_vec()));
    }

    pub(super) fn assert_absent(&self, location: &str, bytes: &[u8]) {
        for (what, text) in &self.0 {
            let found = bytes.windows(text.len()).any(|window| window == text);
            assert!(!found, "{what} stands in {location}");
        }
    }
}
