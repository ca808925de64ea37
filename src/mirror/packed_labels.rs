//! The words of a key that decide nothing: its name and its labels.

/// Ends each word but the last. ASCII's unit separator: words for people hold no control character.
const END: char = '\u{1f}';

/// A key's name and labels in one allocation, as a million keys have a million of them.
#[derive(Clone)]
pub struct PackedLabels(Box<str>);

impl PackedLabels {
    /// Packs them; `None` if one holds the character that stands between them.
    pub(super) fn pack<'w>(
        name: &'w str,
        labels: impl Iterator<Item = (&'w str, &'w str)> + Clone,
    ) -> Option<Self> {
        let of_labels = labels.flat_map(|(label, value)| [label, value]);
        let words = std::iter::once(name).chain(of_labels);
        if words.clone().any(|word| word.contains(END)) {
            return None;
        }
        let length = words.clone().map(|word| word.len() + 1).sum::<usize>() - 1;
        let mut packed = String::with_capacity(length);
        for (i, word) in words.enumerate() {
            if i > 0 {
                packed.push(END);
            }
            packed.push_str(word);
        }
        Some(Self(packed.into_boxed_str()))
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.split(END).next().unwrap_or_default()
    }

    /// The labels, with their values.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut words = self.0.split(END).skip(1);
        std::iter::from_fn(move || words.next().zip(words.next()))
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
            let words = PackedLabels::pack(name, labels.iter().copied()).unwrap();
            assert_eq!(words.name(), name);
            assert_eq!(words.labels().collect::<Vec<_>>(), labels);
        }
    }

    #[test]
    fn a_word_that_could_be_read_as_two_is_refused() {
        assert!(PackedLabels::pack("a\u{1f}b", std::iter::empty()).is_none());
        assert!(PackedLabels::pack("a", [("b", "c\u{1f}")].into_iter()).is_none());
    }
}
