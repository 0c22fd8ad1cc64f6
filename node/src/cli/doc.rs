//! `rookery doc`: documents, one by one or many at once; JSON is passed on byte for byte.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use futures::stream::{self, StreamExt as _};
use rookery_client::{Client, proto::document::v1 as proto};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Column, Failed, Result, Row, Session,
    output::{Format, Out, column, time, wide},
};
use crate::limits;

/// Longest line of a bulk file: a document, its id and its collection.
const LINE_BYTES_MAX: usize = limits::DOCUMENT_BYTES_MAX + 64 * 1024;
/// Most bytes of documents in one batch of `bulk`.
const BULK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most failures that `bulk` prints.
const FAILURES_SHOWN_MAX: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print a document
    Get {
        #[command(flatten)]
        document: DocumentArgs,
        /// Read the node's own copy, which may be old
        #[arg(long)]
        stale: bool,
    },
    /// Store a document
    Put {
        #[command(flatten)]
        document: DocumentArgs,
        /// The JSON object; read from --file or standard input where it is not given
        json: Option<String>,
        /// File with the JSON object; `-` is standard input
        #[arg(short, long, conflicts_with = "json")]
        file: Option<PathBuf>,
        /// The document's collection
        #[arg(long, default_value = "")]
        collection: String,
        /// Only over the document with this etag
        #[arg(long, conflicts_with = "new")]
        etag: Option<String>,
        /// Only where there is none under the id
        #[arg(long)]
        new: bool,
    },
    /// Delete a document
    Delete {
        #[command(flatten)]
        document: DocumentArgs,
        /// Only the document with this etag
        #[arg(long)]
        etag: Option<String>,
    },
    /// List documents in the byte order of their ids
    List {
        /// The database
        database: String,
        /// Only ids that start with this
        #[arg(long, default_value = "", conflicts_with = "collection")]
        prefix: String,
        /// Only this collection
        #[arg(long, default_value = "")]
        collection: String,
        /// Most documents
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Without the documents themselves
        #[arg(long)]
        ids_only: bool,
        /// Read the node's own copy, which may be old
        #[arg(long)]
        stale: bool,
    },
    /// Store the documents of a file of JSON lines: {"id": …, "collection": …, "document": {…}}
    Bulk(Bulk),
}

#[derive(Debug, Args)]
pub(super) struct DocumentArgs {
    /// The database
    database: String,
    /// The document's id
    id: String,
}

/// `rookery doc bulk`
#[derive(Debug, Args)]
pub(super) struct Bulk {
    /// The database
    database: String,
    /// The file of JSON lines; `-` is standard input
    #[arg(short, long)]
    file: PathBuf,
    /// Documents a batch; a batch is applied as a whole or not at all
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Batches under way at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
}

const COLUMNS: &[Column] = &[
    column("id"),
    column("collection"),
    column("modified"),
    wide("etag"),
    wide("revision"),
    wide("document"),
];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Get { document, stale } => get(session, document, stale).await,
            Self::Put { document, json, file, collection, etag, new } => {
                let precondition = match (etag, new) {
                    (Some(etag), _) => Some(proto::precondition::Condition::Etag(etag)),
                    (None, true) => Some(proto::precondition::Condition::MustNotExist(true)),
                    (None, false) => None,
                };
                let request = proto::PutDocumentRequest {
                    database: document.database,
                    id: document.id,
                    collection,
                    json: input(json, file)?,
                    precondition: precondition.map(|c| proto::Precondition { condition: Some(c) }),
                    request_id: String::new(),
                };
                put(session, request).await
            }
            Self::Delete { document, etag } => {
                let condition = etag.map(proto::precondition::Condition::Etag);
                let request = proto::DeleteDocumentRequest {
                    database: document.database,
                    id: document.id.clone(),
                    precondition: condition.map(|c| proto::Precondition { condition: Some(c) }),
                    request_id: String::new(),
                };
                let answer = session.client()?.delete_document(request).await?;
                let position = answer.position.unwrap_or_default();
                let row = Row::new()
                    .with("id", document.id)
                    .with("deleted", answer.deleted)
                    .with("index", position.index);
                session.out.one("id", &row)
            }
            Self::List { database, prefix, collection, limit, ids_only, stale } => {
                let request = proto::ListDocumentsRequest {
                    database,
                    prefix,
                    collection,
                    page_size: 0,
                    page_token: String::new(),
                    stale_ok: stale,
                    ids_only,
                };
                list(session, request, limit).await
            }
            Self::Bulk(bulk) => bulk.run(session).await,
        }
    }
}

