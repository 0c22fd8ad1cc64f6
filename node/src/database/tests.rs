//! Tests of the state machine and of reading.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use rookery_proto::log::v1::{DeleteDocument, document_write::Condition};

use super::*;
use crate::{
    results::testing::{Memory, refused, request_id, space},
    storage::StateHash,
};

const GROUP: u64 = 7;
const DAY_MS: i64 = 24 * 3600 * 1000;

fn put_write(id: &str, collection: &str, json: &str) -> DocumentWrite {
    let put = PutDocument { collection: collection.into(), json: json.as_bytes().to_vec() };
    DocumentWrite {
        id: id.into(),
        condition: None,
        operation: Some(document_write::Operation::Put(put)),
    }
}

fn delete_write(id: &str) -> DocumentWrite {
    DocumentWrite {
        id: id.into(),
        condition: None,
        operation: Some(document_write::Operation::Delete(DeleteDocument {})),
    }
}

fn when(condition: Condition, write: DocumentWrite) -> DocumentWrite {
    DocumentWrite { condition: Some(condition), ..write }
}

fn command(request: u64, at: i64, writes: Vec<DocumentWrite>) -> Command {
    Command {
        version: 1,
        request_id: request_id(request),
        author: vec![1; 32],
        internal_reason: String::new(),
        at_unix_ms: at,
        registry_revision: 5,
        origin_node_id: 0,
        command: Some(command::Command::Database(DatabaseCommand { writes })),
    }
}

/// A database that applies one entry after the other.
#[derive(Default)]
struct Database {
    memory: Memory,
    index: u64,
}

impl Database {
    fn write(&mut self, writes: Vec<DocumentWrite>) -> Applied {
        self.apply(&command(1_000_000 + self.index, 1_000, writes))
    }

    fn apply(&mut self, command: &Command) -> Applied {
        self.index += 1;
        let index = self.index;
        let applied = self.memory.batch(GROUP, |state| apply(index, command, state)).unwrap();
        assert_eq!(self.memory.rehash(), self.memory.hash);
        applied
    }

    fn get(&self, id: &str) -> Option<(String, String, String)> {
        let id = DocumentId::parse(id).unwrap();
        let document = get(&self.memory, space(GROUP), &id).unwrap()?;
        Some((document.collection, String::from_utf8(document.json).unwrap(), document.etag))
    }

    /// All ids of a query, page by page through tokens.
    fn ids(&self, query: &ListQuery) -> Vec<String> {
        let mut query = query.clone();
        let mut ids = Vec::new();
        loop {
            let page = list(&self.memory, space(GROUP), &query).unwrap();
            ids.extend(page.documents.into_iter().map(|document| document.id));
            let Some(after) = page.next_after else { return ids };
            let token = page_token::encode(None, DatabaseId(GROUP), &query, &after);
            let after = page_token::decode(None, DatabaseId(GROUP), &query, &token).unwrap();
            query.after = Some(after);
        }
    }
}

