//! Documents: what their text may be, what a batch does, where records stand, how a page goes on.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use rookery_proto::log::v1::{
    Command, DatabaseCommand, DeleteDocument, DocumentWrite, PutDocument, applied, command,
    document_write,
};

use super::{
    input::{Input, push_piece},
    store::Replica,
};
use crate::{
    database::{self, ListQuery, Size, json},
    limits,
    names::{CollectionName, DatabaseId, DocumentId, Thumbprint},
    results::Error,
};

const GROUP: u64 = 7;
const NOW: i64 = 1_750_000_000_000;
/// Ids that short ones stand for, so that commands meet each other's documents.
const IDS: [&str; 4] = ["a", "ab", "b", "é"];

// ---- documents ----

/// What is accepted is one JSON object that an independent parser reads too, and is kept byte for byte.
pub(super) fn document(bytes: &[u8]) -> bool {
    let theirs = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes);
    match json::validate(bytes) {
        Ok(()) => {
            assert!(bytes.len() <= limits::DOCUMENT_BYTES_MAX);
            let object = theirs.expect("only we accept it");
            assert!(depth(&serde_json::Value::Object(object)) <= limits::DOCUMENT_DEPTH_MAX);
            true
        }
        Err(error) => {
            assert!(error.offset <= bytes.len(), "an offset outside of the document");
            assert!(error.to_string().len() < 1_000, "an error as long as what it refuses");
            assert_eq!(json::validate(bytes), Err(error), "another answer the second time");
            false
        }
    }
}

