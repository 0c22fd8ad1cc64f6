//! The audit log as this node holds it: read in pieces, compared with other nodes, sealed with checkpoints.
//!
//! 1. The leader of the cluster group signs a checkpoint about every minute with new records, and where there are many.
//! 2. Every node notes the last checkpoint that it applied in a sealed file beside its store. A store whose chain is
//!    shorter or another one was cut back or replaced, and the node ends. That is looked at as soon as the log is
//!    applied as far as it was when the checkpoint was noted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use rookery_proto::{
    log::v1::{
        AuditCheckpoint, AuditHead, AuditRecord, CheckpointAudit, ClusterCommand, cluster_command,
    },
    peer::v1::{AuditHashRequest, channel_request, channel_response},
};
use tokio::sync::watch;

use super::{Consensus, Error, Group};
use crate::{
    audit::{
        Hash,
        chain::{Chain, Walked, Wrong},
        checkpoint,
    },
    cluster::{self, AuditChunk, Registry},
    limits,
    names::{GroupId, NodeId, Thumbprint},
    results,
    storage::{self, Read, Space},
};

/// Longest wait for a checkpoint to be applied; the next round tries again.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(5);

/// The audit log of this node at one moment, which later entries do not change.
pub struct AuditView {
    read: Arc<dyn Read>,
    space: Space,
    registry: Arc<Registry>,
    head: AuditHead,
}

/// What a walk along the chain of this node came to.
pub struct AuditWalk {
    /// What was in order, or the first thing that is not.
    pub outcome: Result<Walked, Wrong>,
    /// The first record that is kept.
    pub first: u64,
    /// The last record.
    pub last: u64,
    /// Its hash.
    pub hash: Vec<u8>,
}

/// What another node has where this one has its head.
pub struct PeerHead {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The hash that it has there; `None` where it did not answer.
    pub hash: Option<Vec<u8>>,
}

impl AuditView {
    /// The audit log of a view of a cluster group's state.
    #[must_use]
    pub fn new(
        read: Arc<dyn Read>,
        space: Space,
        registry: Arc<Registry>,
        head: AuditHead,
    ) -> Self {
        Self { read, space, registry, head }
    }

    /// How far the chain is.
    #[must_use]
    pub fn head(&self) -> &AuditHead {
        &self.head
    }

    /// The cluster that the chain belongs to.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.registry.cluster_id
    }

    /// What the first kept record follows.
    ///
    /// # Errors
    /// A head that is none.
    pub fn anchor(&self) -> Result<(u64, Hash), Wrong> {
        let hash = Hash::try_from(self.head.anchor_hash.as_slice());
        let wrong = |_| Wrong::at(self.head.anchor_sequence, "the anchor's hash is no SHA-256");
        Ok((self.head.anchor_sequence, hash.map_err(wrong)?))
    }

    /// The records after `after`, as many as are read at once, and their checkpoints.
    ///
    /// # Errors
    /// A record that cannot be read: on this disk it was changed.
    pub fn chunk(&self, after: u64) -> Result<AuditChunk, Wrong> {
        cluster::audit_chunk(&*self.read, self.space, after)
            .map_err(|error| Wrong::at(after + 1, format!("it or a later one: {error}")))
    }

    /// The records before `before`, newest first, as many as are read at once.
    ///
    /// # Errors
    /// [`Error::Storage`] and its kin.
    pub fn before(&self, before: u64) -> Result<Vec<AuditRecord>, Error> {
        Ok(cluster::audit_before(&*self.read, self.space, before)?)
    }

    /// The records after `after`, oldest first, as many as are read at once.
    ///
    /// # Errors
    /// [`Error::Storage`] and its kin.
    pub fn after(&self, after: u64) -> Result<Vec<AuditRecord>, Error> {
        Ok(cluster::audit_chunk(&*self.read, self.space, after)?.records)
    }

    /// The certificate with which a member signed, where it still is one.
    #[must_use]
    pub fn signer(&self, checkpoint: &AuditCheckpoint) -> Option<&[u8]> {
        let thumbprint = Thumbprint::from_bytes(&checkpoint.thumbprint).ok()?;
        self.registry.certificate(&thumbprint).map(|it| &*it.der)
    }

    /// Walks along the whole chain. Blocks; memory is bounded by what is read at once.
    #[must_use]
    pub fn walk(&self) -> AuditWalk {
        AuditWalk {
            outcome: self.try_walk(),
            first: self.head.anchor_sequence + 1,
            last: self.head.sequence,
            hash: self.head.hash.clone(),
        }
    }

    fn try_walk(&self) -> Result<Walked, Wrong> {
        let (anchor, hash) = self.anchor()?;
        let mut chain = Chain::after(self.cluster_id(), anchor, hash)?;
        loop {
            let chunk = self.chunk(chain.head().0)?;
            self.walk_chunk(&mut chain, &chunk)?;
            if chunk.records.is_empty() {
                return chain.end(self.head.sequence, &self.head.hash);
            }
        }
    }

    fn walk_chunk(&self, chain: &mut Chain, chunk: &AuditChunk) -> Result<(), Wrong> {
        for item in in_order(chain.head().0, chain.walked().records == 0, chunk) {
            match item {
                Item::Record(record) => chain.record(record)?,
                Item::Checkpoint(checkpoint) => {
                    chain.checkpoint(checkpoint, self.signer(checkpoint))?;
                }
            }
        }
        Ok(())
    }
}