fn results(applied: &Applied) -> Vec<(String, String, bool)> {
    match applied.outcome.clone().unwrap() {
        applied::Outcome::Database(outcome) => {
            outcome.results.into_iter().map(|r| (r.id, r.etag, r.deleted)).collect()
        }
        other @ (applied::Outcome::Refusal(_) | applied::Outcome::Cluster(_)) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn a_document_is_kept_byte_for_byte_and_its_etag_changes_with_every_write() {
    let mut database = Database::default();
    let json = "{ \"b\":12345678901234567890123,\"a\":-0 }\n";
    let first = database.write(vec![put_write("x", "c", json)]);
    assert_eq!(results(&first), [("x".into(), "7-1-0".into(), false)]);
    assert_eq!(first.registry_revision, 5);
    assert_eq!(database.get("x"), Some(("c".into(), json.into(), "7-1-0".into())));
    database.write(vec![put_write("y", "", "{}"), put_write("x", "", json)]);
    assert_eq!(database.get("x").unwrap().2, "7-2-1");
    let all = |database: &Database| size(&database.memory, space(GROUP)).unwrap();
    assert_eq!(all(&database), Size { documents: 2, bytes: json.len() as u64 + 2 });
    let gone = database.write(vec![delete_write("x"), delete_write("nothing")]);
    assert_eq!(
        results(&gone),
        [("x".into(), String::new(), true), ("nothing".into(), String::new(), false)]
    );
    assert_eq!(database.get("x"), None);
    assert_eq!(all(&database), Size { documents: 1, bytes: 2 });
}

#[test]
fn a_batch_is_refused_as_a_whole_when_one_precondition_fails() {
    let etag = |text: &str| Condition::ExpectedEtag(text.into());
    let absent = || Condition::MustNotExist(true);
    for (write, current) in [
        (when(etag("7-1-9"), put_write("x", "", "{}")), "7-1-0"),
        (when(etag(""), put_write("x", "", "{}")), "7-1-0"),
        (when(etag("8-1-0"), put_write("x", "", "{}")), "7-1-0"),
        (when(etag("7-1-0"), put_write("other", "", "{}")), ""),
        (when(etag("7-1-0"), delete_write("other")), ""),
        (when(absent(), put_write("x", "", "{}")), "7-1-0"),
    ] {
        let mut database = Database::default();
        database.write(vec![put_write("x", "", "{}")]);
        let id = write.id.clone();
        let applied = database.write(vec![put_write("new", "c", "{}"), write]);
        assert_eq!(refused(&applied), Some(("CONCURRENCY", "writes[1].precondition")));
        let applied::Outcome::Refusal(refusal) = applied.outcome.unwrap() else { panic!() };
        assert_eq!(refusal.metadata["document_id"], id);
        assert_eq!(refusal.metadata["current_etag"], current);
        assert_eq!(database.get("new"), None);
        assert!(database.ids(&ListQuery::default()) == ["x"]);
    }
    let mut database = Database::default();
    for write in [
        when(absent(), put_write("x", "", "{}")),
        when(etag("7-1-0"), put_write("x", "", "{\"a\":1}")),
        when(Condition::MustNotExist(false), put_write("x", "", "{}")),
        when(etag("7-3-0"), delete_write("x")),
    ] {
        assert_eq!(refused(&database.write(vec![write])), None);
    }
}

#[test]
fn malformed_commands_are_refused_with_the_path_of_the_field() {
    let ok = || put_write("ok", "", "{}");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::DOCUMENT_BYTES_MAX - 8));
    let too_large = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::DOCUMENT_BYTES_MAX - 7));
    let long = "c".repeat(limits::COLLECTION_BYTES_MAX + 1);
    for (writes, reason, field) in [
        (vec![], "INVALID_ARGUMENT", "writes"),
        (vec![put_write("", "", "{}")], "INVALID_ARGUMENT", "writes[0].id"),
        (vec![ok(), put_write("a\0", "", "{}")], "INVALID_ARGUMENT", "writes[1].id"),
        (vec![put_write("a", &long, "{}")], "INVALID_ARGUMENT", "writes[0].collection"),
        (vec![put_write("a", "", "[]")], "INVALID_ARGUMENT", "writes[0].json"),
        (vec![put_write("a", "", "{\"a\":1,\"a\":2}")], "INVALID_ARGUMENT", "writes[0].json"),
        (vec![put_write("a", "", &too_large)], "LIMIT_EXCEEDED", "writes[0].json"),
        (vec![ok(), ok()], "INVALID_ARGUMENT", "writes[1].id"),
        (vec![ok(), delete_write("ok")], "INVALID_ARGUMENT", "writes[1].id"),
        (
            vec![put_write("a", "", &large), put_write("b", "", &large), put_write("c", "", "{}")],
            "LIMIT_EXCEEDED",
            "writes",
        ),
        (
            (0..=limits::BATCH_WRITES_MAX).map(|n| delete_write(&n.to_string())).collect(),
            "LIMIT_EXCEEDED",
            "writes",
        ),
    ] {
        let mut database = Database::default();
        let applied = database.write(writes);
        assert_eq!(refused(&applied), Some((reason, field)));
        assert_eq!(database.ids(&ListQuery::default()), [""; 0]);
    }
}

