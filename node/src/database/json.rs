//! Says whether bytes are a JSON document that Rookery stores, and never changes them.
//!
//! A document is one JSON object (RFC 8259), kept byte for byte. Nothing is parsed into values: numbers keep their
//! digits, members their order. The check is one pass without recursion; it allocates for open containers and for the
//! member names of the objects that are open, which it needs to refuse duplicates.

use std::borrow::Cow;

use crate::limits;

/// Bytes that are no document, where, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {rule}")]
pub struct InvalidJson {
    /// Offset of the first byte that breaks the rule.
    pub offset: usize,
    /// The rule.
    pub rule: Rule,
}

/// What a document must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// Larger than `limits::DOCUMENT_BYTES_MAX`.
    #[error("the document is larger than {} bytes", limits::DOCUMENT_BYTES_MAX)]
    Size,
    /// Deeper than `limits::DOCUMENT_DEPTH_MAX`.
    #[error("the document is nested deeper than {} levels", limits::DOCUMENT_DEPTH_MAX)]
    Depth,
    /// More than `limits::DOCUMENT_MEMBERS_MAX`.
    #[error("the document has more than {} members and elements", limits::DOCUMENT_MEMBERS_MAX)]
    Members,
    /// Longer than `limits::MEMBER_NAME_BYTES_MAX`.
    #[error("a member name is longer than {} bytes", limits::MEMBER_NAME_BYTES_MAX)]
    NameLength,
    /// Not UTF-8.
    #[error("the text is not UTF-8")]
    Utf8,
    /// Starts with a byte order mark.
    #[error("the text starts with a byte order mark; JSON has none")]
    ByteOrderMark,
    /// Nothing but blanks.
    #[error("the document is empty")]
    Empty,
    /// The top level is no object.
    #[error("a document is a JSON object")]
    NotAnObject,
    /// Text after the object.
    #[error("something follows the end of the document")]
    TrailingText,
    /// The text ends too early.
    #[error("the document ends in the middle")]
    UnexpectedEnd,
    /// No JSON value starts here.
    #[error("a JSON value is expected")]
    Value,
    /// A member name must stand here.
    #[error("a member name in double quotes is expected")]
    Name,
    /// A colon must stand here.
    #[error("a colon is expected")]
    Colon,
    /// A comma or the end of the container must stand here.
    #[error("a comma or the end of the object or array is expected")]
    Comma,
    /// A number breaks the grammar.
    #[error("this is no JSON number")]
    Number,
    /// A number that no double can hold.
    #[error("the number is out of range")]
    NumberRange,
    /// A raw control character in a string.
    #[error("control characters in strings must be escaped")]
    ControlCharacter,
    /// An escape that JSON does not have.
    #[error("this escape is not known to JSON")]
    Escape,
    /// Half of a surrogate pair.
    #[error("a surrogate stands without its other half")]
    LoneSurrogate,
    /// Two members of one object have the same name once escapes are decoded.
    #[error("the object has a second member of this name")]
    DuplicateName,
}

impl Rule {
    /// Whether a limit was exceeded, rather than JSON written wrongly.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self, Self::Size | Self::Members | Self::NameLength)
    }
}

/// Checks that `bytes` are a document.
///
/// # Errors
/// The first rule that is broken; a duplicate name is found where its object ends.
pub fn validate(bytes: &[u8]) -> Result<(), InvalidJson> {
    let invalid = |offset, rule| Err(InvalidJson { offset, rule });
    if bytes.len() > limits::DOCUMENT_BYTES_MAX {
        return invalid(limits::DOCUMENT_BYTES_MAX, Rule::Size);
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return invalid(0, Rule::ByteOrderMark);
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return invalid(error.valid_up_to(), Rule::Utf8);
    }
    Parser { bytes, at: 0, open: Vec::new(), names: Vec::new(), members: 0 }.document()
}

/// A container that is not closed yet.
struct Open {
    object: bool,
    /// Where its names begin in `Parser::names`.
    names_from: usize,
}

/// A member name, decoded, and where it stands.
struct Name<'a> {
    text: Cow<'a, [u8]>,
    offset: usize,
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
    names: Vec<Name<'a>>,
    members: usize,
}

