//! Text out of certificates, made harmless for terminals, logs and pages.

/// Longest text that is shown; the rest is cut off.
const SHOWN_CHARS_MAX: usize = 512;

/// Makes a text from outside safe to show: whatever could move a cursor, colour a line, start a new one, hide, or
/// turn the reading direction appears as `\u{…}`, a backslash as `\\`. Cut after 512 characters. HTML is escaped
/// where HTML is written.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(4 * SHOWN_CHARS_MAX));
    for (place, c) in text.chars().enumerate() {
        if place == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        push_escaped(&mut shown, c);
    }
    shown
}

/// Appends one character, escaped where it has to be.
pub(super) fn push_escaped(shown: &mut String, c: char) {
    if c == '\\' {
        shown.push_str("\\\\");
    } else if is_dangerous(c) {
        shown.extend(c.escape_unicode());
    } else {
        shown.push(c);
    }
}

/// Whether a text holds a character that nobody sees, or that changes how its neighbours are shown.
#[must_use]
pub fn is_misleading(text: &str) -> bool {
    text.chars().any(is_dangerous)
}

/// Control characters, and what Unicode has that is invisible or changes how its neighbours are shown.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'                    // soft hyphen
            | '\u{34f}'                 // combining grapheme joiner
            | '\u{61c}'                 // Arabic letter mark
            | '\u{115f}'..='\u{1160}'   // Hangul fillers
            | '\u{17b4}'..='\u{17b5}'   // Khmer inherent vowels
            | '\u{180b}'..='\u{180f}'   // Mongolian selectors
            | '\u{200b}'..='\u{200f}'   // zero width, direction marks
            | '\u{2028}'..='\u{202e}'   // line and paragraph separators, bidi embeddings
            | '\u{2060}'..='\u{206f}'   // invisible operators, bidi isolates
            | '\u{3164}' | '\u{ffa0}'   // Hangul fillers
            | '\u{e000}'..='\u{f8ff}'   // private use
            | '\u{fe00}'..='\u{fe0f}'   // variation selectors
            | '\u{feff}'                // byte order mark
            | '\u{fff0}'..='\u{fffb}'   // specials
            | '\u{1bca0}'..='\u{1bca3}' // shorthand format controls
            | '\u{1d173}'..='\u{1d17a}' // musical format controls
            | '\u{e0000}'..='\u{10ffff}' // tags, selectors, private use
        )
}