#[test]
fn malformed_envelopes_are_refused_and_unknown_formats_stop_the_node() {
    let good = command(1, 0, vec![delete_write("x")]);
    let mut database = Database::default();
    for (bad, field) in [
        (Command { request_id: vec![1; 15], ..good.clone() }, "request_id"),
        (Command { author: vec![1; 31], ..good.clone() }, "author"),
        (Command { author: Vec::new(), ..good.clone() }, "author"),
        (Command { internal_reason: "and a certificate".into(), ..good.clone() }, "author"),
    ] {
        assert_eq!(refused(&database.apply(&bad)), Some(("INVALID_ARGUMENT", field)));
        assert_eq!(database.memory, Memory::default());
    }
    let no_operation = DocumentWrite { operation: None, ..delete_write("x") };
    let cluster = command::Command::Cluster(rookery_proto::log::v1::ClusterCommand::default());
    for bad in [
        Command { version: 0, ..good.clone() },
        Command { version: 2, ..good.clone() },
        Command { command: None, ..good.clone() },
        Command { command: Some(cluster), ..good.clone() },
        command(1, 0, vec![no_operation]),
    ] {
        let error = database.memory.batch(GROUP, |state| apply(9, &bad, state)).unwrap_err();
        assert!(error.to_string().contains("log entry 9"), "{error}");
    }
}

#[test]
fn a_repeated_request_id_is_answered_and_not_applied_again() {
    let mut database = Database::default();
    let absent = || when(Condition::MustNotExist(true), put_write("x", "", "{}"));
    let first = database.apply(&command(1, 1_000, vec![absent()]));
    assert_eq!(refused(&first), None);
    // The retry has another time and another index; its answer is the first one, index included.
    assert_eq!(database.apply(&command(1, 2_000, vec![absent()])), first);
    // A refusal is an answer too, even where the same command would succeed now.
    let second = database.apply(&command(2, 2_000, vec![absent()]));
    assert_eq!(refused(&second).unwrap().0, "CONCURRENCY");
    database.write(vec![delete_write("x")]);
    assert_eq!(database.apply(&command(2, 3_000, vec![absent()])), second);
    assert_eq!(database.get("x"), None);

    let reused = Some(("REQUEST_ID_REUSED", "request_id"));
    assert_eq!(refused(&database.apply(&command(1, 4_000, vec![delete_write("x")]))), reused);
    let mut other_author = command(1, 4_000, vec![absent()]);
    other_author.author = vec![2; 32];
    assert_eq!(refused(&database.apply(&other_author)), reused);
    assert_eq!(database.apply(&command(1, 4_000, vec![absent()])), first);

    // Kept for 24 hours of log time, then taken as new whether pruned or not.
    assert_eq!(database.apply(&command(1, 1_000 + DAY_MS, vec![absent()])), first);
    // A clock that jumps, forth or back, ends no result that is young in the log.
    assert_eq!(database.apply(&command(1, 400 * DAY_MS, vec![absent()])), first);
    assert_eq!(database.apply(&command(1, -400 * DAY_MS, vec![absent()])), first);
    database.index += limits::REQUEST_RESULT_KEPT_ENTRIES;
    assert_eq!(database.apply(&command(1, 1_000 + DAY_MS, vec![absent()])), first);
    let later = database.apply(&command(1, 1_001 + DAY_MS, vec![absent()]));
    assert_eq!(refused(&later), None);
    assert_ne!(later.index, first.index);
    // The new result has its own 24 hours; pruning at the end of the old ones leaves it alone.
    while !database.index.is_multiple_of(limits::RESULTS_PRUNED_EVERY) {
        let filler = 10_000 + database.index;
        database.apply(&command(filler, 1_002 + DAY_MS, vec![delete_write("y")]));
    }
    assert_eq!(database.apply(&command(1, 1_003 + DAY_MS, vec![absent()])), later);
}

