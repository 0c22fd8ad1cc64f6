//! What the state machine writes into the audit log: a record of every command, in the batch of the command itself.
//!
//! 1. [`Witness::of`] notes who asked for what, on the registry before the command.
//! 2. The command runs on a watched overlay.
//! 3. [`Witness::applied`] compares what changed, field by field ([`changes`]); [`Witness::refused`] notes why not.
//!
//! Nothing is left to the commands: whatever they change in the state is in their record. Denials and actions that are
//! no commands come as commands of their own ([`RecordDenials`], [`RecordAction`]).
//!
//! Old records are pruned up to a checkpoint, which stays: the chain then begins behind a record that a node has signed.
//!
//! **Invariant:** what a record says is a part of the replicated state: names of fields and of records may change only
//! together with the version of `Command`.

mod changes;
mod read;

#[cfg(test)]
mod tests;

use prost::Message as _;
use rookery_proto::log::v1::{
    AuditChange, AuditCheckpoint, AuditField, AuditHead, AuditOutcome, AuditRecord,
    CheckpointAudit, ClusterCommand, Command, Denial, RecordAction, RecordDenials, Refusal,
    cluster_command,
};

pub use self::read::{
    AuditChunk, audit_before, audit_checkpoint, audit_chunk, audit_hash, audit_head,
};
use crate::{
    audit::{Hash, checkpoint, record, text::escaped},
    authz::ServerOperation,
    cluster::{Applying, Outcome, Registry, check, done, operation, records},
    limits,
    names::Thumbprint,
    results::{Author, Error, refusal},
    storage::Overlay,
};

/// Commands that leave no record of their own when they are applied: their content is records already, a node's routine
/// note about the use of certificates, which the certificate shows, or the same secret sealed once more.
const UNRECORDED: &[&str] = &[
    "record_denials",
    "checkpoint_audit",
    "record_use",
    "note_expiry",
    "seal_cluster_secret",
    "reseal_second_factor",
];

/// Why a checkpoint that came too late is refused; no sign of anything wrong.
const STALE_CHECKPOINT: &str = "AUDIT_CHECKPOINT_STALE";

/// How much of the chain is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    /// Records.
    pub records_max: u64,
    /// Bytes of their stored form.
    pub bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { records_max: limits::AUDIT_RECORDS_MAX, bytes_max: limits::AUDIT_BYTES_MAX }
    }
}

/// One command on its way into the audit log.
pub(super) struct Witness {
    record: AuditRecord,
    /// Name of the command in the log's format.
    kind: String,
}

impl Witness {
    /// Notes who asks for what.
    pub(super) fn of(
        index: u64,
        command: &Command,
        cluster: &ClusterCommand,
        registry: &Registry,
    ) -> Self {
        let asked = changes::asked(cluster);
        let mut record = AuditRecord {
            at_unix_ms: command.at_unix_ms,
            index,
            node_id: command.origin_node_id,
            operation: operation_name(cluster, &asked.kind),
            target: asked.target,
            actor: command.author.iter().copied().take(32).collect(),
            actor_name: actor_name(command, registry),
            request_id: command.request_id.iter().copied().take(16).collect(),
            count: 1,
            asked: asked.fields,
            ..AuditRecord::default()
        };
        if let Some(cluster_command::Command::RecordAction(action)) = &cluster.command {
            of_action(&mut record, action);
        }
        Self { record, kind: asked.kind }
    }

    /// Writes the record of a command that was applied.
    pub(super) fn applied(
        self,
        registry: &Registry,
        state: &mut Overlay<'_>,
        retention: Retention,
    ) -> Result<(), Error> {
        let changed = state.watched();
        if UNRECORDED.contains(&self.kind.as_str()) {
            return Ok(());
        }
        let (changes, left_out) = changes::of(changed, state)?;
        let outcome = match self.kind.as_str() {
            "record_action" => AuditOutcome::Started,
            _ => AuditOutcome::Applied,
        };
        let target = match self.record.target.is_empty() {
            true => changes.first().map_or_else(String::new, |it: &AuditChange| it.record.clone()),
            false => self.record.target.clone(),
        };
        let record = AuditRecord {
            outcome: outcome.into(),
            target,
            changes,
            changes_left_out: left_out,
            ..self.record
        };
        append(registry, state, retention, [record])
    }

