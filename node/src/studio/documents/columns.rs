//! Columns of the table: which there are, and what a document has in each.
//!
//! A column is a path: `name`, or `address.city` for a field within a field. Values are shown as they are stored: a number
//! of thirty digits keeps them all.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::limits;

/// Columns that the documents of a page choose themselves.
const DEFAULT_MAX: usize = 5;
/// Columns that a visitor may choose.
pub const CHOSEN_MAX: usize = 15;
/// Longest path of a column in bytes.
const PATH_BYTES_MAX: usize = 256;

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The columns that were asked for, with commas between them; empty: none.
#[must_use]
pub fn chosen(asked: &str) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for name in asked.split(',').map(str::trim) {
        let fits = !name.is_empty() && name.len() <= PATH_BYTES_MAX;
        if fits && columns.len() < CHOSEN_MAX && !columns.iter().any(|it| it == name) {
            columns.push(name.to_owned());
        }
    }
    columns
}

/// The fields that most documents of a page have, and a table can show: no objects, no lists, no names that a path cannot
/// have. Of those that are as frequent, the ones that come first in the documents.
#[must_use]
pub fn of_documents<'a>(documents: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for document in documents {
        for name in scalars(document) {
            let place = *places.entry(name.clone()).or_insert_with(|| {
                counts.push((name, 0));
                counts.len() - 1
            });
            if let Some((_, count)) = counts.get_mut(place) {
                *count += 1;
            }
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count)); // Stable: the order of first sight stays.
    counts.into_iter().take(DEFAULT_MAX).map(|(name, _)| name).collect()
}

/// Names that one document gives to the columns at most: a document has up to 100,000 fields.
const NAMES_OF_ONE_MAX: usize = 64;

/// The names of a document's fields with plain values, in its order.
fn scalars(document: &[u8]) -> Vec<String> {
    let Ok(fields) = serde_json::from_slice::<Ordered<'_>>(document) else { return Vec::new() };
    let fits = |name: &str| !name.is_empty() && name.len() <= 64 && !name.contains([',', '.']);
    let plain = |value: &RawValue| !value.get().starts_with(['{', '[']);
    let named = fields.0.into_iter().filter(|(name, value)| fits(name) && plain(value));
    named.map(|(name, _)| name).take(NAMES_OF_ONE_MAX).collect()
}

/// The fields of an object in its own order.
struct Ordered<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Ordered<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                mut map: M,
            ) -> Result<Self::Value, M::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    fields.push((name, value));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Visitor).map(Self)
    }
}

/// Parts of a path that are followed.
const PARTS_MAX: usize = 8;

/// What a document has under a path, as a table shows it; empty where it has nothing there.
///
/// A name with a dot in it is found as it stands; after that, what is before the first dot is a field, and the rest is
/// looked for within.
#[must_use]
pub fn cell(document: &[u8], path: &str) -> String {
    // Each column reads the document anew, and each part of its path what is below.
    if document.len() > limits::STUDIO_EDITED_BYTES_MAX || path.split('.').count() > PARTS_MAX {
        return String::new();
    }
    let Ok(text) = std::str::from_utf8(document) else { return String::new() };
    find(text, path).map(|value| shown(value.get())).unwrap_or_default()
}

fn find<'a>(object: &'a str, path: &str) -> Option<&'a RawValue> {
    let fields: Fields<'a> = serde_json::from_str(object).ok()?;
    if let Some(value) = fields.get(path) {
        return Some(value);
    }
    let (name, rest) = path.split_once('.')?;
    find(fields.get(name)?.get(), rest)
}

/// A string as its text, everything else as its JSON.
fn shown(json: &str) -> String {
    match json.starts_with('"') {
        true => serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned()),
        false => json.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_holds_what_is_stored_under_its_path() {
        let document = r#"{"name":"Ann","n":12345678901234567890123,"address":{"city":"Åbo","a.b":1},"a.b":2,
            "tags":["x"],"nothing":null,"escaped":"a\u202eb\n","ad\u0064ress2":true,"":0}"#;
        for (path, expected) in [
            ("name", "Ann"),
            ("n", "12345678901234567890123"),
            ("address.city", "Åbo"),
            ("address.a.b", "1"),
            ("a.b", "2"),
            ("address", r#"{"city":"Åbo","a.b":1}"#),
            ("tags", r#"["x"]"#),
            ("tags.0", ""),
            ("nothing", "null"),
            ("escaped", "a\u{202e}b\n"),
            ("address2", "true"),
            ("address.", ""),
            (".", ""),
            ("name.x", ""),
            ("missing", ""),
            ("", "0"),
        ] {
            assert_eq!(cell(document.as_bytes(), path), expected, "{path}");
        }
        for broken in [&b"[1]"[..], b"", b"{", b"\xff"] {
            assert_eq!(cell(broken, "name"), "");
            assert_eq!(of_documents([broken].into_iter()), [""; 0]);
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64));
        assert_eq!(cell(deep.as_bytes(), &["a"; 64].join(".")), "", "too many parts");
        assert!(cell(deep.as_bytes(), &["a"; PARTS_MAX].join(".")).starts_with("{\"a\":"));
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::STUDIO_EDITED_BYTES_MAX));
        assert_eq!(cell(large.as_bytes(), "a"), "", "too large to be read for a table");
    }

    #[test]
    fn columns_are_those_chosen_or_those_that_most_documents_have() {
        for (asked, expected) in
            [("", &[][..]), (" , ,", &[]), ("name, address.city ,name", &["name", "address.city"])]
        {
            assert_eq!(chosen(asked), expected, "{asked}");
        }
        let many: Vec<String> = (0..99).map(|n| format!("c{n}")).collect();
        assert_eq!(chosen(&many.join(",")).len(), CHOSEN_MAX);
        assert_eq!(chosen(&"x".repeat(PATH_BYTES_MAX + 1)), [""; 0]);

        let documents = [
            r#"{"z":1,"name":"a","address":{"city":"b"},"tags":[1],"a,b":1,"a.b":1}"#,
            r#"{"name":"b","rare":1,"z":2,"e":1,"f":1}"#,
            r#"{"name":"c"}"#,
        ];
        let found = of_documents(documents.iter().map(|it| it.as_bytes()));
        assert_eq!(found, ["name", "z", "rare", "e", "f"]);
        let wide: Vec<String> = (0..1_000).map(|n| format!("\"f{n}\":{n}")).collect();
        let wide = format!("{{{}}}", wide.join(","));
        assert_eq!(of_documents([wide.as_bytes()].into_iter()).len(), DEFAULT_MAX);
    }
}
