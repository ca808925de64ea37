//! Templates of configuration files.

/// Replaces each `${NAME}` by its value, once: what a value contains is not replaced. The lines of a value after its first one get
/// the indentation of the line, and a line that has nothing but an empty value is removed.
///
/// # Panics
/// If the template has a name without a value: the templates are part of the program.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    for line in template.lines() {
        let text = line.trim_start();
        let (indentation, _) = line.split_at(line.len() - text.len());
        let mut out = indentation.to_owned();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').expect("a name has an end");
            let (_, value) = values
                .iter()
                .find(|(known, _)| *known == name)
                .unwrap_or_else(|| panic!("{name} has a value"));
            out.push_str(before);
            out.push_str(&value.replace('\n', &format!("\n{indentation}")));
            rest = after;
        }
        out.push_str(rest);
        if text.is_empty() || !out.trim().is_empty() {
            filled.push_str(&out);
            filled.push('\n');
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_once_and_indented() {
        let template = "a ${X} ${Y}\n\n  ${LINES}\n  ${NONE}\n\t${X}\n";
        let values = [
            ("X", "${Y}"),
            ("Y", "2"),
            ("LINES", "first\nsecond"),
            ("NONE", ""),
        ];
        assert_eq!(
            fill(template, &values),
            "a ${Y} 2\n\n  first\n  second\n\t${Y}\n"
        );
    }
}
