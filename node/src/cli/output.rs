//! The one writer of standard output: rows as a table, JSON, YAML or names.
//!
//! The JSON of a command is stable: fields may be added, and nothing is renamed or removed. A list is an array, one thing
//! an object. Documents stand in it byte for byte.

use std::io::Write;

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Value, value::RawValue};

use super::failed::{Failed, Result};

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// One JSON value
    Json,
    /// One JSON object a line
    Jsonl,
    /// YAML
    Yaml,
    /// Names alone, one a line
    Name,
}

/// A column of a table: the field of the row, and whether it needs a wide table.
pub(super) struct Column {
    field: &'static str,
    wide: bool,
}

/// A column that is always shown.
pub(super) const fn column(field: &'static str) -> Column {
    Column { field, wide: false }
}

/// A column of `-o wide`.
pub(super) const fn wide(field: &'static str) -> Column {
    Column { field, wide: true }
}

#[derive(Debug, Clone)]
enum Field {
    Value(Value),
    /// JSON that is passed on byte for byte.
    Raw(Box<RawValue>),
}

/// One thing of the output: fields in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Row(Vec<(&'static str, Field)>);

impl Row {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, Field::Value(value.into())));
        self
    }

    /// These fields alone, in this order.
    pub(super) fn only(self, names: &[&str]) -> Self {
        let field = |name: &&str| self.0.iter().find(|(field, _)| field == name).cloned();
        Self(names.iter().filter_map(field).collect())
    }

    /// JSON as it was stored. What is no JSON becomes a string.
    pub(super) fn with_json(mut self, name: &'static str, json: &[u8]) -> Self {
        let text = String::from_utf8_lossy(json).into_owned();
        let field = RawValue::from_string(text.clone())
            .map_or_else(|_| Field::Value(Value::String(text)), Field::Raw);
        self.0.push((name, field));
        self
    }

    fn text(&self, name: &str) -> String {
        match self.0.iter().find(|(field, _)| *field == name) {
            Some((_, Field::Value(value))) => cell(value),
            Some((_, Field::Raw(raw))) => raw.get().to_owned(),
            None => String::new(),
        }
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            match field {
                Field::Value(value) => map.serialize_entry(name, value)?,
                Field::Raw(raw) => map.serialize_entry(name, raw)?,
            }
        }
        map.end()
    }
}

/// A row in YAML, which has no raw JSON: it becomes a string, so that no number changes.
struct YamlRow<'a>(&'a Row);

impl Serialize for YamlRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.0.len()))?;
        for (name, field) in &self.0.0 {
            match field {
                Field::Value(value) => map.serialize_entry(name, value)?,
                Field::Raw(raw) => map.serialize_entry(name, raw.get())?,
            }
        }
        map.end()
    }
}

/// Milliseconds since 1970 as RFC 3339; null for 0.
pub(super) fn time(unix_ms: i64) -> Value {
    if unix_ms == 0 {
        return Value::Null;
    }
    jiff::Timestamp::from_millisecond(unix_ms).map_or(Value::Null, |t| t.to_string().into())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => printable(text),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| format!("{}:{}", printable(key), cell(value)))
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// A name from the cluster may not steer a terminal.
fn printable(text: &str) -> String {
    let harmless = |c: char| !crate::certificates::is_misleading(c.encode_utf8(&mut [0; 4]));
    text.chars().map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect()
}

/// The writer of standard output.
pub(super) struct Out {
    writer: Box<dyn Write + Send>,
    /// The form that was asked for.
    pub(super) format: Format,
}

impl Out {
    pub(super) fn stdout(format: Format) -> Self {
        Self::new(Box::new(std::io::stdout()), format)
    }

    pub(super) fn new(writer: Box<dyn Write + Send>, format: Format) -> Self {
        Self { writer, format }
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.writer.write_all(bytes).and_then(|()| self.writer.flush());
        written.map_err(|e| Failed::stdout(&e))
    }

