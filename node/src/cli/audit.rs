//! `rookery audit`: who did what to the cluster, and whether the record of it is whole.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use rookery_client::{
    Client, Error,
    proto::{audit::v1 as proto, log::v1::AuditRecord},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use super::{
    Column, Failed, Result, Row, Session, duration,
    output::{column, time, wide},
};
use crate::{
    audit::lines::{self, Verified, Verify},
    names::Thumbprint,
};

/// Records a page.
const PAGE_SIZE: u32 = 500;
/// Pause before a stream that ended without its reader's doing is begun again.
const TAIL_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List records, newest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Oldest first
        #[arg(long)]
        oldest_first: bool,
        /// At most this many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Show records as they are written
    Tail {
        #[command(flatten)]
        filter: FilterArgs,
        /// Begin after this record instead of now
        #[arg(long, value_name = "SEQUENCE")]
        after: Option<u64>,
    },
    /// Verify the chain on a node, or an export; exit code 9 where something is wrong
    Verify {
        /// An export to verify; needs no cluster
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Node certificates (PEM) to check the signatures of the export with
        #[arg(long, value_name = "FILE", requires = "file")]
        certs: Vec<PathBuf>,
    },
    /// Export the whole audit log as JSON lines that can be verified without the cluster
    Export {
        /// New file to write to, closed to others; standard output unless given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Not older than this, such as 30m or 7d
    #[arg(long, value_parser = duration, value_name = "AGE")]
    since: Option<Duration>,
    /// Older than this, such as 1h
    #[arg(long, value_parser = duration, value_name = "AGE")]
    until: Option<Duration>,
    /// Thumbprint of the actor, or its first 8 characters or more
    #[arg(long, default_value = "", hide_default_value = true)]
    actor: String,
    /// Name of the operation, such as create-database
    #[arg(long, default_value = "", hide_default_value = true)]
    operation: String,
    /// Part of the target
    #[arg(long, default_value = "", hide_default_value = true)]
    target: String,
    /// applied, refused, denied or started
    #[arg(long, value_parser = ["applied", "refused", "denied", "started"])]
    outcome: Option<String>,
    /// Id of the node that took the request
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "ID")]
    node: u64,
    /// Request id
    #[arg(long, default_value = "", hide_default_value = true, value_name = "UUID")]
    request_id: String,
}

impl FilterArgs {
    fn message(&self) -> proto::Filter {
        let outcome = self.outcome.as_deref().and_then(lines::outcome_of);
        proto::Filter {
            from_unix_ms: self.since.map_or(0, ago),
            to_unix_ms: self.until.map_or(0, ago),
            actor: self.actor.clone(),
            operation: self.operation.clone(),
            target: self.target.clone(),
            outcome: outcome.map_or(0, |it| it as i32),
            node_id: self.node,
            request_id: self.request_id.clone(),
        }
    }
}

/// By the user's own clock: an age on the command line is theirs.
fn ago(age: Duration) -> i64 {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::now().as_millisecond().saturating_sub(age)
}

const COLUMNS: &[Column] = &[
    column("sequence"),
    column("time"),
    column("outcome"),
    column("operation"),
    column("target"),
    column("actor_name"),
    column("reason"),
    column("count"),
    wide("actor"),
    wide("node_id"),
    wide("rule"),
    wide("database"),
    wide("remote"),
    wide("request_id"),
    wide("changes"),
    wide("details"),
];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::List { filter, oldest_first, limit } => {
                list(session, filter.message(), oldest_first, limit).await
            }
            Self::Tail { filter, after } => tail(session, filter.message(), after).await,
            Self::Verify { file: Some(file), certs } => verify_file(session, &file, &certs),
            Self::Verify { file: None, .. } => verify(session).await,
            Self::Export { out } => export(session, out.as_deref()).await,
        }
    }
}