    /// Writes the record of a command that was refused.
    pub(super) fn refused(
        self,
        refusal: &Refusal,
        registry: &Registry,
        state: &mut Overlay<'_>,
        retention: Retention,
    ) -> Result<(), Error> {
        drop(state.watched()); // A refusal has changed nothing.
        if refusal.reason == STALE_CHECKPOINT || !registry.is_formed() {
            return Ok(());
        }
        let details = match refusal.field.is_empty() {
            true => refusal.message.clone(),
            false => format!("{}: {}", refusal.field, refusal.message),
        };
        let record = AuditRecord {
            outcome: AuditOutcome::Refused.into(),
            reason: escaped(&refusal.reason),
            rule: refusal.metadata.get("rule").map_or_else(String::new, |rule| escaped(rule)),
            details: escaped(&details),
            ..self.record
        };
        append(registry, state, retention, [record])
    }
}

/// The permission's name; for commands of nodes, which share one permission, that of the command.
fn operation_name(command: &ClusterCommand, kind: &str) -> String {
    let named = operation(command);
    let shared = [ServerOperation::PeerCall, ServerOperation::SubmitRaftCommand].contains(&named);
    if shared { kind.replace('_', "-") } else { named.name().to_owned() }
}

/// An action that is no command stands under its own name, and is not what was asked of the log.
fn of_action(record: &mut AuditRecord, action: &RecordAction) {
    record.operation = escaped(&action.operation);
    record.target = escaped(&action.target);
    record.details = escaped(&action.details);
    record.asked.clear();
    if action.request_id.len() == 16 {
        record.request_id.clone_from(&action.request_id);
    }
    if !action.on_behalf_of.is_empty() {
        let value = escaped(&action.on_behalf_of);
        record.asked.push(AuditField { name: "on_behalf_of".to_owned(), value });
    }
}

/// The name that the author has at this moment; for a node that acts for itself: why it does.
fn actor_name(command: &Command, registry: &Registry) -> String {
    match Thumbprint::from_bytes(&command.author) {
        Ok(thumbprint) => name_of(&thumbprint, registry),
        Err(_) => escaped(&command.internal_reason),
    }
}

fn name_of(thumbprint: &Thumbprint, registry: &Registry) -> String {
    let node = registry.member(thumbprint).map(|node| escaped(&node.name));
    let certificate = || registry.certificate(thumbprint).map(|it| escaped(&it.name));
    node.or_else(certificate).unwrap_or_default()
}

/// Puts records at the end of the chain, and prunes its beginning.
fn append(
    registry: &Registry,
    state: &mut Overlay<'_>,
    retention: Retention,
    new: impl IntoIterator<Item = AuditRecord>,
) -> Result<(), Error> {
    let mut head = match records::get::<AuditHead>(state, &[])? {
        Some(head) => head,
        None => {
            let genesis = record::genesis(&registry.cluster_id).to_vec();
            AuditHead { hash: genesis.clone(), anchor_hash: genesis, ..AuditHead::default() }
        }
    };
    for record in new {
        let previous = hash(&head.hash)?;
        let mut record =
            AuditRecord { sequence: head.sequence + 1, previous: previous.to_vec(), ..record };
        record.hash = record::hash(&previous, &record).to_vec();
        records::put(state, &record)?;
        head.sequence = record.sequence;
        head.bytes += record.encoded_len() as u64;
        head.hash = record.hash;
    }
    prune(state, &mut head, retention)?;
    records::put(state, &head)
}

fn hash(bytes: &[u8]) -> Result<Hash, Error> {
    Hash::try_from(bytes).map_err(|_| Error::corrupt("audit head", "its hash is no SHA-256"))
}

/// Where more is kept than may be: deletes all up to the oldest checkpoint, which becomes the anchor and stays.
///
/// One stretch an entry, so that the work of an entry is bounded by the distance of checkpoints.
fn prune(state: &mut Overlay<'_>, head: &mut AuditHead, retention: Retention) -> Result<(), Error> {
    let kept = head.sequence.saturating_sub(head.anchor_sequence);
    if kept <= retention.records_max && head.bytes <= retention.bytes_max {
        return Ok(());
    }
    let after = head.anchor_sequence + 1;
    let Some(anchor) = records::first_pending::<AuditCheckpoint>(state, &after.to_be_bytes())?
    else {
        return Ok(()); // Nothing is signed yet, so nothing may go.
    };
    for sequence in after..=anchor.sequence {
        let id = sequence.to_be_bytes();
        if let Some(pruned) = records::get::<AuditRecord>(state, &id)? {
            head.bytes = head.bytes.saturating_sub(pruned.encoded_len() as u64);
            records::delete::<AuditRecord>(state, &id)?;
        }
    }
    records::delete::<AuditCheckpoint>(state, &head.anchor_sequence.to_be_bytes())?;
    head.anchor_sequence = anchor.sequence;
    head.anchor_hash = anchor.hash;
    Ok(())
}

