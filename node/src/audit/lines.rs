//! The export: one JSON object a line, and its verification without a cluster.
//!
//! ```text
//! {"begin":{"format":1,"cluster_id":…,"anchor_sequence":…,"anchor_hash":…}}
//! {"checkpoint":{…}}            where the chain does not begin at its first record: the checkpoint of the anchor
//! {"record":{…}} …              in sequence; behind a record its checkpoint, where it has one
//! {"end":{"records":…,"checkpoints":…,"sequence":…,"hash":…,…,"signature":…}}
//! ```
//!
//! Bytes are hex. Fields that are empty are left out. A field that this build does not know is refused, because no hash
//! covers it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read as _},
};

use rookery_proto::log::v1::{
    AuditChange, AuditCheckpoint, AuditDifference, AuditField, AuditOutcome, AuditRecord,
};
use serde::{Deserialize, Serialize};

use super::{
    Hash,
    chain::{Chain, Walked, Wrong},
    checkpoint::Ending,
};
use crate::{
    limits,
    names::Thumbprint,
    tls::{self, Signed},
};

/// Version of the lines.
const FORMAT: u32 = 1;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Begin(Begin),
    Record(Box<Record>),
    Checkpoint(Checkpoint),
    End(End),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    format: u32,
    cluster_id: String,
    anchor_sequence: u64,
    #[serde(with = "hex::serde")]
    anchor_hash: Hash,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What people call an outcome.
#[must_use]
pub fn outcome_word(number: i32) -> &'static str {
    match AuditOutcome::try_from(number) {
        Ok(AuditOutcome::Applied) => "applied",
        Ok(AuditOutcome::Refused) => "refused",
        Ok(AuditOutcome::Denied) => "denied",
        Ok(AuditOutcome::Started) => "started",
        Ok(AuditOutcome::Unspecified) | Err(_) => "",
    }
}