async fn list(
    session: &mut Session,
    filter: proto::Filter,
    oldest_first: bool,
    limit: usize,
) -> Result<()> {
    let client = session.client()?;
    let mut request = proto::ListRecordsRequest {
        filter: Some(filter),
        oldest_first,
        page_size: PAGE_SIZE.min(u32::try_from(limit).unwrap_or(PAGE_SIZE)),
        page_token: String::new(),
    };
    let mut rows = Vec::new();
    loop {
        let page = client.list_records(request.clone()).await?;
        rows.extend(page.records.iter().map(row));
        if rows.len() >= limit || page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    rows.truncate(limit);
    session.out.list(COLUMNS, "sequence", &rows)
}

/// Follows until interrupted. A stream that the node ended because it stopped is begun again on another node.
async fn tail(session: &mut Session, filter: proto::Filter, after: Option<u64>) -> Result<()> {
    let client = session.client()?;
    let mut request =
        proto::TailRecordsRequest { filter: Some(filter), after_sequence: after.unwrap_or(0) };
    loop {
        match follow(session, &client, &mut request).await {
            Ok(()) | Err(Followed::Again) => tokio::time::sleep(TAIL_PAUSE).await,
            Err(Followed::Failed(failed)) => return Err(failed),
        }
    }
}

enum Followed {
    Again,
    Failed(Failed),
}

impl<E: Into<Failed>> From<E> for Followed {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn follow(
    session: &mut Session,
    client: &Client,
    request: &mut proto::TailRecordsRequest,
) -> std::result::Result<(), Followed> {
    let mut records = client.tail_records(request.clone()).await?;
    loop {
        let batch = match records.message().await {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(()),
            Err(status) => {
                let error = Error::from(&status);
                let again = matches!(error, Error::Unavailable(_));
                return Err(if again { Followed::Again } else { error.into() });
            }
        };
        for record in &batch.records {
            session.out.line(&line(record))?;
            request.after_sequence = record.sequence;
        }
    }
}

/// One JSON object: a stream has no table.
fn line(record: &AuditRecord) -> String {
    let mut bytes = Vec::new();
    lines::record(record, &mut bytes);
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

async fn verify(session: &mut Session) -> Result<()> {
    let found = session.client()?.verify(proto::VerifyRequest {}).await?;
    let peers: Vec<String> = found
        .peers
        .iter()
        .map(|peer| {
            let word = match (peer.reachable, peer.equal) {
                (false, _) => "does not answer",
                (true, true) => "equal",
                (true, false) => "differs",
            };
            format!("{}: {word}", peer.name)
        })
        .collect();
    let row = Row::new()
        .with("intact", found.intact)
        .with("bad_sequence", found.bad_sequence)
        .with("why", found.why.clone())
        .with("node_id", found.node_id)
        .with("first_sequence", found.first_sequence)
        .with("last_sequence", found.last_sequence)
        .with("sealed_sequence", found.sealed_sequence)
        .with("records", found.records)
        .with("checkpoints", found.checkpoints)
        .with("checkpoints_without_certificate", found.checkpoints_without_certificate)
        .with("head_hash", hex::encode(&found.head_hash))
        .with("peers", peers);
    session.out.one("intact", &row)?;
    if found.intact { Ok(()) } else { Err(Failed::wanting(found.why)) }
}

fn verify_file(session: &mut Session, file: &Path, certs: &[PathBuf]) -> Result<()> {
    let mut certificates = BTreeMap::new();
    for path in certs {
        certificates.extend(certificates_in(path)?);
    }
    let opened = File::open(file).map_err(|error| Failed::file(file, &error))?;
    match lines::verify(BufReader::new(opened), &certificates) {
        Ok(verified) => session.out.one("intact", &verified_row(&verified)),
        Err(Verify::Read(error)) => Err(Failed::file(file, &error)),
        Err(Verify::Wrong(wrong)) => {
            let row = Row::new()
                .with("intact", false)
                .with("bad_sequence", wrong.sequence)
                .with("why", wrong.why.clone());
            session.out.one("intact", &row)?;
            Err(Failed::wanting(wrong.to_string()))
        }
    }
}

fn verified_row(verified: &Verified) -> Row {
    Row::new()
        .with("intact", true)
        .with("cluster_id", verified.cluster_id.clone())
        .with("first_sequence", verified.anchor_sequence + 1)
        .with("last_sequence", verified.sequence)
        .with("head_hash", hex::encode(verified.hash))
        .with("records", verified.walked.records)
        .with("checkpoints", verified.walked.checkpoints)
        .with("signatures_not_checked", verified.walked.unchecked)
        .with("sealed_sequence", verified.walked.sealed)
        .with("ending_checked", verified.ending_checked)
}

fn certificates_in(path: &Path) -> Result<Vec<(Thumbprint, Vec<u8>)>> {
    let pem = std::fs::read(path).map_err(|error| Failed::file(path, &error))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<std::result::Result<Vec<_>, _>>();
    let bad = |why: String| Failed::usage(format!("{}: {why}", path.display()));
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("holds no certificate in PEM".to_owned()));
    }
    Ok(found.into_iter().map(|der| (Thumbprint::of(&der), der.to_vec())).collect())
}

async fn export(session: &mut Session, out: Option<&Path>) -> Result<()> {
    let request = proto::ExportRequest { request_id: String::new() };
    let mut answer = session.client()?.export_audit(request).await?;
    let mut file = out.map(new_file).transpose()?;
    let mut bytes = 0;
    while let Some(part) = answer.message().await.map_err(|status| Error::from(&status))? {
        bytes += part.lines.len();
        match (&mut file, out) {
            (Some(file), Some(path)) => {
                file.write_all(&part.lines).map_err(|error| Failed::file(path, &error))?;
            }
            (None, _) | (_, None) => session.out.bytes(&part.lines)?,
        }
    }
    let (Some(file), Some(path)) = (file, out) else { return Ok(()) };
    file.sync_all().map_err(|error| Failed::file(path, &error))?;
    let row = Row::new().with("file", path.display().to_string()).with("bytes", bytes);
    session.out.one("file", &row)
}

fn new_file(path: &Path) -> Result<File> {
    let opened: io::Result<File> =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| Failed::file(path, &error))
}

