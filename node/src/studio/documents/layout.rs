//! The layout of a JSON text: spread over lines for whoever reads it, and back on one line. Only white space between tokens
//! comes and goes; strings and numbers stay byte for byte what they were, which no parser of values promises.

use serde_json::value::RawValue;

/// What one level is indented by.
const INDENT: &str = "  ";

/// Whether the text is on one line, as programs write it.
#[must_use]
pub fn is_one_line(json: &[u8]) -> bool {
    !json.trim_ascii().contains(&b'\n')
}

/// The text with each member on a line of its own; `None` where it is no JSON, or would be longer than `bytes_max`.
#[must_use]
pub fn spread(json: &str, bytes_max: usize) -> Option<String> {
    let mut out = String::with_capacity(json.len().saturating_mul(2).min(bytes_max));
    let mut depth = 0usize;
    let mut tokens = Tokens::of(json)?.peekable();
    while let Some(token) = tokens.next() {
        match token {
            "{" | "[" => {
                out.push_str(token);
                if matches!(tokens.peek(), Some(&("}" | "]"))) {
                    out.push_str(tokens.next().unwrap_or_default());
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            "}" | "]" => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push_str(token);
            }
            "," => {
                out.push_str(token);
                line(&mut out, depth);
            }
            ":" => out.push_str(": "),
            value => out.push_str(value),
        }
        if out.len() > bytes_max {
            return None;
        }
    }
    Some(out)
}

/// The text without white space between its tokens; `None` where it is no JSON.
#[must_use]
pub fn on_one_line(json: &str) -> Option<String> {
    Some(Tokens::of(json)?.collect())
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str(INDENT);
    }
}

/// The tokens of a JSON text (RFC 8259, section 2), strings with their quotes.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// `None` where the text is no JSON: tokens of anything else may run into each other.
    fn of(json: &'a str) -> Option<Self> {
        let whole: &RawValue = serde_json::from_str(json).ok()?;
        Some(Self { rest: whole.get() })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_ascii_start();
        let length = match *self.rest.as_bytes().first()? {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            b'"' => {
                let mut escaped = false;
                let end = self.rest.bytes().skip(1).position(|byte| {
                    let ends = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    ends
                });
                end.map_or(self.rest.len(), |end| end + 2)
            }
            _ => {
                let ends = |c: char| c.is_ascii_whitespace() || matches!(c, ',' | ':' | ']' | '}');
                self.rest.find(ends).unwrap_or(self.rest.len())
            }
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_spread_and_comes_back_byte_for_byte() {
        let check = |json: &str, expected: &str| {
            let spread = spread(json, 1000).unwrap();
            assert_eq!(spread, expected);
            assert_eq!(on_one_line(&spread).unwrap(), json);
        };
        check("{}", "{}");
        check("7", "7");
        check(r#"{"a":1.10e+2}"#, "{\n  \"a\": 1.10e+2\n}");
        check(
            r#"{"a":[],"b":[1,{"c":null}],"d":"\\\" : , } ü"}"#,
            "{\n  \"a\": [],\n  \"b\": [\n    1,\n    {\n      \"c\": null\n    }\n  ],\n  \"d\": \"\\\\\\\" : , } ü\"\n}",
        );
        check(
            r#"{"n":123456789012345678901234567890}"#,
            "{\n  \"n\": 123456789012345678901234567890\n}",
        );
    }

    #[test]
    fn what_is_no_json_and_what_grows_too_long_is_left_alone() {
        assert_eq!(on_one_line("{\"a\": 1 2}"), None);
        assert_eq!(on_one_line("tr ue"), None);
        assert_eq!(spread("{\"a\":", 1000), None);
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(spread(&deep, 1000), None);
        assert!(spread(&deep, 100_000).is_some());
        assert!(is_one_line(b"{\"a\":1}\n") && !is_one_line(b"{\n}"));
    }

    #[test]
    fn escaped_quotes_and_backslashes_end_no_string_too_early() {
        for json in [r#"["\\","a"]"#, r#"["\"","b"]"#, r#"["\\\"",":"]"#, r#"["\u0022",1]"#] {
            assert_eq!(on_one_line(&spread(json, 1000).unwrap()).unwrap(), json);
        }
    }
}