type Step<T = ()> = Result<T, InvalidJson>;

impl<'a> Parser<'a> {
    fn document(mut self) -> Step {
        self.blanks();
        match self.peek() {
            None => return self.fail(Rule::Empty),
            Some(b'{') => self.enter(true)?,
            Some(_) => return self.fail(Rule::NotAnObject),
        }
        let mut first = true; // Nothing stands in the innermost container yet.
        while let Some(open) = self.open.last() {
            let object = open.object;
            self.blanks();
            let end = if object { b'}' } else { b']' };
            if self.peek() == Some(end) {
                self.leave()?;
                first = false;
                continue;
            }
            if !first {
                self.expect(b',', Rule::Comma)?;
                self.blanks();
            }
            self.members += 1;
            if self.members > limits::DOCUMENT_MEMBERS_MAX {
                return self.fail(Rule::Members);
            }
            if object {
                self.name()?;
            }
            first = self.value()?;
        }
        self.blanks();
        if self.at < self.bytes.len() { self.fail(Rule::TrailingText) } else { Ok(()) }
    }

    /// Reads a scalar, or enters a container; says whether it did the latter.
    fn value(&mut self) -> Step<bool> {
        match self.peek() {
            Some(b'{') => self.enter(true).map(|()| true),
            Some(b'[') => self.enter(false).map(|()| true),
            Some(b'"') => self.string().map(|_| false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b't') => self.word(b"true").map(|()| false),
            Some(b'f') => self.word(b"false").map(|()| false),
            Some(b'n') => self.word(b"null").map(|()| false),
            Some(_) => self.fail(Rule::Value),
            None => self.fail(Rule::UnexpectedEnd),
        }
    }

    fn enter(&mut self, object: bool) -> Step {
        if self.open.len() == limits::DOCUMENT_DEPTH_MAX {
            return self.fail(Rule::Depth);
        }
        self.at += 1;
        self.open.push(Open { object, names_from: self.names.len() });
        Ok(())
    }

    /// Ends the innermost container. A comma right before the end is refused where the next name or value is read,
    /// because `document` looks for the end before it looks for a comma.
    fn leave(&mut self) -> Step {
        self.at += 1;
        if let Some(open) = self.open.pop() {
            let names = self.names.get_mut(open.names_from..).unwrap_or_default();
            names.sort_unstable_by(|a, b| (&a.text, a.offset).cmp(&(&b.text, b.offset)));
            let twice = names.windows(2).filter(|pair| pair[0].text == pair[1].text);
            if let Some(offset) = twice.map(|pair| pair[1].offset).min() {
                return Err(InvalidJson { offset, rule: Rule::DuplicateName });
            }
            self.names.truncate(open.names_from);
        }
        Ok(())
    }

    fn name(&mut self) -> Step {
        let offset = self.at;
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return self.fail(Rule::Name),
            None => return self.fail(Rule::UnexpectedEnd),
        }
        let text = decode(self.string()?)?;
        if text.len() > limits::MEMBER_NAME_BYTES_MAX {
            return Err(InvalidJson { offset, rule: Rule::NameLength });
        }
        self.names.push(Name { text, offset });
        self.blanks();
        self.expect(b':', Rule::Colon)?;
        self.blanks();
        Ok(())
    }

    /// Reads a string and answers what stands between its quotes, as written.
    fn string(&mut self) -> Step<&'a [u8]> {
        self.at += 1;
        let from = self.at;
        loop {
            while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.at = escape(self.bytes, self.at)?.1,
                Some(_) => return self.fail(Rule::ControlCharacter),
                None => return self.fail(Rule::UnexpectedEnd),
            }
        }
        let raw = self.bytes.get(from..self.at).unwrap_or_default();
        self.at += 1;
        Ok(raw)
    }

    /// Reads a number: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
    fn number(&mut self) -> Step {
        let start = self.at;
        self.skip(|byte| byte == b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.skip(|byte| byte == b'.') {
            self.digits()?;
        }
        let exponent = self.skip(|byte| matches!(byte, b'e' | b'E'));
        if exponent {
            self.skip(|byte| matches!(byte, b'+' | b'-'));
            self.digits()?;
        }
        if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.fail(Rule::Number); // 01
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        // 308 digits before the point always fit; only longer numbers and exponents need the conversion.
        let finite = (!exponent && text.len() <= 308)
            || std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse::<f64>().ok())
                .is_some_and(f64::is_finite);
        if finite { Ok(()) } else { Err(InvalidJson { offset: start, rule: Rule::NumberRange }) }
    }

    fn digits(&mut self) -> Step {
        match self.peek() {
            Some(b'0'..=b'9') => {}
            Some(_) => return self.fail(Rule::Number),
            None => return self.fail(Rule::UnexpectedEnd),
        }
        while self.skip(|byte| byte.is_ascii_digit()) {}
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Step {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return self.fail(Rule::Value);
        }
        self.at += word.len();
        Ok(())
    }

    fn blanks(&mut self) {
        while self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {}
    }

    fn expect(&mut self, byte: u8, rule: Rule) -> Step {
        match self.peek() {
            Some(next) if next == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => self.fail(rule),
            None => self.fail(Rule::UnexpectedEnd),
        }
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let found = self.peek().is_some_and(wanted);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fail<T>(&self, rule: Rule) -> Step<T> {
        Err(InvalidJson { offset: self.at, rule })
    }
}