fn row(record: &AuditRecord) -> Row {
    let request_id = uuid::Uuid::from_slice(&record.request_id);
    Row::new()
        .with("sequence", record.sequence)
        .with("time", time(record.at_unix_ms))
        .with("outcome", lines::outcome_word(record.outcome))
        .with("operation", record.operation.clone())
        .with("target", record.target.clone())
        .with("actor_name", record.actor_name.clone())
        .with("actor", hex::encode(&record.actor))
        .with("reason", record.reason.clone())
        .with("rule", record.rule.clone())
        .with("count", record.count)
        .with("node_id", record.node_id)
        .with("database", record.database.clone())
        .with("remote", record.remote.clone())
        .with("request_id", request_id.map_or_else(|_| String::new(), |id| id.to_string()))
        .with("index", record.index)
        .with("asked", asked(record))
        .with("changes", changes(record))
        .with("changes_left_out", record.changes_left_out)
        .with("details", record.details.clone())
        .with("first", time(record.first_unix_ms))
        .with("last", time(record.last_unix_ms))
        .with("hash", hex::encode(&record.hash))
}

fn asked(record: &AuditRecord) -> Value {
    let fields = record.asked.iter().map(|it| (it.name.clone(), Value::from(it.value.clone())));
    fields.collect::<serde_json::Map<_, _>>().into()
}

/// `[{"record": "database 3 sales", "fields": {"enabled": {"before": "true", "after": ""}}}]`.
fn changes(record: &AuditRecord) -> Value {
    let changes = record.changes.iter().map(|change| {
        let fields = change.fields.iter().map(|field| {
            (field.name.clone(), json!({ "before": field.before, "after": field.after }))
        });
        let fields: serde_json::Map<_, _> = fields.collect();
        json!({ "record": change.record, "fields": fields })
    });
    changes.collect::<Vec<_>>().into()
}
