//! Text of documents and names as a page shows it: what nobody sees, or what changes how its neighbours are shown, is
//! made visible and marked as not being the text itself.
//!
//! Escaping keeps text from becoming markup; it does not keep `U+202E` from turning the rest of a line around. So such a
//! character never reaches a page as text: its place holds its number, in a [`Piece`] of its own that a template marks.
//! The one exception is the field in which a document is edited, whose content must be the document's own; the page lists
//! beneath it what is hidden there.

use crate::certificates::is_misleading;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What is shown.
    pub text: String,
    /// It stands for a character that cannot be shown.
    pub odd: bool,
}

/// A text in pieces, cut after `chars_max` characters.
#[must_use]
pub fn pieces(text: &str, chars_max: usize) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut plain = String::new();
    for (place, c) in text.chars().enumerate() {
        if place == chars_max {
            plain.push('…');
            break;
        }
        if !is_odd(c) {
            plain.push(c);
            continue;
        }
        if !plain.is_empty() {
            out.push(Piece { text: std::mem::take(&mut plain), odd: false });
        }
        out.push(Piece { text: code(c), odd: true });
    }
    if !plain.is_empty() {
        out.push(Piece { text: plain, odd: false });
    }
    out
}

/// The same as one text, for titles and attributes: `⟨U+202E⟩` for a character that cannot be shown.
#[must_use]
pub fn plain(text: &str, chars_max: usize) -> String {
    let show = |piece: Piece| match piece.odd {
        true => format!("⟨{}⟩", piece.text),
        false => piece.text,
    };
    pieces(text, chars_max).into_iter().map(show).collect()
}

/// Where something cannot be seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Lines from 1.
    pub line: usize,
    /// Characters of the line from 1.
    pub column: usize,
    /// Such as `U+202E`.
    pub code: String,
}

/// The first `most` characters of a text that nobody sees, and whether there are more.
#[must_use]
pub fn hidden(text: &str, most: usize) -> (Vec<Hidden>, bool) {
    let mut found = Vec::new();
    for (line, content) in (1..).zip(text.split('\n')) {
        for (column, c) in (1..).zip(content.chars()) {
            if !is_odd(c) || c == '\r' {
                continue;
            }
            if found.len() == most {
                return (found, true);
            }
            found.push(Hidden { line, column, code: code(c) });
        }
    }
    (found, false)
}

/// Line ends and tabs are what they look like in a document.
fn is_odd(c: char) -> bool {
    !matches!(c, '\n' | '\t') && is_misleading(c.encode_utf8(&mut [0; 4]))
}

fn code(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_shown_by_its_number() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("<b>\"'&", "<b>\"'&"), // Markup is the templates' part, which escape everything.
            ("a\u{202e}b", "a⟨U+202E⟩b"),
            ("\u{0}\u{1b}[31m", "⟨U+0000⟩⟨U+001B⟩[31m"),
            ("a\r\nb\tc", "a⟨U+000D⟩\nb\tc"),
            ("\u{feff}\u{200b}\u{2066}x\u{2069}", "⟨U+FEFF⟩⟨U+200B⟩⟨U+2066⟩x⟨U+2069⟩"),
            ("עברית é 😀", "עברית é 😀"),
            ("\u{e0041}", "⟨U+E0041⟩"),
            ("twelve chars", "twelve cha…"),
        ] {
            assert_eq!(plain(text, 10), expected, "{text:?}");
            assert!(
                pieces(text, 10)
                    .iter()
                    .all(|it| !is_misleading(&it.text.replace(['\n', '\t'], "")))
            );
        }
        // A text that looks like a marked one is not marked.
        assert_eq!(pieces("⟨U+202E⟩", 99).iter().filter(|piece| piece.odd).count(), 0);
        assert_eq!(pieces("a\u{202e}", 99).iter().filter(|piece| piece.odd).count(), 1);
    }

    #[test]
    fn hidden_characters_are_found_by_line_and_column() {
        let text = "{\r\n  \"a\u{202e}\": \"\u{200b}\"}";
        let (found, more) = hidden(text, 9);
        let found: Vec<_> = found.iter().map(|it| (it.line, it.column, it.code.as_str())).collect();
        assert_eq!(found, [(2, 5, "U+202E"), (2, 10, "U+200B")]);
        assert!(!more);
        assert_eq!(hidden(&"\u{200b}".repeat(5), 2).0.len(), 2);
        assert!(hidden(&"\u{200b}".repeat(5), 2).1);
    }
}
