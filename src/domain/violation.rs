//! What is wrong with a request, field by field.

use serde::{Deserialize, Serialize};

/// One field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The field's path in the request, such as `scopes[2]` or `realm.prefix`.
    pub field: String,
    /// What is wrong and what would be right. Never repeats what was sent.
    pub description: String,
}

/// Collects all that is wrong, so that the asker hears of everything at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Notes that `field` is wrong.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            description: description.into(),
        });
    }

    /// The value if it is right; otherwise notes why not.
    pub fn check<T>(
        &mut self,
        field: impl Into<String>,
        value: Result<T, &'static str>,
    ) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(description) => {
                self.add(field, description);
                None
            }
        }
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `built` if nothing is wrong.
    ///
    /// # Errors
    /// All that was noted.
    ///
    /// # Panics
    /// If `built` is `None` although nothing was noted: whoever withholds a value must say why.
    pub fn finish<T>(self, built: Option<T>) -> Result<T, Vec<Violation>> {
        if self.0.is_empty() {
            Ok(built.expect("a value is only withheld with a violation"))
        } else {
            Err(self.0)
        }
    }
}