fn depth(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    let deepest = |values: &mut dyn Iterator<Item = &Value>| values.map(depth).max().unwrap_or(0);
    match value {
        Value::Array(values) => 1 + deepest(&mut values.iter()),
        Value::Object(members) => 1 + deepest(&mut members.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

pub(super) fn document_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"name":"Ada","born":1815,"tags":["a","b"],"x":{"y":[null,true,false,-1.5e-3]}}"#,
        r#"{"":"\u00e9\ud83d\ude00\n","a":{"a":{"a":1}},"b":[]}"#,
        r#"{"a":12345678901234567890123,"b":-0}"#,
        "{}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

// ---- commands ----

/// Entries of a database's log: replicas agree, a refusal changes nothing, and what was answered is what is stored.
pub(super) fn commands(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let mut step_by_step = Replica::new(GROUP);
    let mut model = BTreeMap::new();
    let mut entries = Vec::new();
    while !input.is_empty() && entries.len() < 16 {
        let raw = input.byte();
        let Some(command) = entry(raw, input.piece(), entries.len()) else { continue };
        assert_eq!(Command::decode(command.encode_to_vec().as_slice()).as_ref(), Ok(&command));
        let index = entries.len() as u64 + 1;
        let before = step_by_step.clone();
        match step_by_step.batch(|state| database::apply(index, &command, state)) {
            Ok(applied) => {
                check_applied(&command, &applied, &before, &step_by_step, &mut model);
                entries.push((command, applied));
            }
            Err(error) => {
                assert!(stops(&error), "a command stops the node: {error}");
                break;
            }
        }
    }
    step_by_step.check();
    check_model(&step_by_step, &model);
    let mut at_once = Replica::new(GROUP);
    let replies = at_once.batch(|state| {
        let commands = (1..).zip(&entries);
        commands.map(|(index, (command, _))| database::apply(index, command, state)).collect()
    });
    let replies: Vec<_> = replies.map_err(|error: Error| error.to_string()).unwrap();
    assert!(replies.iter().eq(entries.iter().map(|(_, applied)| applied)), "other replies");
    assert_eq!(at_once.hash, step_by_step.hash, "replicas differ");
    let mut outcomes = entries.iter().map(|(_, applied)| applied.outcome.as_ref());
    outcomes.any(|outcome| matches!(outcome, Some(applied::Outcome::Database(_))))
}

/// A newer program's command stops the node and is no finding; nothing else may.
pub(super) fn stops(error: &Error) -> bool {
    match error {
        Error::UnknownVersion { .. } | Error::UnknownCommand { .. } => true,
        Error::Storage(_) | Error::Corrupt { .. } => false,
    }
}

/// Bytes of a log as they are, or a batch in an envelope that lets it through.
fn entry(raw: u8, bytes: &[u8], place: usize) -> Option<Command> {
    if raw == u8::MAX {
        return Command::decode(bytes).ok();
    }
    let mut batch = DatabaseCommand::decode(bytes).ok()?;
    for write in &mut batch.writes {
        if let [one] = write.id.as_bytes() {
            write.id = IDS[usize::from(*one) % IDS.len()].to_owned();
        }
    }
    let request = [u8::try_from(place).unwrap_or_default() & !(raw >> 7); 16];
    Some(Command {
        version: 1,
        request_id: request.to_vec(),
        author: vec![raw & 1; 32],
        at_unix_ms: NOW + i64::from(raw) * 3_600_000,
        registry_revision: 5,
        command: Some(command::Command::Database(batch)),
        ..Command::default()
    })
}

type Model = BTreeMap<String, (String, Vec<u8>)>;

fn check_applied(
    command: &Command,
    applied: &rookery_proto::log::v1::Applied,
    before: &Replica,
    after: &Replica,
    model: &mut Model,
) {
    let Some(command::Command::Database(batch)) = &command.command else {
        panic!("a command of another group was applied")
    };
    let of_documents = |replica: &Replica| {
        let mut records = replica.memory.records(replica.space);
        records.retain(|key, _| key.first().is_some_and(|kind| *kind < 0x70));
        records
    };
    match applied.outcome.as_ref().expect("an answer") {
        applied::Outcome::Refusal(refusal) => {
            assert_eq!(of_documents(before), of_documents(after), "a refusal changed something");
            assert!(!refusal.reason.is_empty() && refusal.message.len() < 4_096);
            let of_the_batch =
                !matches!(refusal.field.as_str(), "request_id" | "author" | "at_unix_ms");
            if of_the_batch && ["INVALID_ARGUMENT", "LIMIT_EXCEEDED"].contains(&&*refusal.reason) {
                assert_eq!(
                    database::check(batch).as_ref(),
                    Err(refusal),
                    "refused in the log alone"
                );
            }
        }
        // Kept from an entry before: it was counted then.
        applied::Outcome::Database(_) if of_documents(before) == of_documents(after) => {}
        applied::Outcome::Database(outcome) => {
            assert_eq!(database::check(batch), Ok(()), "the log is laxer than its door");
            assert_eq!(outcome.results.len(), batch.writes.len());
            for write in &batch.writes {
                match write.operation.as_ref().expect("an operation") {
                    document_write::Operation::Put(put) => {
                        let document = (put.collection.clone(), put.json.clone());
                        model.insert(write.id.clone(), document);
                    }
                    document_write::Operation::Delete(_) => drop(model.remove(&write.id)),
                }
            }
        }
        applied::Outcome::Cluster(_) => panic!("an outcome of another group"),
    }
}

/// What is read is what was written: one by one, as a list, and by collection.
fn check_model(replica: &Replica, model: &Model) {
    let (read, space) = (&replica.memory, replica.space);
    check_sizes(replica, model);
    let all = database::list(read, space, &ListQuery { page_size: 1_000, ..ListQuery::default() });
    let all = all.unwrap().documents;
    assert!(all.iter().map(|document| &document.id).eq(model.keys()));
    for document in all {
        let (collection, json) = &model[&document.id];
        assert_eq!((&document.collection, &document.json), (collection, json));
        let id = DocumentId::parse(&document.id).expect("an id that is stored");
        assert_eq!(database::get(read, space, &id).unwrap(), Some(document));
    }
    let collections: BTreeSet<&String> =
        model.values().map(|(collection, _)| collection).filter(|name| !name.is_empty()).collect();
    for collection in collections {
        let name = CollectionName::parse(collection).expect("a collection that is stored");
        let query = ListQuery { collection: Some(name), page_size: 1_000, ..ListQuery::default() };
        let listed = database::list(read, space, &query).unwrap().documents;
        let held = model.iter().filter(|(_, (held, _))| held == collection).map(|(id, _)| id);
        assert!(listed.iter().map(|document| &document.id).eq(held), "a collection lists others");
    }
}

/// What is counted is what a recount finds, of the database and of every collection.
fn check_sizes(replica: &Replica, model: &Model) {
    let (read, space) = (&replica.memory, replica.space);
    let mut sizes: BTreeMap<String, Size> = BTreeMap::new();
    let mut all = Size::default();
    for (collection, json) in model.values() {
        for size in [sizes.entry(collection.clone()).or_default(), &mut all] {
            size.documents += 1;
            size.bytes += json.len() as u64;
        }
    }
    assert_eq!(database::size(read, space).unwrap(), all);
    let counted = database::collections(read, space, None, 1_000).unwrap();
    assert!(counted.sizes.into_iter().eq(sizes), "a collection is counted wrong");
}

pub(super) fn command_seeds() -> Vec<Vec<u8>> {
    let put = |id: &str, collection: &str, json: &str| DocumentWrite {
        id: id.to_owned(),
        condition: None,
        operation: Some(document_write::Operation::Put(PutDocument {
            collection: collection.to_owned(),
            json: json.as_bytes().to_vec(),
        })),
    };
    let delete = |id: &str| DocumentWrite {
        id: id.to_owned(),
        condition: None,
        operation: Some(document_write::Operation::Delete(DeleteDocument {})),
    };
    let once = |write: DocumentWrite| DocumentWrite {
        condition: Some(document_write::Condition::MustNotExist(true)),
        ..write
    };
    let seed = |batches: &[Vec<DocumentWrite>]| {
        let mut bytes = Vec::new();
        for (writes, mode) in batches.iter().zip(0_u8..) {
            bytes.push(mode);
            push_piece(&mut bytes, &DatabaseCommand { writes: writes.clone() }.encode_to_vec());
        }
        bytes
    };
    let mut raw = vec![u8::MAX];
    let whole = entry(0, &DatabaseCommand { writes: vec![put("a", "c", "{}")] }.encode_to_vec(), 1);
    push_piece(&mut raw, &whole.unwrap().encode_to_vec());
    vec![
        seed(&[
            vec![put("a", "", "{}")],
            vec![put("a", "people", r#"{"x":1}"#)],
            vec![delete("a")],
        ]),
        seed(&[
            vec![once(put("a", "c", "{}")), put("b", "c", "{}")],
            vec![once(put("a", "d", "{}"))],
        ]),
        seed(&[vec![delete("none"), put("b", "d", "{}")], vec![]]),
        raw,
    ]
}

// ---- keys ----

/// Two documents never share a key, and a collection's keys are its own.
pub(super) fn record_keys(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let mut seen = BTreeMap::new();
    let mut prefixes = BTreeMap::new();
    while !input.is_empty() {
        let (collection, id) = (input.piece(), input.piece());
        let (Ok(collection), Ok(id)) = (std::str::from_utf8(collection), std::str::from_utf8(id))
        else {
            return false;
        };
        let (Ok(collection), Ok(id)) = (CollectionName::parse(collection), DocumentId::parse(id))
        else {
            continue;
        };
        let (collection, id) = (collection.as_str().to_owned(), id.as_str().to_owned());
        for (key, owner) in [
            (database::document_key(&id), (String::new(), id.clone())),
            (database::collection_key(&collection, &id), (format!("of {collection}"), id.clone())),
        ] {
            assert!(key.len() <= limits::STATE_KEY_BYTES_MAX);
            let known = seen.entry(key).or_insert_with(|| owner.clone());
            assert_eq!(*known, owner, "two owners of one key");
        }
        prefixes.insert(collection.clone(), database::collection_prefix(&collection));
    }
    for (collection, prefix) in &prefixes {
        let to = database::after_prefix(prefix).expect("there are keys behind every collection");
        for (key, (owner, _)) in &seen {
            let within = key >= prefix && *key < to;
            assert_eq!(within, *owner == format!("of {collection}"), "{key:?} and {prefix:?}");
        }
    }
    seen.len() > 2
}

pub(super) fn key_seeds() -> Vec<Vec<u8>> {
    let seed = |pairs: &[(&str, &str)]| {
        let mut bytes = Vec::new();
        for (collection, id) in pairs {
            push_piece(&mut bytes, collection.as_bytes());
            push_piece(&mut bytes, id.as_bytes());
        }
        bytes
    };
    vec![
        seed(&[("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc")]),
        seed(&[("people", "x/y"), ("people2", "é"), ("peopl", "e")]),
    ]
}

// ---- page tokens ----

/// A token continues the query it was made for, inside of its range, or is refused.
pub(super) fn page_token(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let (mode, prefix, given) = (input.byte(), input.piece(), input.rest());
    let (Ok(prefix), Ok(text)) = (std::str::from_utf8(prefix), std::str::from_utf8(given)) else {
        return false;
    };
    let mut continued = false;
    let caller = (mode & 1 == 1).then(|| Thumbprint::of(b"caller"));
    let database = DatabaseId(u64::from(mode >> 4));
    let query = ListQuery { prefix: prefix.to_owned(), ids_only: mode & 2 == 2, ..<_>::default() };
    // Text of a client; then the same as the position in a token that the binding makes right.
    let forged = database::page_token::encode(caller, database, &query, text);
    for token in [text, forged.as_str()] {
        let Ok(after) = database::page_token::decode(caller, database, &query, token) else {
            continue;
        };
        continued = true;
        assert!(after.as_str().starts_with(prefix), "a token leads out of its query");
        let again = database::page_token::encode(caller, database, &query, after.as_str());
        assert_eq!(again, token, "two tokens of one position");
        for (caller, database, query) in [
            (Some(Thumbprint::of(b"another")), database, query.clone()),
            (caller, DatabaseId(database.0 + 1), query.clone()),
            (caller, database, ListQuery { ids_only: !query.ids_only, ..query.clone() }),
            (caller, database, ListQuery { prefix: format!("{prefix}x"), ..query.clone() }),
        ] {
            let taken = database::page_token::decode(caller, database, &query, token);
            assert!(taken.is_err(), "a token of another query is taken");
        }
    }
    continued
}

pub(super) fn token_seeds() -> Vec<Vec<u8>> {
    let seed = |mode: u8, prefix: &str, rest: &str| {
        let mut bytes = vec![mode];
        push_piece(&mut bytes, prefix.as_bytes());
        bytes.extend_from_slice(rest.as_bytes());
        bytes
    };
    let query = ListQuery { prefix: "a".to_owned(), ..ListQuery::default() };
    let token = database::page_token::encode(None, DatabaseId(1), &query, "abc");
    vec![seed(0x10, "a", &token), seed(0x13, "a", "abc"), seed(0, "", "x")]
}