/// The outcome of a word.
#[must_use]
pub fn outcome_of(word: &str) -> Option<AuditOutcome> {
    use AuditOutcome::{Applied, Denied, Refused, Started};
    [Applied, Refused, Denied, Started].into_iter().find(|it| outcome_word(*it as i32) == word)
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Record {
    sequence: u64,
    at_unix_ms: i64,
    outcome: String,
    operation: String,
    #[serde(skip_serializing_if = "is_default")]
    target: String,
    #[serde(skip_serializing_if = "is_default", with = "hex::serde")]
    actor: Vec<u8>,
    #[serde(skip_serializing_if = "is_default")]
    actor_name: String,
    node_id: u64,
    index: u64,
    #[serde(skip_serializing_if = "is_default", with = "hex::serde")]
    request_id: Vec<u8>,
    #[serde(skip_serializing_if = "is_default")]
    reason: String,
    #[serde(skip_serializing_if = "is_default")]
    rule: String,
    #[serde(skip_serializing_if = "is_default")]
    database: String,
    #[serde(skip_serializing_if = "is_default")]
    remote: String,
    count: u64,
    #[serde(skip_serializing_if = "is_default")]
    first_unix_ms: i64,
    #[serde(skip_serializing_if = "is_default")]
    last_unix_ms: i64,
    #[serde(skip_serializing_if = "is_default")]
    asked: Vec<Field>,
    #[serde(skip_serializing_if = "is_default")]
    changes: Vec<Change>,
    #[serde(skip_serializing_if = "is_default")]
    changes_left_out: u64,
    #[serde(skip_serializing_if = "is_default")]
    details: String,
    #[serde(with = "hex::serde")]
    previous: Vec<u8>,
    #[serde(with = "hex::serde")]
    hash: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    name: String,
    value: String,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    record: String,
    fields: Vec<Difference>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    name: String,
    before: String,
    after: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    sequence: u64,
    #[serde(with = "hex::serde")]
    hash: Vec<u8>,
    at_unix_ms: i64,
    node_id: u64,
    #[serde(with = "hex::serde")]
    thumbprint: Vec<u8>,
    scheme: u32,
    #[serde(with = "hex::serde")]
    signature: Vec<u8>,
    index: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    records: u64,
    checkpoints: u64,
    sequence: u64,
    #[serde(with = "hex::serde")]
    hash: Hash,
    at_unix_ms: i64,
    node_id: u64,
    #[serde(with = "hex::serde")]
    thumbprint: [u8; 32],
    scheme: u32,
    #[serde(with = "hex::serde")]
    signature: Vec<u8>,
}

impl From<&AuditRecord> for Record {
    fn from(record: &AuditRecord) -> Self {
        let asked = record.asked.iter();
        let asked = asked.map(|it| Field { name: it.name.clone(), value: it.value.clone() });
        let fields = |change: &AuditChange| {
            let fields = change.fields.iter().map(|it| Difference {
                name: it.name.clone(),
                before: it.before.clone(),
                after: it.after.clone(),
            });
            fields.collect()
        };
        let changes = record.changes.iter();
        let changes =
            changes.map(|it| Change { record: it.record.clone(), fields: fields(it) }).collect();
        Self {
            sequence: record.sequence,
            at_unix_ms: record.at_unix_ms,
            outcome: outcome_word(record.outcome).to_owned(),
            operation: record.operation.clone(),
            target: record.target.clone(),
            actor: record.actor.clone(),
            actor_name: record.actor_name.clone(),
            node_id: record.node_id,
            index: record.index,
            request_id: record.request_id.clone(),
            reason: record.reason.clone(),
            rule: record.rule.clone(),
            database: record.database.clone(),
            remote: record.remote.clone(),
            count: record.count,
            first_unix_ms: record.first_unix_ms,
            last_unix_ms: record.last_unix_ms,
            asked: asked.collect(),
            changes,
            changes_left_out: record.changes_left_out,
            details: record.details.clone(),
            previous: record.previous.clone(),
            hash: record.hash.clone(),
        }
    }
}

impl From<Record> for AuditRecord {
    fn from(line: Record) -> Self {
        let differences = |fields: Vec<Difference>| {
            let fields = fields.into_iter().map(|it| AuditDifference {
                name: it.name,
                before: it.before,
                after: it.after,
            });
            fields.collect()
        };
        let asked = line.asked.into_iter();
        let changes = line.changes.into_iter();
        Self {
            sequence: line.sequence,
            at_unix_ms: line.at_unix_ms,
            // An unknown word has no number, and with another number the hash does not fit.
            outcome: outcome_of(&line.outcome).map_or(0, |it| it as i32),
            operation: line.operation,
            target: line.target,
            actor: line.actor,
            actor_name: line.actor_name,
            node_id: line.node_id,
            index: line.index,
            request_id: line.request_id,
            reason: line.reason,
            rule: line.rule,
            database: line.database,
            remote: line.remote,
            count: line.count,
            first_unix_ms: line.first_unix_ms,
            last_unix_ms: line.last_unix_ms,
            asked: asked.map(|it| AuditField { name: it.name, value: it.value }).collect(),
            changes: changes
                .map(|it| AuditChange { record: it.record, fields: differences(it.fields) })
                .collect(),
            changes_left_out: line.changes_left_out,
            details: line.details,
            previous: line.previous,
            hash: line.hash,
        }
    }
}

impl From<&AuditCheckpoint> for Checkpoint {
    fn from(checkpoint: &AuditCheckpoint) -> Self {
        Self {
            sequence: checkpoint.sequence,
            hash: checkpoint.hash.clone(),
            at_unix_ms: checkpoint.at_unix_ms,
            node_id: checkpoint.node_id,
            thumbprint: checkpoint.thumbprint.clone(),
            scheme: checkpoint.scheme,
            signature: checkpoint.signature.clone(),
            index: checkpoint.index,
        }
    }
}

impl From<Checkpoint> for AuditCheckpoint {
    fn from(line: Checkpoint) -> Self {
        Self {
            sequence: line.sequence,
            hash: line.hash,
            at_unix_ms: line.at_unix_ms,
            node_id: line.node_id,
            thumbprint: line.thumbprint,
            scheme: line.scheme,
            signature: line.signature,
            index: line.index,
        }
    }
}

fn write(line: &Line, to: &mut Vec<u8>) {
    // Plain structs into memory: neither part can fail.
    if serde_json::to_writer(&mut *to, line).is_ok() {
        to.push(b'\n');
    }
}

/// Writes the first line.
pub fn begin(cluster_id: &str, anchor_sequence: u64, anchor_hash: Hash, to: &mut Vec<u8>) {
    let cluster_id = cluster_id.to_owned();
    write(&Line::Begin(Begin { format: FORMAT, cluster_id, anchor_sequence, anchor_hash }), to);
}

/// Writes the line of a record.
pub fn record(record: &AuditRecord, to: &mut Vec<u8>) {
    write(&Line::Record(Box::new(record.into())), to);
}

/// Writes the line of a checkpoint.
pub fn checkpoint(checkpoint: &AuditCheckpoint, to: &mut Vec<u8>) {
    write(&Line::Checkpoint(checkpoint.into()), to);
}

/// Writes the last line.
pub fn end(ending: &Ending, signed: Signed, to: &mut Vec<u8>) {
    let end = End {
        records: ending.records,
        checkpoints: ending.checkpoints,
        sequence: ending.sequence,
        hash: ending.hash,
        at_unix_ms: ending.at_unix_ms,
        node_id: ending.node_id,
        thumbprint: *ending.thumbprint.as_bytes(),
        scheme: signed.scheme,
        signature: signed.signature,
    };
    write(&Line::End(end), to);
}

/// What the verification of an export found in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The cluster.
    pub cluster_id: String,
    /// What the first record follows; 0: nothing.
    pub anchor_sequence: u64,
    /// The last record and its hash.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
    /// What was walked over.
    pub walked: Walked,
    /// Whether the signature of the last line was checked.
    pub ending_checked: bool,
}

