//! From messages of the log's format to names and values that people read: what was asked for, and what changed.
//!
//! Names of fields come from the contract itself, so that a new command or record needs nothing here. What is shown is
//! decided by kind: numbers and text are; bytes only where their field holds a thumbprint or an id; certificates as
//! their thumbprint; everything else as its length.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _, Value,
};
use rookery_proto::log::v1::{AuditChange, AuditDifference, AuditField, ClusterCommand};

use crate::{
    audit::text::{escaped, escaped_within},
    authz::{Access, Clearance},
    cluster::records,
    limits,
    names::Thumbprint,
    results::Error,
    storage::Overlay,
};

/// The contract, which is part of this program.
static CONTRACT: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(rookery_proto::DESCRIPTORS).ok());

/// Fields that every change touches and that the record's own position says.
const UNTOLD: &[&str] = &["revision", "registry_revision"];

/// Kinds of records that are the audit log itself.
const OWN_KINDS: &[u8] = &[0x1c, 0x1d, 0x1e];

/// Fields of bytes that are shown in hex: identities, never secrets.
const SHOWN_BYTES: &[&str] = &[
    "thumbprint",
    "thumbprints",
    "created_by",
    "enrolled_by",
    "author",
    "incarnation",
    "actor",
    "token_id",
];

/// Words in the name of a field of text whose content is not shown.
const SECRET_WORDS: &[&str] = &["secret", "password", "passphrase", "recovery", "private"];

/// What a command asks for.
pub(super) struct Asked {
    /// Its name in the log's format, such as `put_certificate`.
    pub kind: String,
    /// What it is about, as far as the command says.
    pub target: String,
    /// Its fields.
    pub fields: Vec<AuditField>,
}

fn message_named(name: &str) -> Option<MessageDescriptor> {
    CONTRACT.as_ref()?.get_message_by_name(name)
}

/// Reads what a command asks for.
pub(super) fn asked(command: &ClusterCommand) -> Asked {
    let mut asked = Asked { kind: String::new(), target: String::new(), fields: Vec::new() };
    let decoded = message_named("rookery.log.v1.ClusterCommand")
        .and_then(|it| DynamicMessage::decode(it, command.encode_to_vec().as_slice()).ok());
    let Some(decoded) = decoded else { return asked };
    if let Some((field, Value::Message(inner))) = decoded.fields().next() {
        asked.kind = field.name().to_owned();
        asked.target = target(inner);
        let shown = inner.fields().take(limits::AUDIT_FIELDS_MAX);
        asked.fields = shown
            .map(|(field, value)| AuditField {
                name: field.name().to_owned(),
                value: escaped(&shown_value(&field, value)),
            })
            .collect();
    }
    asked
}

/// The field that says what a command is about: the first of these that it has.
fn target(command: &DynamicMessage) -> String {
    const TELLING: &[(&str, &str)] = &[
        ("thumbprint", "certificate"),
        ("thumbprints", "certificates"),
        ("der", "certificate"),
        ("node_id", "node"),
        ("token_id", "join token"),
        ("cluster_id", "cluster"),
    ];
    let kind = command.descriptor().name().to_owned();
    for (name, what) in TELLING {
        if let Some(field) = command.descriptor().get_field_by_name(name)
            && command.has_field(&field)
        {
            let value = shown_value(&field, &command.get_field(&field));
            let value = value.trim_start_matches("certificate ");
            return escaped(&format!("{what} {value}"));
        }
    }
    for name in ["name", "id"] {
        if let Some(field) = command.descriptor().get_field_by_name(name) {
            let what = thing(&kind);
            let value = shown_value(&field, &command.get_field(&field));
            return escaped(format!("{what} {value}").trim());
        }
    }
    String::new()
}

/// What a message is about by its name: `CreateDatabase`: database; `RevokeJoinToken`: join token.
fn thing(message: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for c in message.chars() {
        if c.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| word != "state" && word != "record");
    words.split_first().map_or_else(String::new, |(_, rest)| rest.join(" "))
}

/// The changes behind a command, and how many records more it changed than are listed.
pub(super) fn of(
    changed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    state: &Overlay<'_>,
) -> Result<(Vec<AuditChange>, u64), Error> {
    let mut changes = Vec::new();
    let mut left_out = 0;
    for (key, before) in changed {
        let Some((kind, what, message)) = kind_of(&key) else { continue };
        if OWN_KINDS.contains(&kind) {
            continue;
        }
        let after = state.get(&key)?;
        if before == after {
            continue;
        }
        if changes.len() >= limits::AUDIT_CHANGES_MAX {
            left_out += 1;
            continue;
        }
        let (before, after) = (decoded(message, before), decoded(message, after));
        let fields = differences(before.as_ref(), after.as_ref());
        if !fields.is_empty() {
            let record = label(what, &key, after.as_ref().or(before.as_ref()));
            changes.push(AuditChange { record, fields });
        }
    }
    Ok((changes, left_out))
}