#[test]
fn old_results_are_pruned_in_bounded_steps() {
    let mut database = Database::default();
    let kept =
        |database: &Database| database.memory.records.keys().filter(|key| key[0] == 0x70).count();
    for n in 0..600 {
        database.apply(&command(n, -5, vec![delete_write("x")]));
    }
    assert_eq!(kept(&database), 600);
    // Past their time, and not yet behind in the log: as after a leader whose clock was late.
    for n in 10_000..10_000 + limits::RESULTS_PRUNED_EVERY {
        database.apply(&command(n, DAY_MS, vec![delete_write("x")]));
    }
    assert_eq!(kept(&database), 600 + 64);
    database.index += limits::REQUEST_RESULT_KEPT_ENTRIES;
    let mut before = 600 + 64;
    for n in 600..600 + 4 * limits::RESULTS_PRUNED_EVERY {
        database.apply(&command(n, DAY_MS, vec![delete_write("x")]));
        let now = kept(&database);
        assert!(before + 1 - now <= limits::RESULTS_PRUNED_MAX);
        before = now;
    }
    let by_time = database.memory.records.keys().filter(|key| key[0] == 0x71).count();
    assert_eq!((kept(&database), by_time), (256 + 64, 256 + 64));
}

#[test]
fn lists_page_through_exactly_what_the_query_names() {
    let mut database = Database::default();
    let ids = ["a", "a!", "a/1", "a/10", "a/2", "a0", "b", "é", "\u{10ffff}", "\u{10ffff}x"];
    for (n, id) in ids.iter().enumerate() {
        let collection = ["", "c", "cc", "c"][n % 4];
        database.write(vec![put_write(id, collection, "{\"n\":1}")]);
    }
    database.write(vec![put_write("moved", "c", "{}"), put_write("gone", "c", "{}")]);
    database.write(vec![put_write("moved", "d", "{}"), delete_write("gone")]);
    let all: Vec<_> = ["a", "a!", "a/1", "a/10", "a/2", "a0", "b", "moved", "é"]
        .into_iter()
        .chain(["\u{10ffff}", "\u{10ffff}x"])
        .collect();
    for (prefix, collection, expected) in [
        ("", None, all.as_slice()),
        ("a/", None, &["a/1", "a/10", "a/2"]),
        ("a/1", None, &["a/1", "a/10"]),
        ("\u{10ffff}", None, &["\u{10ffff}", "\u{10ffff}x"]),
        ("zzz", None, &[]),
        ("", Some("c"), &["a!", "a/10", "a0", "é", "\u{10ffff}x"]),
        ("a", Some("c"), &["a!", "a/10", "a0"]),
        ("", Some("cc"), &["a/1", "b"]),
        ("", Some("d"), &["moved"]),
        ("", Some("nothing"), &[]),
    ] {
        for page_size in [0, 1, 2, 3, 100, 1_000_000] {
            let query = ListQuery {
                prefix: prefix.into(),
                collection: collection.map(|name| CollectionName::parse(name).unwrap()),
                page_size,
                ..ListQuery::default()
            };
            assert_eq!(database.ids(&query), expected, "{prefix:?} {collection:?} {page_size}");
        }
    }
    let page = |query| list(&database.memory, space(GROUP), &query).unwrap();
    let only = page(ListQuery { ids_only: true, ..ListQuery::default() });
    assert!(only.documents.iter().all(|document| document.json.is_empty()));
    assert_eq!(only.next_after, None);
    // Whatever `after` says, no record outside the prefix is touched.
    let after = DocumentId::parse("A").unwrap();
    let outside = ListQuery { prefix: "b".into(), after: Some(after), ..ListQuery::default() };
    let found: Vec<_> = page(outside).documents.into_iter().map(|d| d.id).collect();
    assert_eq!(found, ["b"]);
}

