//! Where two versions of a document differ, field by field, for whoever has to choose between them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

/// Differences that a page lists; the whole of both versions stands beneath them.
pub const SHOWN_MAX: usize = 50;

/// One place where they differ.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// Such as `address.city` or `tags[2]`.
    pub path: String,
    /// The value in the one; `None`: it is not there.
    pub ours: Option<String>,
    /// The value in the other.
    pub theirs: Option<String>,
}

/// The first differences between two JSON documents, at most [`SHOWN_MAX`], and whether there are more. Layout, the order of fields and
/// the way a string is escaped make none; the way a number is written does.
#[must_use]
pub fn differences(ours: &str, theirs: &str) -> (Vec<Difference>, bool) {
    let mut found = Vec::new();
    compare("", ours.trim(), theirs.trim(), &mut found);
    let more = found.len() > SHOWN_MAX;
    found.truncate(SHOWN_MAX);
    (found, more)
}

fn compare(path: &str, ours: &str, theirs: &str, found: &mut Vec<Difference>) {
    if ours == theirs || found.len() > SHOWN_MAX {
        return;
    }
    if let (Some(ours), Some(theirs)) = (object(ours), object(theirs)) {
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            one(&path, ours.get(name), theirs.get(name), found);
        }
        return;
    }
    if let (Some(ours), Some(theirs)) = (list(ours), list(theirs)) {
        for place in 0..ours.len().max(theirs.len()) {
            one(&format!("{path}[{place}]"), ours.get(place), theirs.get(place), found);
        }
        return;
    }
    if let (Some(ours), Some(theirs)) = (string(ours), string(theirs))
        && ours == theirs
    {
        return;
    }
    push(path, Some(ours), Some(theirs), found);
}

fn one(
    path: &str,
    ours: Option<&&RawValue>,
    theirs: Option<&&RawValue>,
    found: &mut Vec<Difference>,
) {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => compare(path, ours.get(), theirs.get(), found),
        (ours, theirs) => {
            push(path, ours.map(|it| it.get()), theirs.map(|it| it.get()), found);
        }
    }
}

fn push(path: &str, ours: Option<&str>, theirs: Option<&str>, found: &mut Vec<Difference>) {
    if found.len() <= SHOWN_MAX {
        let [ours, theirs] = [ours, theirs].map(|it| it.map(str::to_owned));
        found.push(Difference { path: path.to_owned(), ours, theirs });
    }
}

fn object(json: &str) -> Option<BTreeMap<String, &RawValue>> {
    json.starts_with('{').then(|| serde_json::from_str(json).ok()).flatten()
}

fn list(json: &str) -> Option<Vec<&RawValue>> {
    json.starts_with('[').then(|| serde_json::from_str(json).ok()).flatten()
}

fn string(json: &str) -> Option<String> {
    json.starts_with('"').then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_differ_where_their_values_do() {
        let check = |ours: &str, theirs: &str, expected: &[(&str, &str, &str)]| {
            let (found, more) = differences(ours, theirs);
            let text = |it: Option<String>| it.unwrap_or_else(|| "-".to_owned());
            let found: Vec<_> =
                found.into_iter().map(|it| (it.path, text(it.ours), text(it.theirs))).collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(path, a, b)| ((*path).to_owned(), (*a).to_owned(), (*b).to_owned()))
                .collect();
            assert_eq!((found, more), (expected, false), "{ours} {theirs}");
        };
        check("{}", "{ }", &[]);
        check(r#"{"a":1,"b":[1, 2]}"#, "{\n\"b\": [1,2],\r\n\"a\":1}\n", &[]);
        check(r#"{"a":"\u0041"}"#, r#"{"a":"A"}"#, &[]);
        check(r#"{"a":1.0}"#, r#"{"a":1.00}"#, &[("a", "1.0", "1.00")]);
        check(r#"{"a":1}"#, r#"{"b":1}"#, &[("a", "1", "-"), ("b", "-", "1")]);
        check(
            r#"{"a":{"b":{"c":1}},"t":[1,{"x":2}]}"#,
            r#"{"a":{"b":{"c":2}},"t":[1,{"x":3},4]}"#,
            &[("a.b.c", "1", "2"), ("t[1].x", "2", "3"), ("t[2]", "-", "4")],
        );
        check(r#"{"a":{}}"#, r#"{"a":[]}"#, &[("a", "{}", "[]")]);
        check(r#"{"a":"<b>"}"#, r#"{"a":null}"#, &[("a", "\"<b>\"", "null")]);
        // What is no JSON differs as a whole.
        check("{", "{}", &[("", "{", "{}")]);
    }

    #[test]
    fn the_list_of_differences_is_bounded() {
        let document = |value: usize| {
            let fields: Vec<String> = (0..1_000).map(|n| format!("\"f{n}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        };
        let (found, more) = differences(&document(1), &document(2));
        assert_eq!((found.len(), more), (SHOWN_MAX, true));
    }
}
