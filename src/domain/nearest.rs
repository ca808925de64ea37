//! The name that somebody probably meant.

/// How similar two names must be: the limit of clap for flags.
const SIMILAR: f64 = 0.7;

/// Returns the name that is most similar, if one is similar enough.
pub fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    names
        .into_iter()
        .map(|name| (strsim::jaro(wrong, name), name))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red with the first name that is similar enough.
    #[test]
    fn the_most_similar_name_is_found_if_one_is_similar_enough() {
        let names = [
            "max-connections-per-address",
            "max-connections",
            "max-calls",
        ];
        for (wrong, right) in [
            ("max-cals", Some("max-calls")),
            ("max_connections", Some("max-connections")),
            (
                "max-connections-per-addres",
                Some("max-connections-per-address"),
            ),
            ("quux", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names), right, "{wrong}");
        }
    }
}