#[test]
fn a_page_is_bounded_in_bytes_and_always_makes_progress() {
    let mut database = Database::default();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::DOCUMENT_BYTES_MAX - 8));
    for id in ["a", "b", "c", "d", "e"] {
        database.write(vec![put_write(id, "c", &large)]);
    }
    let collection = CollectionName::parse("c").unwrap();
    for (collection, ids_only) in [(None, false), (Some(collection), false), (None, true)] {
        let query = ListQuery { collection, ids_only, ..ListQuery::default() };
        let page = list(&database.memory, space(GROUP), &query).unwrap();
        let bytes: usize = page.documents.iter().map(|d| d.json.len() + d.id.len()).sum();
        assert!(bytes <= limits::PAGE_BYTES_MAX);
        assert_eq!(page.next_after.as_deref(), Some("a"));
        assert_eq!(database.ids(&query), ["a", "b", "c", "d", "e"]);
    }
}

#[test]
fn a_page_token_continues_only_the_query_it_is_from() {
    use crate::{database::page_token::Refused, names::Thumbprint};
    let caller = Some(Thumbprint::of(b"caller"));
    let query = ListQuery { prefix: "a".into(), ..ListQuery::default() };
    let token = page_token::encode(caller, DatabaseId(7), &query, "a1");
    let decode = |caller, database, query: &ListQuery, token: &str| {
        page_token::decode(caller, DatabaseId(database), query, token)
            .map(|id| id.as_str().to_owned())
    };
    assert_eq!(decode(caller, 7, &query, &token).unwrap(), "a1");
    let smaller = ListQuery { page_size: 3, ..query.clone() };
    assert_eq!(decode(caller, 7, &smaller, &token).unwrap(), "a1");
    let other = Some(Thumbprint::of(b"other"));
    let shorter = ListQuery::default();
    let collection = CollectionName::parse("a").unwrap();
    let moved = ListQuery { collection: Some(collection), ..ListQuery::default() };
    let ids = ListQuery { ids_only: true, ..query.clone() };
    for (caller, database, query) in [
        (other, 7, &query),
        (None, 7, &query),
        (caller, 8, &query),
        (caller, 7, &shorter),
        (caller, 7, &moved),
        (caller, 7, &ids),
    ] {
        assert_eq!(decode(caller, database, query, &token), Err(Refused::OtherQuery));
    }
    let outside = page_token::encode(caller, DatabaseId(7), &query, "b");
    let control = page_token::encode(caller, DatabaseId(7), &query, "a\0");
    let long = "A".repeat(limits::PAGE_TOKEN_CHARS_MAX + 1);
    for token in ["", "A", "====", "AAAA", &token[..20], &outside, &control, &long] {
        assert_eq!(decode(caller, 7, &query, token), Err(Refused::Malformed), "{token}");
    }
}

/// A change of these bytes is a change of the log and disk format: it needs a new version of `Command`.
#[test]
fn the_bytes_of_commands_and_records_are_as_they_were() {
    let etag = Condition::ExpectedEtag("7-1-0".into());
    let command = command(
        1,
        2,
        vec![
            when(etag, put_write("a", "c", "{}")),
            when(Condition::MustNotExist(true), delete_write("b")),
        ],
    );
    let author = "01".repeat(32);
    assert_eq!(
        hex::encode(command.encode_to_vec()),
        format!(
            "08011210{}1a20{author}28023005421e\
             0a130a01611205372d312d3022070a016312027b7d0a070a016218012a00",
            "00000000000000000000000000000001"
        )
    );
    let mut database = Database::default();
    database.apply(&super::tests::command(1, 2, vec![put_write("a", "c", "{}")]));
    let records: Vec<_> = database
        .memory
        .records
        .iter()
        .map(|(key, value)| format!("{} = {}", hex::encode(key), hex::encode(value)))
        .collect();
    assert_eq!(
        records,
        [
            "1061 = 0a016312027b7d18012802",
            "11016361 = ",
            "12 = 00000000000000010000000000000002",
            "1363 = 00000000000000010000000000000002",
            "7000000000000000000000000000000001 = \
             08021212080110052a0c0a0a0a01611205372d312d30\
             1a20d26511461e6b8c7e185c18e75069f9c10ee713f90b53aac00b726809c3e914ec",
            "71800000000000000200000000000000000000000000000001 = ",
        ]
    );
}