fn kind_of(key: &[u8]) -> Option<(u8, &'static str, &'static str)> {
    let prefix = key.first()?;
    records::KINDS.iter().copied().find(|(of, _, _)| of == prefix)
}

fn decoded(message: &str, bytes: Option<Vec<u8>>) -> Option<DynamicMessage> {
    DynamicMessage::decode(message_named(message)?, bytes?.as_slice()).ok()
}

/// Such as `database 3 sales`.
fn label(what: &str, key: &[u8], record: Option<&DynamicMessage>) -> String {
    let id = match &key[1..] {
        [] => String::new(),
        id => match <[u8; 8]>::try_from(id) {
            Ok(number) => u64::from_be_bytes(number).to_string(),
            Err(_) => match std::str::from_utf8(id) {
                Ok(text) if id.len() != 32 => text.to_owned(),
                Ok(_) | Err(_) => hex::encode(id),
            },
        },
    };
    let name = record.and_then(|record| {
        let field = record.descriptor().get_field_by_name("name")?;
        record.get_field(&field).as_str().map(str::to_owned)
    });
    let words = [what.to_owned(), id, name.unwrap_or_default()];
    escaped(words.join(" ").trim())
}

/// The fields that differ; of lists only the elements that came or went.
fn differences(
    before: Option<&DynamicMessage>,
    after: Option<&DynamicMessage>,
) -> Vec<AuditDifference> {
    let Some(either) = after.or(before) else { return Vec::new() };
    let mut differences = Vec::new();
    for field in either.descriptor().fields() {
        let value = |of: Option<&DynamicMessage>| {
            of.filter(|of| of.has_field(&field)).map(|of| of.get_field(&field).into_owned())
        };
        let (before, after) = (value(before), value(after));
        if before == after || UNTOLD.contains(&field.name()) {
            continue;
        }
        let (before, after) = shown_difference(&field, before, after);
        if differences.len() < limits::AUDIT_FIELDS_MAX {
            let name = field.name().to_owned();
            differences.push(AuditDifference { name, before, after });
        }
    }
    differences
}

fn shown_difference(
    field: &FieldDescriptor,
    before: Option<Value>,
    after: Option<Value>,
) -> (String, String) {
    if field.is_list() {
        let elements = |value: Option<Value>| -> BTreeSet<String> {
            let Some(Value::List(values)) = value else { return BTreeSet::new() };
            values.iter().map(|it| shown_value(field, it)).collect()
        };
        let (before, after) = (elements(before), elements(after));
        let only = |of: &BTreeSet<String>, other: &BTreeSet<String>| {
            let listed = of.difference(other).cloned().collect::<Vec<_>>().join(", ");
            escaped_within(&listed, limits::AUDIT_LIST_CHARS_MAX)
        };
        return (only(&before, &after), only(&after, &before));
    }
    let shown = |value: Option<Value>| {
        value.map_or_else(String::new, |it| escaped(&shown_value(field, &it)))
    };
    (shown(before), shown(after))
}

/// One value, not escaped yet.
fn shown_value(field: &FieldDescriptor, value: &Value) -> String {
    let name = field.name();
    match value {
        Value::Bool(it) => it.to_string(),
        Value::I32(it) => it.to_string(),
        Value::I64(it) => it.to_string(),
        Value::U32(it) => number_word(name, *it),
        Value::U64(it) => it.to_string(),
        Value::F32(it) => it.to_string(),
        Value::F64(it) => it.to_string(),
        Value::EnumNumber(it) => it.to_string(),
        Value::String(it) => match SECRET_WORDS.iter().any(|word| name.contains(word)) {
            true => "(not shown)".to_owned(),
            false => it.clone(),
        },
        Value::Bytes(it) => shown_bytes(name, it),
        Value::Message(it) => shown_message(it),
        Value::List(values) => {
            let shown: Vec<String> = values.iter().map(|it| shown_value(field, it)).collect();
            shown.join(", ")
        }
        Value::Map(it) => format!("{} entries", it.len()),
    }
}

fn shown_message(message: &DynamicMessage) -> String {
    let fields = message.fields().filter(|(field, _)| !UNTOLD.contains(&field.name()));
    let shown: Vec<String> = fields
        .map(|(field, value)| format!("{}: {}", field.name(), shown_value(&field, value)))
        .collect();
    format!("{{{}}}", shown.join("; "))
}

fn number_word(field: &str, number: u32) -> String {
    let word = match field {
        "clearance" => Clearance::try_from(number).ok().map(|it| it.to_string()),
        "access" => Access::try_from(number).ok().map(|it| it.title().to_owned()),
        _ => None,
    };
    word.unwrap_or_else(|| number.to_string())
}

fn shown_bytes(field: &str, bytes: &[u8]) -> String {
    match field {
        "der" | "certificate" | "node_certificates" => {
            format!("certificate {}", Thumbprint::of(bytes))
        }
        shown if SHOWN_BYTES.contains(&shown) && bytes.len() <= 32 => hex::encode(bytes),
        _ => format!("({} bytes)", bytes.len()),
    }
}
