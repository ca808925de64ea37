//! The colours of a terminal. A colour only repeats what a word says.
//!
//! What is shown on a terminal has its colours always. The output takes them away again if the user or the terminal wants none.

use anstyle::{AnsiColor, Style};

/// What a colour stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// It does not work, or was taken away.
    Bad,
    /// Less important than its neighbours, such as an id or a time.
    Dim,
    /// A heading.
    Strong,
}

impl Tone {
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Plain => Style::new(),
            Self::Good => colour(AnsiColor::Green),
            Self::Warning => colour(AnsiColor::Yellow),
            Self::Bad => colour(AnsiColor::Red),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }

    /// Colours a text if it is for a screen.
    pub(super) fn paint_on(self, is_screen: bool, text: &str) -> String {
        if is_screen {
            self.paint(text)
        } else {
            text.to_owned()
        }
    }

    /// Colours a text.
    pub(super) fn paint(self, text: &str) -> String {
        if self == Self::Plain || text.is_empty() {
            return text.to_owned();
        }
        let style = self.style();
        format!("{style}{text}{style:#}")
    }
}

/// Colours the words with which the lines of an error or a warning begin.
pub(super) fn with_coloured_words(text: &str) -> String {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into())).bold();
    let words = [
        ("error:", colour(AnsiColor::Red)),
        ("warning:", colour(AnsiColor::Yellow)),
        ("hint:", colour(AnsiColor::Cyan)),
    ];
    let lines = text.split('\n').map(|line| {
        let found = words
            .iter()
            .find_map(|(word, style)| Some((word, style, line.strip_prefix(word)?)));
        match found {
            Some((word, style, rest)) => format!("{style}{word}{style:#}{rest}"),
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Takes the colours away.
pub(super) fn without_colours(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_can_be_taken_away_and_the_word_stays() {
        assert_eq!(Tone::Good.paint("active"), "\x1b[32mactive\x1b[0m");
        assert_eq!(Tone::Plain.paint("active"), "active");
        assert_eq!(without_colours(&Tone::Bad.paint("revoked")), "revoked");
    }

    #[test]
    fn only_a_word_at_the_beginning_of_a_line_is_coloured() {
        let text = "error: no hint: none\n  error: part\nhint: do\nwarning: old";
        let coloured = with_coloured_words(text);
        assert_eq!(coloured.matches("\x1b[0m").count(), 3, "{coloured}");
        assert!(
            coloured.starts_with("\x1b[1m\x1b[31merror:\x1b[0m no hint: none\n  error: part\n")
        );
        assert_eq!(without_colours(&coloured), text);
    }
}