/// The character of the escape that begins at `at`, and where the text goes on.
fn escape(bytes: &[u8], at: usize) -> Step<(char, usize)> {
    let fail = |offset, rule| Err(InvalidJson { offset, rule });
    let Some(letter) = bytes.get(at + 1) else { return fail(at + 1, Rule::UnexpectedEnd) };
    let character = match letter {
        b'"' | b'\\' | b'/' => char::from(*letter),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes, at),
        _ => return fail(at, Rule::Escape),
    };
    Ok((character, at + 2))
}

/// `\uXXXX`, or two of them that are a surrogate pair.
fn unicode_escape(bytes: &[u8], at: usize) -> Step<(char, usize)> {
    let lone = InvalidJson { offset: at, rule: Rule::LoneSurrogate };
    let high = hex4(bytes, at + 2)?;
    if let Some(character) = char::from_u32(high) {
        return Ok((character, at + 6));
    }
    let pair = bytes.get(at + 6..at + 8) == Some(br"\u");
    if high >= 0xdc00 || !pair {
        return Err(lone);
    }
    let low = hex4(bytes, at + 8)?;
    if !(0xdc00..0xe000).contains(&low) {
        return Err(lone);
    }
    let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    char::from_u32(code).map(|character| (character, at + 12)).ok_or(lone)
}

fn hex4(bytes: &[u8], at: usize) -> Step<u32> {
    let mut code = 0;
    for offset in at..at + 4 {
        let Some(byte) = bytes.get(offset) else {
            return Err(InvalidJson { offset, rule: Rule::UnexpectedEnd });
        };
        let digit = char::from(*byte).to_digit(16);
        let digit = digit.ok_or(InvalidJson { offset, rule: Rule::Escape })?;
        code = code * 16 + digit;
    }
    Ok(code)
}