/// One write of a random history: ids collide, etags are often right.
fn random_writes() -> impl Strategy<Value = Vec<Vec<(u8, u8, u8)>>> {
    prop::collection::vec(prop::collection::vec((0..6u8, 0..4u8, 0..5u8), 1..4), 1..60)
}

fn writes_of(batch: &[(u8, u8, u8)], index: u64) -> Vec<DocumentWrite> {
    let one = |(id, collection, kind): &(u8, u8, u8)| {
        let id = format!("d{id}");
        let json = ["{}", "{\"x\":[1]}"][usize::from(*kind > 3)];
        let put = put_write(&id, ["", "a", "b", "ab"][usize::from(*collection)], json);
        match kind {
            0 => delete_write(&id),
            1 => when(Condition::MustNotExist(true), put),
            2 => when(Condition::ExpectedEtag(format!("7-{}-0", index - 1)), put),
            _ => put,
        }
    };
    batch.iter().map(one).collect()
}

/// The sizes as the documents themselves say.
fn recount(memory: &Memory) -> (Size, std::collections::BTreeMap<String, Size>) {
    let mut by_collection = std::collections::BTreeMap::<String, Size>::new();
    let mut all = Size::default();
    for (_, record) in memory.records.iter().filter(|(key, _)| key[0] == records::DOCUMENT) {
        let record = DocumentRecord::decode(record.as_slice()).unwrap();
        for size in [&mut all, by_collection.entry(record.collection).or_default()] {
            size.documents += 1;
            size.bytes += record.json.len() as u64;
        }
    }
    (all, by_collection)
}

#[test]
fn documents_and_bytes_are_counted_by_collection() {
    let mut database = Database::default();
    let check = |database: &Database, expected: &[(&str, u64, u64)]| {
        let counted = collections(&database.memory, space(GROUP), None, 0).unwrap().sizes;
        let counted: Vec<_> = counted
            .iter()
            .map(|(name, size)| (name.as_str(), size.documents, size.bytes))
            .collect();
        assert_eq!(counted, expected);
        let all = size(&database.memory, space(GROUP)).unwrap();
        let sum = |of: fn(&(&str, u64, u64)) -> u64| expected.iter().map(of).sum::<u64>();
        assert_eq!((all.documents, all.bytes), (sum(|it| it.1), sum(|it| it.2)));
    };
    check(&database, &[]);
    database.write(vec![put_write("a", "c", "{}"), put_write("b", "", "{ }")]);
    check(&database, &[("", 1, 3), ("c", 1, 2)]);
    // The same number, other bytes; then another collection; then nothing of the old one.
    database.write(vec![put_write("a", "c", "{\"n\":1}")]);
    check(&database, &[("", 1, 3), ("c", 1, 7)]);
    database.write(vec![put_write("a", "cc", "{\"n\":1}"), put_write("x", "c", "{}")]);
    check(&database, &[("", 1, 3), ("c", 1, 2), ("cc", 1, 7)]);
    database.write(vec![delete_write("x"), put_write("b", "cc", "{ }")]);
    check(&database, &[("cc", 2, 10)]);
    // What a batch refuses was not counted, and a write that changes nothing counts nothing twice.
    let refused = when(Condition::MustNotExist(true), put_write("a", "z", "{}"));
    database.write(vec![put_write("new", "z", "{}"), refused]);
    database.write(vec![put_write("a", "cc", "{\"n\":1}")]);
    check(&database, &[("cc", 2, 10)]);
    database.write(vec![delete_write("a"), delete_write("b"), delete_write("nothing")]);
    check(&database, &[]);
    let sizes = [records::SIZE, records::COLLECTION_SIZE];
    assert!(!database.memory.records.keys().any(|key| sizes.contains(&key[0])), "an empty record");
}