async fn get(session: &mut Session, document: DocumentArgs, stale_ok: bool) -> Result<()> {
    let DocumentArgs { database, id } = document;
    let request = proto::GetDocumentRequest { database, id: id.clone(), stale_ok };
    let answer = session.client()?.get_document(request).await?;
    let Some(document) = answer.document else {
        return Err(Failed::not_found(format!("there is no document {id:?}")));
    };
    match session.out.format {
        // The document itself, so that it can go into a file or another program.
        Format::Table => {
            session.out.bytes(&document.json)?;
            session.out.bytes(b"\n")
        }
        Format::Wide | Format::Json | Format::Jsonl | Format::Yaml | Format::Name => {
            session.out.one("id", &row(&document, true))
        }
    }
}

async fn put(session: &mut Session, request: proto::PutDocumentRequest) -> Result<()> {
    let id = request.id.clone();
    let answer = session.client()?.put_document(request).await?;
    let position = answer.position.unwrap_or_default();
    let row = Row::new()
        .with("id", id)
        .with("etag", answer.etag)
        .with("index", position.index)
        .with("registry_revision", position.registry_revision);
    session.out.one("id", &row)
}

async fn list(
    session: &mut Session,
    mut request: proto::ListDocumentsRequest,
    limit: usize,
) -> Result<()> {
    let client = session.client()?;
    let mut rows = Vec::new();
    while rows.len() < limit {
        let left = (limit - rows.len()).min(limits::PAGE_SIZE_MAX);
        request.page_size = u32::try_from(left).unwrap_or(u32::MAX);
        let page = client.list_documents(request.clone()).await?;
        rows.extend(page.documents.iter().take(left).map(|d| row(d, !request.ids_only)));
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            break;
        }
        request.page_token = page.next_page_token;
    }
    session.out.list(COLUMNS, "id", &rows)
}

pub(super) fn row(document: &proto::Document, with_json: bool) -> Row {
    let row = Row::new()
        .with("id", document.id.clone())
        .with("collection", document.collection.clone())
        .with("etag", document.etag.clone())
        .with("revision", document.revision)
        .with("modified", time(document.modified_unix_ms));
    if with_json { row.with_json("document", &document.json) } else { row }
}

fn input(json: Option<String>, file: Option<PathBuf>) -> Result<Vec<u8>> {
    if let Some(json) = json {
        return Ok(json.into_bytes());
    }
    let path = file.unwrap_or_else(|| PathBuf::from("-"));
    let mut bytes = Vec::new();
    open(&path)?
        .take(limits::DOCUMENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failed::file(&path, &e))?;
    if bytes.len() > limits::DOCUMENT_BYTES_MAX {
        let max = limits::DOCUMENT_BYTES_MAX;
        return Err(Failed::usage(format!("the document is larger than {max} bytes")));
    }
    Ok(bytes)
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).map_err(|e| Failed::file(path, &e))?;
    Ok(Box::new(BufReader::with_capacity(256 * 1024, file)))
}

/// A line of a bulk file. The document's bytes are kept as they stand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    id: String,
    #[serde(default)]
    collection: String,
    #[serde(borrow)]
    document: &'a RawValue,
}

/// Writes that go out together, and the lines they came from.
#[derive(Debug, Default)]
struct Batch {
    first_line: u64,
    writes: Vec<proto::Write>,
    bytes: usize,
}

/// Cuts a file of JSON lines into batches; ends after the first error.
struct Batches<R> {
    reader: R,
    writes_max: usize,
    line: u64,
    /// A line that did not fit into the last batch.
    held: Option<(u64, proto::Write, usize)>,
    ended: bool,
}