/// A name with its escapes decoded, which `Parser::string` found to be sound.
fn decode(raw: &[u8]) -> Step<Cow<'_, [u8]>> {
    if !raw.contains(&b'\\') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut text = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        if *byte == b'\\' {
            let (character, next) = escape(raw, at)?;
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            at = next;
        } else {
            text.push(*byte);
            at += 1;
        }
    }
    Ok(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn check(text: impl AsRef<[u8]>, expected: Result<(), (usize, Rule)>) {
        let text = text.as_ref();
        let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        let got = validate(text).map_err(|e| (e.offset, e.rule));
        assert_eq!(got, expected, "{shown}");
        if expected.is_ok() {
            assert!(serde_json::from_slice::<serde_json::Value>(text).is_ok(), "{shown}");
        }
    }

    #[test]
    fn accepts_objects_and_says_where_anything_else_breaks_a_rule() {
        for text in [
            "{}",
            " {\n\t} \r\n",
            r#"{"a":1}"#,
            r#"{"a":[],"b":{},"c":[{},[1,2,{"a":null}]],"A":true,"d":false}"#,
            // Numbers keep their digits, so what a double cannot hold exactly is no reason to refuse.
            r#"{"a":12345678901234567890123,"b":0.1000000000000000055511151231257827,"c":-0}"#,
            r#"{"a":1e308,"b":1e-400,"c":0e0,"d":1E+2,"e":0.0}"#,
            r#"{"a":"\u0000\ud83d\ude00\"\\\/\b\f\n\r\t"}"#,
            // Names that mean something elsewhere are names here.
            r#"{"@metadata":1,"__proto__":2,"$type":3,"":4}"#,
            // Equal names in different objects.
            r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#,
            "{\"\u{7f}é\u{2028}\":\"\u{ffff}\"}",
        ] {
            check(text, Ok(()));
        }
        use Rule::*;
        for (text, offset, rule) in [
            ("", 0, Empty),
            ("  ", 2, Empty),
            ("null", 0, NotAnObject),
            ("1", 0, NotAnObject),
            ("[{}]", 0, NotAnObject),
            ("\"a\"", 0, NotAnObject),
            ("NaN", 0, NotAnObject),
            ("// c\n{}", 0, NotAnObject),
            ("\u{feff}{}", 0, ByteOrderMark),
            ("{} x", 3, TrailingText),
            ("{}{}", 2, TrailingText),
            ("{}\0", 2, TrailingText),
            ("{", 1, UnexpectedEnd),
            ("{\"a", 3, UnexpectedEnd),
            ("{\"a\"", 4, UnexpectedEnd),
            ("{\"a\":", 5, UnexpectedEnd),
            ("{\"a\":1", 6, UnexpectedEnd),
            ("{\"a\":-", 6, UnexpectedEnd),
            ("{\"a\":\"\\u12", 10, UnexpectedEnd),
            ("{\"a\":\"\\", 7, UnexpectedEnd),
            ("{a:1}", 1, Name),
            ("{'a':1}", 1, Name),
            ("{,}", 1, Name),
            ("{\"a\":1,}", 7, Name),
            ("{\"a\" 1}", 5, Colon),
            ("{\"a\":1 \"b\":2}", 7, Comma),
            ("{\"a\":[1 2]}", 8, Comma),
            ("{\"a\":[1}", 7, Comma),
            ("{\"a\":[1,]}", 8, Value),
            ("{\"a\":[,1]}", 6, Value),
            ("{\"a\":}", 5, Value),
            ("{\"a\":NaN}", 5, Value),
            ("{\"a\":Infinity}", 5, Value),
            ("{\"a\":-Infinity}", 6, Number),
            ("{\"a\":+1}", 5, Value),
            ("{\"a\":.5}", 5, Value),
            ("{\"a\":tru}", 5, Value),
            ("{\"a\":nul", 5, Value),
            ("{\"a\":/*c*/1}", 5, Value),
            ("{\"a\":01}", 6, Number),
            ("{\"a\":1.}", 7, Number),
            ("{\"a\":1e}", 7, Number),
            ("{\"a\":1e+}", 8, Number),
            ("{\"a\":0x10}", 6, Comma),
            ("{\"a\":1e400}", 5, NumberRange),
            ("{\"a\":-1e400}", 5, NumberRange),
            ("{\"a\":\"\u{1}\"}", 6, ControlCharacter),
            ("{\"a\":\"\n\"}", 6, ControlCharacter),
            ("{\"\t\":1}", 2, ControlCharacter),
            ("{\"a\":\"\\x41\"}", 6, Escape),
            ("{\"a\":\"\\u00g0\"}", 10, Escape),
            ("{\"a\":\"\\ud800\"}", 6, LoneSurrogate),
            ("{\"a\":\"\\udc00\"}", 6, LoneSurrogate),
            ("{\"a\":\"\\ud800\\ud800\"}", 6, LoneSurrogate),
            ("{\"a\":\"\\ud800x\"}", 6, LoneSurrogate),
            ("{\"a\":1,\"a\":1}", 7, DuplicateName),
            ("{\"a\":1,\"\\u0061\":1}", 7, DuplicateName),
            ("{\"\\u0061\":1,\"b\":2,\"a\":1}", 18, DuplicateName),
            ("{\"é\":1,\"\\u00e9\":1}", 8, DuplicateName),
            ("{\"\\ud83d\\ude00\":1,\"😀\":1}", 18, DuplicateName),
            ("{\"x\":[{\"a\":{},\"a\":{}}]}", 14, DuplicateName),
        ] {
            check(text, Err((offset, rule)));
        }
        check(b"{\"a\":\"\xff\"}", Err((6, Utf8)));
        check(b"{\"a\":\"\xed\xa0\x80\"}", Err((6, Utf8)));
        check(b"{\"a\":\"\xc0\x80\"}", Err((6, Utf8)));
    }

    #[test]
    fn holds_its_limits_to_the_last_unit() {
        let nested =
            |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        check(nested(limits::DOCUMENT_DEPTH_MAX), Ok(()));
        let deep = 5 + limits::DOCUMENT_DEPTH_MAX - 1;
        check(nested(limits::DOCUMENT_DEPTH_MAX + 1), Err((deep, Rule::Depth)));
        check(nested(200_000), Err((deep, Rule::Depth)));

        let elements = |count: usize| format!("{{\"a\":[{}1]}}", "1,".repeat(count - 2));
        check(elements(limits::DOCUMENT_MEMBERS_MAX), Ok(()));
        let end = 6 + 2 * (limits::DOCUMENT_MEMBERS_MAX - 1);
        check(elements(limits::DOCUMENT_MEMBERS_MAX + 1), Err((end, Rule::Members)));

        let named = |length: usize| format!("{{\"{}\":1}}", "n".repeat(length));
        check(named(limits::MEMBER_NAME_BYTES_MAX), Ok(()));
        check(named(limits::MEMBER_NAME_BYTES_MAX + 1), Err((1, Rule::NameLength)));

        let sized = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
        check(sized(limits::DOCUMENT_BYTES_MAX), Ok(()));
        let too_large = Err((limits::DOCUMENT_BYTES_MAX, Rule::Size));
        check(sized(limits::DOCUMENT_BYTES_MAX + 1), too_large);
        check(format!("{{\"a\":{}}}", "9".repeat(308)), Ok(()));
        check(format!("{{\"a\":{}}}", "9".repeat(309)), Err((5, Rule::NumberRange)));
    }

    /// Text that is nearly a document, so that both answers occur.
    fn nearly_json() -> impl Strategy<Value = String> {
        let name = prop_oneof!["[ab]", "\\\\u006[1-2]", "[a-b\\\\\"u]{0,3}"];
        let scalar = prop_oneof![
            Just("null".to_owned()),
            "-?[01]{1,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,3})?",
            "\"[ -~\\\\u]{0,6}\"",
            "\"\\\\u[dD][8-9c-dC-D][0-9]{2}(\\\\u[dD][c-d][0-9]{2})?\"",
            "[tf][a-z]{3,4}",
        ];
        let value = scalar.prop_recursive(4, 24, 4, move |inner| {
            let member = (name.clone(), inner.clone()).prop_map(|(n, v)| format!("\"{n}\":{v}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|v| format!("[{}]", v.join(" , "))),
                prop::collection::vec(member, 0..4).prop_map(|v| format!("{{{}}}", v.join(","))),
            ]
        });
        (value, "[ ,}]{0,1}").prop_map(|(value, tail)| format!("{{\"top\":{value}}}{tail}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn agrees_with_an_independent_parser(text in nearly_json()) {
            let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
            match (validate(text.as_bytes()), theirs) {
                (Ok(()), theirs) => prop_assert!(theirs.is_ok(), "only we accept {text}"),
                (Err(e), Ok(_)) => {
                    prop_assert_eq!(e.rule, Rule::DuplicateName, "only we refuse {}", text);
                }
                (Err(e), Err(_)) => prop_assert!(e.offset <= text.len()),
            }
        }

        #[test]
        fn refuses_arbitrary_bytes_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if validate(&bytes).is_ok() {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
            }
        }
    }
}
