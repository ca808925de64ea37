//! The name and the labels of a key, on which no decision depends.

/// The separator of the strings: ASCII's unit separator, because names and labels contain no control characters.
const SEPARATOR: char = '\u{1f}';

/// A key's name and labels in one allocation, to save memory with millions of keys.
#[derive(Clone)]
pub struct PackedLabels(Box<str>);

impl PackedLabels {
    /// Packs a name and labels. Returns `None` if one of the strings contains the separator.
    pub(super) fn pack<'w>(
        name: &'w str,
        labels: impl Iterator<Item = (&'w str, &'w str)> + Clone,
    ) -> Option<Self> {
        let of_labels = labels.flat_map(|(label, value)| [label, value]);
        let strings = std::iter::once(name).chain(of_labels);
        if strings.clone().any(|string| string.contains(SEPARATOR)) {
            return None;
        }
        let length = strings
            .clone()
            .map(|string| string.len() + 1)
            .sum::<usize>()
            - 1;
        let mut packed = String::with_capacity(length);
        for (i, string) in strings.enumerate() {
            if i > 0 {
                packed.push(SEPARATOR);
            }
            packed.push_str(string);
        }
        Some(Self(packed.into_boxed_str()))
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.split(SEPARATOR).next().unwrap_or_default()
    }

    /// The labels, with their values.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut strings = self.0.split(SEPARATOR).skip(1);
        std::iter::from_fn(move || strings.next().zip(strings.next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_again() {
        for (name, labels) in [
            ("", vec![]),
            ("a name", vec![]),
            ("", vec![("a", ""), ("b", "β")]),
            ("ключ", vec![("a", "1"), ("b", ""), ("c", "3")]),
        ] {
            let packed = PackedLabels::pack(name, labels.iter().copied()).unwrap();
            assert_eq!(packed.name(), name);
            assert_eq!(packed.labels().collect::<Vec<_>>(), labels);
        }
    }

    #[test]
    fn a_string_that_contains_the_separator_is_refused() {
        assert!(PackedLabels::pack("a\u{1f}b", std::iter::empty()).is_none());
        assert!(PackedLabels::pack("a", [("b", "c\u{1f}")].into_iter()).is_none());
    }
}