impl Applying<'_, '_> {
    /// One record a denial, in the order in which the node sent them.
    pub(super) fn record_denials(&mut self, denials: &RecordDenials) -> Outcome {
        let node_id = self.author_node();
        let new: Vec<AuditRecord> =
            denials.denials.iter().map(|denial| self.denied(node_id, denial)).collect();
        append(self.registry, self.state, self.retention, new)?;
        Ok(done())
    }

    fn denied(&self, node_id: u64, denial: &Denial) -> AuditRecord {
        let actor = Thumbprint::from_bytes(&denial.actor).ok();
        AuditRecord {
            outcome: AuditOutcome::Denied.into(),
            at_unix_ms: self.entry.at.0,
            index: self.entry.index,
            node_id,
            operation: escaped(&denial.operation),
            actor: actor.map_or_else(Vec::new, |actor| actor.as_bytes().to_vec()),
            actor_name: actor.map_or_else(String::new, |actor| name_of(&actor, self.registry)),
            reason: escaped(&denial.reason),
            rule: escaped(&denial.rule),
            database: escaped(&denial.database),
            remote: escaped(&denial.remote),
            count: denial.count,
            first_unix_ms: denial.first_unix_ms,
            last_unix_ms: denial.last_unix_ms,
            details: escaped(&denial.details),
            ..AuditRecord::default()
        }
    }

    fn author_node(&self) -> u64 {
        match self.entry.author {
            Author::Certificate(author) => self.registry.member(&author).map_or(0, |node| node.id),
            Author::Node(_) => 0,
        }
    }

    /// An action that is no command of the log: that it stands here is all there is to do.
    pub(super) fn record_action(&mut self, _: &RecordAction) -> Outcome {
        Ok(done())
    }

    /// Keeps a signed statement about the chain, if it is true and newer than the last one.
    pub(super) fn checkpoint_audit(&mut self, asked: &CheckpointAudit) -> Outcome {
        let stale = || refusal(STALE_CHECKPOINT, "there is a newer checkpoint, or no such record");
        let signed = asked.checkpoint.as_ref().ok_or_else(stale)?;
        let mut head = records::get::<AuditHead>(self.state, &[])?.ok_or_else(stale)?;
        let id = signed.sequence.to_be_bytes();
        if signed.sequence <= head.checkpoint_sequence {
            return Err(stale().into());
        }
        let vouched = records::get::<AuditRecord>(self.state, &id)?.ok_or_else(stale)?;
        if vouched.hash != signed.hash {
            let message = "the checkpoint vouches for another chain than this one";
            return Err(refusal("AUDIT_CHAIN_DIFFERS", message).into());
        }
        let certificate = self.signer(signed);
        let cluster_id = &self.registry.cluster_id;
        if !certificate.is_some_and(|it| checkpoint::is_signed(cluster_id, signed, &it)) {
            let message = "the checkpoint is not signed by the member that proposes it";
            return Err(refusal("AUDIT_SIGNATURE_REFUSED", message).into());
        }
        let checkpoint = AuditCheckpoint { index: self.entry.index, ..signed.clone() };
        records::put(self.state, &checkpoint)?;
        head.checkpoint_sequence = signed.sequence;
        head.checkpoint_unix_ms = self.entry.at.0;
        records::put(self.state, &head)?;
        Ok(done())
    }

    /// The certificate of the member who both wrote this entry and signed it.
    fn signer(&self, signed: &AuditCheckpoint) -> Option<Vec<u8>> {
        let Author::Certificate(author) = self.entry.author else { return None };
        let member = self.registry.member(&author)?;
        let fits = member.id == signed.node_id && signed.thumbprint == author.as_bytes();
        let certificate = self.registry.certificate(&author).filter(|_| fits)?;
        Some(certificate.der.to_vec())
    }
}

/// What these commands must be like, whatever the state says.
pub(super) fn check_denials(denials: &RecordDenials) -> Result<(), Refusal> {
    if denials.denials.len() > limits::DENIALS_PER_ENTRY_MAX {
        return Err(check::too_many("denials", limits::DENIALS_PER_ENTRY_MAX));
    }
    Ok(())
}

/// An operation that exists, so that the author can be held to it.
pub(super) fn check_action(action: &RecordAction) -> Result<(), Refusal> {
    if action.on_behalf_of.is_empty() && ServerOperation::named(&action.operation).is_none() {
        return Err(check::invalid("operation", "is no operation of this program"));
    }
    Ok(())
}

/// The operation whose permission the author of a recorded action must have.
pub(super) fn operation_of(action: &RecordAction) -> ServerOperation {
    if !action.on_behalf_of.is_empty() {
        return ServerOperation::PeerCall;
    }
    ServerOperation::named(&action.operation).unwrap_or(ServerOperation::SubmitRaftCommand)
}