    /// Writes one line.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes several things of one kind. `name` is the field that `-o name` prints.
    pub(super) fn list(&mut self, columns: &[Column], name: &str, rows: &[Row]) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => self.table(columns, rows),
            Format::Json => self.json(rows),
            Format::Jsonl => rows.iter().try_for_each(|row| self.json_line(row)),
            Format::Yaml => self.yaml(&rows.iter().map(YamlRow).collect::<Vec<_>>()),
            Format::Name => rows.iter().try_for_each(|row| self.line(&row.text(name))),
        }
    }

    /// Writes one thing, as a list of its fields.
    pub(super) fn one(&mut self, name: &str, row: &Row) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let width = row.0.iter().map(|(field, _)| field.len()).max().unwrap_or_default();
                row.0.iter().try_for_each(|(field, _)| {
                    self.line(format!("{field:width$}  {}", row.text(field)).trim_end())
                })
            }
            Format::Json => self.json(row),
            Format::Jsonl => self.json_line(row),
            Format::Yaml => self.yaml(&YamlRow(row)),
            Format::Name => self.line(&row.text(name)),
        }
    }

    fn table(&mut self, columns: &[Column], rows: &[Row]) -> Result<()> {
        let all = self.format == Format::Wide;
        let shown: Vec<&Column> = columns.iter().filter(|column| all || !column.wide).collect();
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(shown.iter().map(|c| c.field.to_uppercase().replace('_', " ")));
        for row in rows {
            table.add_row(shown.iter().map(|column| row.text(column.field)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
        self.line(&text)
    }

    fn json(&mut self, value: &(impl Serialize + ?Sized)) -> Result<()> {
        let text =
            serde_json::to_string_pretty(value).map_err(|e| Failed::unexpected(e.to_string()))?;
        self.line(&text)
    }

    /// Writes one JSON object on one line, whatever the format.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|e| Failed::unexpected(e.to_string()))?;
        self.line(&text)
    }

    fn yaml(&mut self, value: &impl Serialize) -> Result<()> {
        let text =
            serde_yaml_ng::to_string(value).map_err(|e| Failed::unexpected(e.to_string()))?;
        self.bytes(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, write: impl Fn(&mut Out) -> Result<()>) -> String {
        let kept = Kept::default();
        write(&mut Out::new(Box::new(kept.clone()), format)).unwrap();
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn rows() -> Vec<Row> {
        let row = |name: &str, count: u64| {
            Row::new()
                .with("name", name)
                .with("count", count)
                .with("grants", serde_json::json!({"sales": "Read"}))
                .with_json("document", br#"{"n":12345678901234567890123,"b":1.10}"#)
        };
        vec![row("a\u{1b}[31m", 1), row("b", 2)]
    }

    #[test]
    fn every_format_of_a_list() {
        let columns = [column("name"), column("count"), wide("grants")];
        let check = |format, expected: &str| {
            assert_eq!(written(format, |out| out.list(&columns, "name", &rows())), expected);
        };
        check(Format::Table, "NAME    COUNT\na\u{fffd}[31m  1\nb       2\n");
        check(
            Format::Wide,
            "NAME    COUNT  GRANTS\na\u{fffd}[31m  1      sales:Read\nb       2      sales:Read\n",
        );
        check(Format::Name, "a\u{fffd}[31m\nb\n");
        check(
            Format::Jsonl,
            "{\"name\":\"a\\u001b[31m\",\"count\":1,\"grants\":{\"sales\":\"Read\"},\
             \"document\":{\"n\":12345678901234567890123,\"b\":1.10}}\n\
             {\"name\":\"b\",\"count\":2,\"grants\":{\"sales\":\"Read\"},\
             \"document\":{\"n\":12345678901234567890123,\"b\":1.10}}\n",
        );
        assert!(written(Format::Json, |out| out.list(&columns, "name", &[])) == "[]\n");
    }

    #[test]
    fn one_thing_is_an_object_and_documents_keep_their_bytes() {
        let row = &rows()[1];
        let json = written(Format::Json, |out| out.one("name", row));
        assert!(json.contains("{\"n\":12345678901234567890123,\"b\":1.10}"), "{json}");
        let yaml = written(Format::Yaml, |out| out.one("name", row));
        assert!(yaml.contains("document: '{\"n\":12345678901234567890123,\"b\":1.10}'"), "{yaml}");
        let table = written(Format::Table, |out| out.one("name", row));
        assert!(table.starts_with("name      b\ncount     2\n"), "{table}");
    }
}