/// A record or a checkpoint of the chain.
pub enum Item<'a> {
    /// A record.
    Record(&'a AuditRecord),
    /// The checkpoint of the record before it.
    Checkpoint(&'a AuditCheckpoint),
}

/// A chunk in the order of the chain: each checkpoint behind its record. The checkpoint of the record `after`, which the
/// chunk follows, belongs to the chunk only where that is the anchor (`is_first`).
#[must_use]
pub fn in_order(after: u64, is_first: bool, chunk: &AuditChunk) -> Vec<Item<'_>> {
    let mut checkpoints =
        chunk.checkpoints.iter().filter(|it| is_first || it.sequence > after).peekable();
    let mut items = Vec::with_capacity(chunk.records.len());
    while let Some(anchor) = checkpoints.next_if(|it| it.sequence <= after) {
        items.push(Item::Checkpoint(anchor));
    }
    for record in &chunk.records {
        items.push(Item::Record(record));
        while let Some(checkpoint) = checkpoints.next_if(|it| it.sequence <= record.sequence) {
            items.push(Item::Checkpoint(checkpoint));
        }
    }
    items.extend(checkpoints.map(Item::Checkpoint));
    items
}

impl Consensus {
    /// Hears of the last audit record that is written, whenever there is a new one.
    #[must_use]
    pub fn audit_changes(&self) -> watch::Receiver<u64> {
        self.audit_changes.subscribe()
    }

    /// The audit log at this moment, with everything that was acknowledged before.
    ///
    /// # Errors
    /// [`Error::NoLeader`] and its kin; [`Error::Storage`].
    pub async fn audit(&self, deadline: Instant) -> Result<AuditView, Error> {
        self.linearize_cluster(deadline).await?;
        self.audit_here()
    }

    /// The audit log as far as this node has it.
    ///
    /// # Errors
    /// [`Error::NotMember`]; [`Error::Storage`].
    pub fn audit_here(&self) -> Result<AuditView, Error> {
        let group = self.group(GroupId::CLUSTER)?;
        let (read, space) = group.state.view();
        let head = cluster::audit_head(&*read, space)?.unwrap_or_default();
        Ok(AuditView::new(read, space, self.registry(), head))
    }

    /// The hash of one record as this node has it.
    pub(super) fn audit_hash(&self, sequence: u64) -> Result<Option<Vec<u8>>, Error> {
        let group = self.group(GroupId::CLUSTER)?;
        Ok(group.state.read(|read, space| cluster::audit_hash(read, space, sequence))?)
    }

    /// What every other member has where this node's view has its head.
    pub async fn audit_heads(&self, view: &AuditView) -> Vec<PeerHead> {
        let me = self.node_id();
        let others = view.registry.nodes().filter(|node| node.id != me.0).cloned();
        let asked = others.map(|node| async move {
            let node_id = NodeId(node.id);
            let hash = self.audit_hash_of(node_id, view.head.sequence).await;
            PeerHead { node: node_id, name: node.name.clone(), hash }
        });
        join_all(asked).await
    }

