//! How text from outside gets into a page: escaped, and with every character written out that would hide itself or turn
//! the text around it.
//!
//! A name may hold U+202E, after which a browser writes from right to left, or U+200B, which nobody sees: `alice` and
//! `al\u{200b}ice` would look the same beside two thumbprints (Unicode TR 36, TR 39; CVE-2021-42574). This escaper stands
//! behind every `{{ … }}` of every template (`askama.toml`), so no page can forget it.
//!
//! What a form sends back must be what it was: values of fields, texts to edit and texts to copy take `|e("value")`, which
//! escapes and changes nothing. A test holds all templates to it.

use std::fmt;

use askama::filters::{Escaper, Html};

/// Escapes HTML and writes hidden characters as `‹U+202E›`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: fmt::Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        let (mut from, mut before) = (0, ' ');
        for (at, letter) in text.char_indices() {
            if hides(letter, before) {
                Html.write_escaped_str(&mut dest, &text[from..at])?;
                write!(dest, "\u{2039}U+{:04X}\u{203a}", u32::from(letter))?;
                from = at + letter.len_utf8();
            }
            before = letter;
        }
        Html.write_escaped_str(dest, &text[from..])
    }
}

/// Whether a character cannot be seen, or moves what can.
fn hides(letter: char, before: char) -> bool {
    match letter {
        '\t' | '\n' | '\r' => false,
        // Joiners and variants belong to many scripts and pictures; after a plain letter they only tell names apart that
        // look the same.
        '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => before.is_ascii(),
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true, // Controls.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' => true, // Directions.
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' => true,
        '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{2028}' | '\u{2029}' => true,
        '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn what_hides_or_turns_is_written_out() {
        let check = |text: &str, expected: &str| {
            let mut out = String::new();
            Visible.write_escaped_str(&mut out, text).unwrap();
            assert_eq!(out, expected, "{text:?}");
        };
        check("alice", "alice");
        check("Zoë ü 漢字 \n\t", "Zoë ü 漢字 \n\t");
        check("<b>&\"'", "&#60;b&#62;&#38;&#34;&#39;");
        check("a\u{202e}b", "a‹U+202E›b");
        check("\u{2066}<i>\u{2069}", "‹U+2066›&#60;i&#62;‹U+2069›");
        check("al\u{200b}ice\0\u{7f}\u{85}", "al‹U+200B›ice‹U+0000›‹U+007F›‹U+0085›");
        check("a\u{200d}b", "a‹U+200D›b");
        check(
            "\u{1f469}\u{200d}\u{1f4bb} \u{2764}\u{fe0f}",
            "\u{1f469}\u{200d}\u{1f4bb} \u{2764}\u{fe0f}",
        );
        check("\u{feff}\u{e0041}", "‹U+FEFF›‹U+E0041›");
        check("\u{202e}", "‹U+202E›");
        check("", "");
    }

    /// Attributes whose text goes back to the server or to the clipboard.
    const KEPT: [&str; 3] = ["value", "name", "data-copy"];

    #[test]
    fn what_a_form_sends_back_is_not_rewritten() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/studio/templates");
        let (mut seen, mut wrong) = (0, Vec::new());
        for (name, text) in templates(&folder) {
            for (place, expression) in kept(&text) {
                seen += 1;
                if !expression.ends_with("|e(\"value\")") {
                    wrong.push(format!("{name}: {place}: {{{{ {expression} }}}}"));
                }
            }
        }
        assert!(seen > 40, "only {seen} places were found");
        assert!(wrong.is_empty(), "these need |e(\"value\"):\n{}", wrong.join("\n"));
        let found = kept(
            "<input value=\"{% if x %}{{ a|e(\"value\") }}{% endif %}{{ b }}\"><p>{{ c }}</p>",
        );
        assert_eq!(found.len(), 2);
    }

    fn templates(folder: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(templates(&path));
            } else {
                found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
        found
    }

    /// The expressions in attributes that are kept, and in texts to edit.
    fn kept(text: &str) -> Vec<(String, String)> {
        let (plain, expressions) = without_expressions(text);
        let mut places = Vec::new();
        let pieces: Vec<&str> = plain.split('"').collect();
        for pair in pieces.windows(2) {
            let attribute = pair[0].rsplit([' ', '\n']).next().unwrap_or_default();
            if attribute.strip_suffix('=').is_some_and(|name| KEPT.contains(&name)) {
                places.push((attribute.to_owned(), pair[1].to_owned()));
            }
        }
        for area in plain.split("<textarea").skip(1) {
            let inner = area.split("</textarea>").next().unwrap_or_default();
            let inner = inner.split_once('>').map_or("", |(_, inner)| inner);
            places.push(("textarea".to_owned(), inner.to_owned()));
        }
        let mut found = Vec::new();
        for (place, inner) in places {
            for number in inner.split('\u{1}').skip(1).filter_map(|rest| rest.split('\u{2}').next())
            {
                found.push((place.clone(), expressions[number.parse::<usize>().unwrap()].clone()));
            }
        }
        found
    }

    /// The text with every `{{ … }}` as a number between two marks, and without `{% … %}` and `{# … #}`.
    fn without_expressions(text: &str) -> (String, Vec<String>) {
        let (mut plain, mut expressions, mut rest) = (String::new(), Vec::new(), text);
        while let Some(at) = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min() {
            let close = match &rest[at..at + 2] {
                "{{" => "}}",
                "{%" => "%}",
                _ => "#}",
            };
            let end = at + rest[at..].find(close).unwrap();
            plain.push_str(&rest[..at]);
            if close == "}}" {
                plain.push_str(&format!("\u{1}{}\u{2}", expressions.len()));
                expressions.push(rest[at + 2..end].trim().to_owned());
            }
            rest = &rest[end + 2..];
        }
        plain.push_str(rest);
        (plain, expressions)
    }
}