#[test]
fn collections_are_counted_page_by_page() {
    let mut database = Database::default();
    let names = ["", "a", "a!", "aa", "b", "é", "\u{10ffff}"];
    for (n, name) in names.into_iter().enumerate() {
        database.write(vec![put_write(&n.to_string(), name, "{}")]);
    }
    let caller = Some(crate::names::Thumbprint::of(b"caller"));
    for page_size in [0, 1, 2, 7, 1_000_000] {
        let mut token = String::new();
        let mut seen = Vec::new();
        loop {
            let after = page_token::decode_collections(caller, DatabaseId(GROUP), &token).unwrap();
            let page =
                collections(&database.memory, space(GROUP), after.as_ref(), page_size).unwrap();
            seen.extend(page.sizes.into_iter().map(|(name, _)| name));
            let Some(after) = page.next_after else { break };
            token = page_token::encode_collections(caller, DatabaseId(GROUP), &after);
        }
        assert_eq!(seen, names, "{page_size}");
    }
    let token = page_token::encode_collections(caller, DatabaseId(GROUP), "a");
    let other = page_token::decode_collections(caller, DatabaseId(8), &token);
    assert_eq!(other, Err(page_token::Refused::OtherQuery));
}

#[test]
fn a_size_that_does_not_fit_its_documents_stops_the_node() {
    let mut database = Database::default();
    database.write(vec![put_write("a", "c", "{}")]);
    let number =
        |documents: u64, bytes: u64| [documents.to_be_bytes(), bytes.to_be_bytes()].concat();
    for (key, record) in [
        (records::collection_size_key("c"), number(0, 9)),
        (records::collection_size_key("c"), number(1, 1)),
        (vec![records::SIZE], number(0, 0)),
        (vec![records::SIZE], vec![0; 8]),
        (vec![records::SIZE], vec![0; 17]),
    ] {
        let mut memory = database.memory.clone();
        memory.records.insert(key, record);
        let command = command(9, 0, vec![delete_write("a")]);
        let error = memory.batch(GROUP, |state| apply(2, &command, state)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    let mut memory = database.memory.clone();
    memory.records.insert(vec![records::SIZE], number(u64::MAX, 2));
    let command = command(9, 0, vec![put_write("b", "c", "{}")]);
    assert!(memory.batch(GROUP, |state| apply(2, &command, state)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Two replicas cut the log differently; a third never batches. Their states are equal, and equal to a plain map.
    #[test]
    fn replicas_agree_however_the_log_is_cut(log in random_writes(), cut in 1..9usize) {
        let log: Vec<_> = (1u64..)
            .zip(&log)
            .map(|(index, batch)| (index, command(index % 40, 1_000, writes_of(batch, index))))
            .collect();
        let run = |size: usize| -> (Memory, Vec<Applied>) {
            let mut memory = Memory::default();
            let mut applied = Vec::new();
            for entries in log.chunks(size) {
                memory.batch(GROUP, |state| {
                    for (index, command) in entries {
                        applied.push(apply(*index, command, state).unwrap());
                    }
                });
            }
            (memory, applied)
        };
        let (one, cut) = (run(1), run(cut));
        prop_assert_eq!(&one, &cut);
        prop_assert_eq!(one.0.hash, one.0.rehash());
        prop_assert_ne!(one.0.hash, StateHash::default());

        let (all, by_collection) = recount(&one.0);
        prop_assert_eq!(size(&one.0, space(GROUP)).unwrap(), all);
        let counted = collections(&one.0, space(GROUP), None, 0).unwrap();
        prop_assert_eq!(counted.next_after, None);
        prop_assert!(counted.sizes.into_iter().eq(by_collection));
        // The collection index lists exactly the documents that say so.
        let all = list(&one.0, space(GROUP), &ListQuery::default()).unwrap().documents;
        for collection in ["a", "b", "ab"] {
            let name = CollectionName::parse(collection).unwrap();
            let query = ListQuery { collection: Some(name), ..ListQuery::default() };
            let listed = list(&one.0, space(GROUP), &query).unwrap().documents;
            let mut expected = all.clone();
            expected.retain(|document| document.collection == collection);
            prop_assert_eq!(listed, expected);
        }
        let listed = one.0.records.keys().filter(|key| key[0] == records::BY_COLLECTION).count();
        let collected = all.iter().filter(|document| !document.collection.is_empty()).count();
        prop_assert_eq!(listed, collected, "the index holds what no document says");
    }
}
