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

/// The number of violations that are kept. Nobody reads more at once, an answer has no room for more, and a request may have
/// thousands.
const MAX_KEPT: usize = 16;

/// The violations of a request, so that a caller gets many of them in one answer: the first ones, and the number of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    kept: Vec<Violation>,
    more: usize,
}

impl Violations {
    /// Adds a violation of `field`.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.kept.len() < MAX_KEPT {
            self.kept.push(Violation {
                field: field.into(),
                description: description.into(),
            });
        } else {
            self.more += 1;
        }
    }

    /// Adds the violations of a part of the request. Their fields get the path of the part, instead of `root` if they begin with it.
    pub fn add_within(&mut self, part: &str, root: &str, violations: Self) {
        for Violation { field, description } in violations.kept {
            let rest = field.strip_prefix(root).unwrap_or(&field);
            let dot = if rest.is_empty() || rest.starts_with('.') {
                ""
            } else {
                "."
            };
            self.add(format!("{part}{dot}{rest}"), description);
        }
        self.more += violations.more;
    }

    /// Gives all violations the same description.
    pub fn describe_all(&mut self, description: &str) {
        for violation in &mut self.kept {
            description.clone_into(&mut violation.description);
        }
    }

    /// The first violations.
    pub fn kept(&self) -> &[Violation] {
        &self.kept
    }

    /// The number of further violations.
    pub fn more(&self) -> usize {
        self.more
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
        self.kept.is_empty()
    }

    /// Returns `built` if there is no violation.
    ///
    /// # Errors
    /// The violations, if there are any.
    ///
    /// # Panics
    /// If `built` is `None` although there is no violation.
    pub fn finish<T>(self, built: Option<T>) -> Result<T, Self> {
        if self.is_empty() {
            Ok(built.expect("a missing value has a violation"))
        } else {
            Err(self)
        }
    }
}