    /// A node that has not applied the record yet is asked until it has, for as long as a peer may take to answer.
    async fn audit_hash_of(&self, node: NodeId, sequence: u64) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limits::PEER_ANSWER_TIMEOUT;
        loop {
            let body = channel_request::Body::AuditHash(AuditHashRequest { sequence });
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ask_peer(node, body, left).await {
                Ok(channel_response::Body::AuditHash(answer)) if !answer.hash.is_empty() => {
                    return Some(answer.hash);
                }
                Ok(_) if left > Duration::from_millis(50) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(_) => return Some(Vec::new()),
                Err(_) => return None,
            }
        }
    }

    // ---- checkpoints ----

    /// The leader's duty: a checkpoint, where one is due.
    pub(super) async fn checkpoint_audit(&self, group: &Group) -> Result<(), Error> {
        let head = group.state.read(cluster::audit_head)?.unwrap_or_default();
        let new = head.sequence.saturating_sub(head.checkpoint_sequence);
        let age_ms = self.time_as_leader().time.0.saturating_sub(head.checkpoint_unix_ms);
        let waited =
            u128::from(age_ms.unsigned_abs()) >= limits::AUDIT_CHECKPOINT_INTERVAL.as_millis();
        if new == 0 || (new < limits::AUDIT_CHECKPOINT_RECORDS && !waited) {
            return Ok(());
        }
        if !self.cluster_time.is_to_last() {
            // Every node applies the time of a checkpoint as one that no time is before any more.
            tracing::debug!("a checkpoint of the audit log waits for clocks that agree");
            return Ok(());
        }
        let checkpoint = self.signed_checkpoint(&head)?;
        let asked = CheckpointAudit { checkpoint: Some(checkpoint) };
        let command =
            ClusterCommand { command: Some(cluster_command::Command::CheckpointAudit(asked)) };
        let deadline = Instant::now() + CHECKPOINT_TIMEOUT;
        self.propose_as_member(command, deadline).await.map(drop)
    }

    fn signed_checkpoint(&self, head: &AuditHead) -> Result<AuditCheckpoint, Error> {
        let tls = self.tls();
        let mut checkpoint = AuditCheckpoint {
            sequence: head.sequence,
            hash: head.hash.clone(),
            at_unix_ms: self.time_as_leader().time.0,
            node_id: self.node_id().0,
            thumbprint: tls.thumbprint().as_bytes().to_vec(),
            ..AuditCheckpoint::default()
        };
        let message = checkpoint::message(&self.registry().cluster_id, &checkpoint);
        let signed = tls.sign(&message).map_err(|error| Error::Stopped(error.to_string()))?;
        checkpoint.scheme = signed.scheme;
        checkpoint.signature = signed.signature;
        Ok(checkpoint)
    }

    /// Every node's duty: holds the chain against the checkpoint that was noted, and notes a newer one.
    pub(super) fn note_checkpoint(&self) -> Result<(), Error> {
        let group = self.group(GroupId::CLUSTER)?;
        let applied = group.state.applied().0;
        let head = group.state.read(cluster::audit_head)?.unwrap_or_default();
        let mut noted = self.noted_checkpoint.lock();
        if let Some(noted) = noted.as_ref().filter(|noted| !noted.checked) {
            let hash = self.audit_hash(noted.checkpoint.sequence)?;
            match standing(&noted.checkpoint, applied, &head, hash.as_deref()) {
                Standing::NotYet => return Ok(()),
                Standing::Whole => {}
                Standing::CutBack => {
                    let why = cut_back(&noted.checkpoint, &head);
                    return Err(Error::Storage(storage::Error::Folder(why)));
                }
            }
        }
        let known = noted.as_ref().map_or(0, |noted| noted.checkpoint.sequence);
        if head.checkpoint_sequence > known {
            let sequence = head.checkpoint_sequence;
            let newest = group.state.read(|read, space| {
                let chunk = cluster::audit_checkpoint(read, space, sequence);
                chunk.map_err(|error: results::Error| Error::from(error))
            })?;
            if let Some(checkpoint) = newest {
                self.sentinel.note_audit(&checkpoint)?;
                *noted = Some(Noted { checkpoint, checked: true });
            }
        } else if let Some(noted) = noted.as_mut() {
            noted.checked = true;
        }
        Ok(())
    }
}

/// The last checkpoint that this data folder is known to have had.
pub(super) struct Noted {
    /// The checkpoint.
    pub checkpoint: AuditCheckpoint,
    /// Whether the chain of this start was held against it.
    pub checked: bool,
}

/// How a chain stands to the checkpoint that was noted.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// The log is being applied again; the chain is still growing.
    NotYet,
    Whole,
    CutBack,
}

/// `hash`: that of the noted record in the chain of this start.
fn standing(
    noted: &AuditCheckpoint,
    applied: u64,
    head: &AuditHead,
    hash: Option<&[u8]>,
) -> Standing {
    let pruned = head.anchor_sequence > noted.sequence;
    if pruned || hash == Some(&noted.hash) {
        return Standing::Whole;
    }
    // Another record in the place is no matter of time.
    if hash.is_none() && applied < noted.index { Standing::NotYet } else { Standing::CutBack }
}

fn cut_back(noted: &AuditCheckpoint, head: &AuditHead) -> String {
    format!(
        "the audit log of this data folder was cut back or replaced: record {} is not what it was when node {} signed a \
         checkpoint for it, and the last record is {}. Keep a copy of the folder for those who will ask, then let the \
         node join anew with an empty one",
        noted.sequence, noted.node_id, head.sequence
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_without_what_was_noted_was_cut_back_unless_the_log_is_still_applied() {
        let noted = AuditCheckpoint {
            sequence: 100,
            hash: vec![1; 32],
            index: 500,
            ..AuditCheckpoint::default()
        };
        let check = |applied: u64, anchor: u64, hash: Option<&[u8]>, expected: Standing| {
            let head = AuditHead { anchor_sequence: anchor, ..AuditHead::default() };
            assert_eq!(standing(&noted, applied, &head, hash), expected, "{applied} {anchor}");
        };
        let (same, other) = ([1; 32], [2; 32]);
        check(500, 0, Some(&same), Standing::Whole);
        check(400, 0, Some(&same), Standing::Whole);
        check(400, 0, None, Standing::NotYet);
        check(0, 0, None, Standing::NotYet);
        check(500, 0, None, Standing::CutBack);
        check(9_999, 0, None, Standing::CutBack);
        check(400, 0, Some(&other), Standing::CutBack);
        check(500, 0, Some(&other), Standing::CutBack);
        check(9_999, 100, Some(&same), Standing::Whole);
        check(9_999, 101, None, Standing::Whole);
    }
}
