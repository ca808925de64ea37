//! The violations of a request, by field.

use serde::{Deserialize, Serialize};

/// A field of a request that violates a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The field's path in the request, such as `scopes[2]` or `realm.prefix`.
    pub field: String,
    /// The violated rule, and how to satisfy it. Never contains the value that was sent.
    pub description: String,
}

/// A list of violations, so that a caller gets all of them in one answer.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Adds a violation of `field`.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            description: description.into(),
        });
    }

    /// Returns the value if it is valid, and otherwise adds a violation of `field`.
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

    /// Returns whether there is no violation so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `built` if there is no violation.
    ///
    /// # Errors
    /// All violations, if there are any.
    ///
    /// # Panics
    /// If `built` is `None` although there is no violation.
    pub fn finish<T>(self, built: Option<T>) -> Result<T, Vec<Violation>> {
        if self.0.is_empty() {
            Ok(built.expect("a missing value has a violation"))
        } else {
            Err(self.0)
        }
    }
}