impl<R: BufRead> Iterator for Batches<R> {
    type Item = std::result::Result<Batch, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Batch::default();
        while !self.ended && batch.writes.len() < self.writes_max {
            let next = match self.held.take() {
                Some(held) => Ok(Some(held)),
                None => self.read_line(),
            };
            match next {
                Ok(Some((line, write, bytes))) => {
                    if !batch.writes.is_empty() && batch.bytes + bytes > BULK_BYTES_MAX {
                        self.held = Some((line, write, bytes));
                        return Some(Ok(batch));
                    }
                    if batch.writes.is_empty() {
                        batch.first_line = line;
                    }
                    batch.bytes += bytes;
                    batch.writes.push(write);
                }
                Ok(None) => self.ended = true,
                Err(problem) => {
                    self.ended = true;
                    return Some(Err(problem));
                }
            }
        }
        (!batch.writes.is_empty()).then_some(Ok(batch))
    }
}

impl<R: BufRead> Batches<R> {
    fn new(reader: R, writes_max: usize) -> Self {
        Self { reader, writes_max, line: 0, held: None, ended: false }
    }

    fn read_line(&mut self) -> std::result::Result<Option<(u64, proto::Write, usize)>, String> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            self.line += 1;
            let at = |problem: String| format!("line {}: {problem}", self.line);
            let read = (&mut self.reader)
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut bytes)
                .map_err(|e| at(e.to_string()))?;
            if read == 0 {
                return Ok(None);
            }
            if read > LINE_BYTES_MAX {
                return Err(at(format!("is longer than {LINE_BYTES_MAX} bytes")));
            }
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let line: Line<'_> = serde_json::from_slice(&bytes).map_err(|e| at(e.to_string()))?;
            let json = line.document.get().as_bytes().to_vec();
            let size = json.len() + line.id.len() + line.collection.len() + 32;
            let put = proto::PutWrite { collection: line.collection, json };
            let operation = Some(proto::write::Operation::Put(put));
            return Ok(Some((
                self.line,
                proto::Write { id: line.id, precondition: None, operation },
                size,
            )));
        }
    }
}

/// What became of a bulk file.
#[derive(Default)]
struct Report {
    documents: u64,
    bytes: u64,
    batches: u64,
    failed_documents: u64,
    failures: Vec<String>,
    first_failure: Option<Failed>,
}

impl Report {
    fn add(&mut self, ended: std::result::Result<Done, Failed>) {
        match ended {
            Ok(Done { documents, bytes, failure: None, .. }) => {
                self.batches += 1;
                self.documents += documents;
                self.bytes += bytes;
            }
            Ok(Done { first_line, documents, failure: Some(failure), .. }) => {
                self.failed_documents += documents;
                let what = format!("lines from {first_line} ({documents} documents)");
                self.fail(failure.context(&what));
            }
            Err(failed) => self.fail(failed),
        }
    }

    fn fail(&mut self, failed: Failed) {
        if self.failures.len() < FAILURES_SHOWN_MAX {
            self.failures.push(failed.to_string());
        }
        self.first_failure.get_or_insert(failed);
    }

    fn row(&self, database: &str, took: Duration) -> Row {
        let seconds = took.as_secs_f64().max(0.001);
        #[allow(clippy::cast_precision_loss)] // A rate for people.
        let rate = (self.documents as f64 / seconds).round();
        Row::new()
            .with("database", database)
            .with("documents", self.documents)
            .with("bytes", self.bytes)
            .with("batches", self.batches)
            .with("failed_documents", self.failed_documents)
            .with("failures", self.failures.clone())
            .with("seconds", (seconds * 1000.0).round() / 1000.0)
            .with("documents_per_second", rate)
    }
}

/// One batch that was sent.
struct Done {
    first_line: u64,
    documents: u64,
    bytes: u64,
    failure: Option<Failed>,
}

