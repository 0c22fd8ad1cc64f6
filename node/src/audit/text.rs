//! Text of strangers: escaped so that it steers no terminal, page or line-wise reader, and cut.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::limits;

/// Escapes `text` and cuts it to [`limits::AUDIT_TEXT_CHARS_MAX`] characters.
///
/// Control and format characters (line breaks, ANSI escapes, bidirectional marks, invisible ones), `<`, `>`, `&` and the
/// backslash become `\u{…}`. Of a text that is cut, the digest tells it from others with the same beginning.
#[must_use]
pub fn escaped(text: &str) -> String {
    escaped_within(text, limits::AUDIT_TEXT_CHARS_MAX)
}

/// [`escaped`], cut to `chars_max` characters.
#[must_use]
pub fn escaped_within(text: &str, chars_max: usize) -> String {
    let mut escaped = String::with_capacity(text.len().min(chars_max));
    let mut chars = 0;
    for c in text.chars() {
        let before = escaped.len();
        if is_plain(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c)); // Writing to a string cannot fail.
        }
        chars += escaped[before..].chars().count();
        if chars > chars_max {
            escaped.truncate(before);
            let digest = Sha256::digest(text);
            let _ = write!(escaped, "… ({} bytes, {})", text.len(), hex::encode(&digest[..8]));
            break;
        }
    }
    escaped
}

fn is_plain(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control() && !matches!(c, '<' | '>' | '&' | '\\');
    }
    !c.is_control() && !is_format(c)
}

/// Unicode's format characters (Cf) and the separators of lines and paragraphs, and what renders as nothing.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}