/// Verifies an export. Signatures are checked where `certificates` holds their signers'.
///
/// # Errors
/// [`Verify::Wrong`] with the first thing that is wrong; [`Verify::Read`].
pub fn verify(
    from: impl BufRead,
    certificates: &BTreeMap<Thumbprint, Vec<u8>>,
) -> Result<Verified, Verify> {
    let mut lines = Lines { from, number: 0 };
    let Some(Line::Begin(begin)) = lines.next()? else {
        return Err(Wrong::at(0, "the first line is not the beginning of an export").into());
    };
    if begin.format != FORMAT {
        let why =
            format!("the export has format {}, and this program reads {FORMAT}", begin.format);
        return Err(Wrong::at(0, why).into());
    }
    let mut chain = Chain::after(&begin.cluster_id, begin.anchor_sequence, begin.anchor_hash)?;
    loop {
        match lines.next()? {
            Some(Line::Record(record)) => chain.record(&(*record).into())?,
            Some(Line::Checkpoint(checkpoint)) => {
                let signer = Thumbprint::from_bytes(&checkpoint.thumbprint).ok();
                let certificate = signer.and_then(|signer| certificates.get(&signer));
                chain.checkpoint(&checkpoint.into(), certificate.map(Vec::as_slice))?;
            }
            Some(Line::End(end)) => {
                if lines.next()?.is_some() {
                    return Err(Wrong::at(0, "there is more behind the end of the export").into());
                }
                return Ok(ended(&chain, &begin, &end, certificates)?);
            }
            Some(Line::Begin(_)) => {
                return Err(Wrong::at(0, "a second export begins inside of the first").into());
            }
            None => {
                let why = "and all behind it are missing: the export was cut off before its end";
                return Err(Wrong::at(chain.head().0 + 1, why).into());
            }
        }
    }
}

fn ended(
    chain: &Chain,
    begin: &Begin,
    end: &End,
    certificates: &BTreeMap<Thumbprint, Vec<u8>>,
) -> Result<Verified, Wrong> {
    let walked = chain.end(end.sequence, &end.hash)?;
    if (end.records, end.checkpoints) != (walked.records, walked.checkpoints) {
        let why = format!(
            "the last line speaks of {} records and {} checkpoints, and there are {} and {}",
            end.records, end.checkpoints, walked.records, walked.checkpoints
        );
        return Err(Wrong::at(0, why));
    }
    let ending = Ending {
        cluster_id: begin.cluster_id.clone(),
        anchor_sequence: begin.anchor_sequence,
        records: end.records,
        checkpoints: end.checkpoints,
        sequence: end.sequence,
        hash: end.hash,
        at_unix_ms: end.at_unix_ms,
        node_id: end.node_id,
        thumbprint: thumbprint(&end.thumbprint)?,
    };
    let certificate = certificates.get(&ending.thumbprint);
    let signed = Signed { scheme: end.scheme, signature: end.signature.clone() };
    if certificate.is_some_and(|it| !tls::is_signed(it, &ending.message(), &signed)) {
        let why = format!("the last line is not signed by node {}", ending.node_id);
        return Err(Wrong::at(0, why));
    }
    Ok(Verified {
        cluster_id: ending.cluster_id,
        anchor_sequence: ending.anchor_sequence,
        sequence: ending.sequence,
        hash: ending.hash,
        walked,
        ending_checked: certificate.is_some(),
    })
}

fn thumbprint(bytes: &[u8]) -> Result<Thumbprint, Wrong> {
    Thumbprint::from_bytes(bytes).map_err(|why| Wrong::at(0, why.to_string()))
}

/// Why an export was not verified.
#[derive(Debug, thiserror::Error)]
pub enum Verify {
    /// Something is wrong with it.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// It cannot be read.
    #[error("the export cannot be read: {0}")]
    Read(#[from] io::Error),
}

struct Lines<R> {
    from: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<Line>, Verify> {
        let mut bytes = Vec::new();
        let bound = limits::AUDIT_LINE_BYTES_MAX as u64;
        self.from.by_ref().take(bound).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let wrong = |why: String| Wrong::at(0, format!("line {} {why}", self.number));
        if bytes.pop() != Some(b'\n') {
            return Err(wrong("is cut off, or longer than any line of an export".to_owned()).into());
        }
        let line = serde_json::from_slice(&bytes);
        Ok(Some(line.map_err(|error| wrong(format!("is none of an export: {error}")))?))
    }
}