impl Bulk {
    async fn run(self, session: &mut Session) -> Result<()> {
        let client = session.client()?;
        let started = Instant::now();
        let progress = progress(&self.file, &session.out);
        let reader = open(&self.file)?;
        let batches = Batches::new(reader, self.batch as usize);
        let sends = stream::iter(batches).map(|batch| send(&client, &self.database, batch));
        let mut sends = std::pin::pin!(sends.buffer_unordered(usize::from(self.parallel)));
        let mut report = Report::default();
        while let Some(ended) = sends.next().await {
            report.add(ended);
            progress.set_position(report.bytes);
            if session.out.format == Format::Jsonl {
                session.out.json_line(&report.row(&self.database, started.elapsed()))?;
            }
        }
        progress.finish_and_clear();
        if session.out.format != Format::Jsonl {
            session.out.one("documents", &report.row(&self.database, started.elapsed()))?;
        }
        match report.first_failure {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }
}

async fn send(
    client: &Client,
    database: &str,
    batch: std::result::Result<Batch, String>,
) -> std::result::Result<Done, Failed> {
    let batch = batch.map_err(|problem| Failed::usage(format!("the file's {problem}")))?;
    let done = Done {
        first_line: batch.first_line,
        documents: batch.writes.len() as u64,
        bytes: batch.bytes as u64,
        failure: None,
    };
    let request = proto::BatchWriteRequest {
        database: database.to_owned(),
        writes: batch.writes,
        request_id: String::new(),
    };
    Ok(match client.batch_write(request).await {
        Ok(_) => done,
        Err(e) => Done { failure: Some(e.into()), ..done },
    })
}

fn progress(file: &Path, out: &Out) -> indicatif::ProgressBar {
    let length = std::fs::metadata(file).map(|m| m.len()).unwrap_or_default();
    if length == 0 || out.format == Format::Jsonl {
        return indicatif::ProgressBar::hidden();
    }
    // Drawn on standard error, and only on a terminal.
    indicatif::ProgressBar::new(length).with_style(indicatif::ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn batches(text: &str, writes_max: usize) -> Vec<std::result::Result<Batch, String>> {
        Batches::new(text.as_bytes(), writes_max).collect()
    }

    #[test]
    fn documents_keep_their_bytes() {
        let json = r#"{ "b":1.10,"a" : 12345678901234567890123 , "é":"\u00e9"}"#;
        let text = format!("{{\"id\":\"a\",\"collection\":\"C\",\"document\":{json}}}\n");
        let batch = batches(&text, 10).remove(0).unwrap();
        let Some(proto::write::Operation::Put(put)) = &batch.writes[0].operation else {
            panic!("not a put")
        };
        assert_eq!(put.json, json.as_bytes());
        assert_eq!((put.collection.as_str(), batch.writes[0].id.as_str()), ("C", "a"));
    }

    #[test]
    fn batches_are_cut_by_number_and_by_bytes() {
        let line = |n: usize, size: usize| {
            format!("{{\"id\":\"{n}\",\"document\":{{\"x\":\"{}\"}}}}\n\n", "x".repeat(size))
        };
        let small: String = (0..5).map(|n| line(n, 1)).collect();
        let sizes: Vec<_> =
            batches(&small, 2).into_iter().map(|b| b.unwrap().writes.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
        let large: String = (0..3).map(|n| line(n, 3 * 1024 * 1024)).collect();
        let cut: Vec<_> = batches(&large, 100)
            .into_iter()
            .map(|b| b.unwrap())
            .map(|b| (b.first_line, b.writes.len()))
            .collect();
        assert_eq!(cut, [(1, 1), (3, 1), (5, 1)]);
    }

    #[test]
    fn a_bad_line_is_named_and_ends_the_file() {
        let check = |text: &str, words: &str| {
            let ended = batches(text, 1).into_iter().last().unwrap();
            let problem = ended.unwrap_err();
            assert!(problem.contains(words), "{words:?} is not in {problem}");
        };
        let good = "{\"id\":\"a\",\"document\":{}}\n";
        check(&format!("{good}nonsense\n{good}"), "line 2: ");
        check("{\"id\":\"a\",\"document\":{},\"extra\":1}\n", "unknown field `extra`");
        check("{\"id\":\"a\"}\n", "missing field `document`");
        check(&"x".repeat(LINE_BYTES_MAX + 10), "is longer than");
    }
}
