//! Walks along the whole chain: what a verification tells, and the lines of an export.

use std::sync::Arc;

use rookery_proto::audit::v1::{ExportResponse, PeerHead as PeerHeadMessage, VerifyResponse};
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    audit::{
        chain::{Chain, Wrong},
        checkpoint::Ending,
        lines,
    },
    consensus::audit::{AuditView, AuditWalk, Item, PeerHead, in_order},
    edge::convert,
    limits,
    names::Timestamp,
    tls::TlsIdentity,
};

/// What the caller is told of a walk and of the other nodes' heads.
pub(super) fn told(node_id: u64, walk: AuditWalk, heads: Vec<PeerHead>) -> VerifyResponse {
    let (walked, mut wrong) = match walk.outcome {
        Ok(walked) => (walked, None),
        Err(wrong) => (Default::default(), Some(wrong)),
    };
    let mut peers = Vec::with_capacity(heads.len());
    for head in heads {
        let equal = head.hash.as_ref() == Some(&walk.hash);
        if let Some(hash) = &head.hash
            && !equal
            && wrong.is_none()
        {
            let why = match hash.is_empty() {
                true => format!("node {} has no such record", head.name),
                false => format!("node {} has another record there", head.name),
            };
            wrong = Some(Wrong::at(walk.last, why));
        }
        peers.push(PeerHeadMessage {
            node_id: head.node.0,
            name: head.name,
            reachable: head.hash.is_some(),
            equal,
        });
    }
    VerifyResponse {
        intact: wrong.is_none(),
        bad_sequence: wrong.as_ref().map_or(0, |wrong| wrong.sequence),
        why: wrong.map_or_else(String::new, |wrong| wrong.to_string()),
        first_sequence: walk.first,
        last_sequence: walk.last,
        head_hash: walk.hash,
        records: walked.records,
        checkpoints: walked.checkpoints,
        checkpoints_without_certificate: walked.unchecked,
        sealed_sequence: walked.sealed,
        peers,
        node_id,
    }
}

/// An export about to be written.
pub(super) struct Export {
    pub(super) view: AuditView,
    /// Signs the last line.
    pub(super) own: Arc<TlsIdentity>,
    pub(super) node_id: u64,
    pub(super) at: Timestamp,
}

impl Export {
    /// Writes all lines; blocks, and waits for the reader. A chain that is broken ends the export with an error, after
    /// the lines up to there.
    pub(super) fn write(self, to: &mpsc::Sender<ExportResponse>) -> Result<(), Status> {
        let broken = |wrong: Wrong| {
            convert::internal(
                "The audit log of this node is damaged; run `rookery audit verify`",
                wrong,
            )
        };
        let (anchor, hash) = self.view.anchor().map_err(broken)?;
        let mut chain = Chain::after(self.view.cluster_id(), anchor, hash).map_err(broken)?;
        let mut lines = Vec::new();
        lines::begin(self.view.cluster_id(), anchor, hash, &mut lines);
        loop {
            let after = chain.head().0;
            let chunk = self.view.chunk(after).map_err(broken)?;
            for item in in_order(after, chain.walked().records == 0, &chunk) {
                match item {
                    Item::Record(record) => {
                        chain.record(record).map_err(broken)?;
                        lines::record(record, &mut lines);
                    }
                    Item::Checkpoint(checkpoint) => {
                        chain.checkpoint(checkpoint, None).map_err(broken)?;
                        lines::checkpoint(checkpoint, &mut lines);
                    }
                }
            }
            if chunk.records.is_empty() {
                break;
            }
            if lines.len() >= limits::AUDIT_CHUNK_BYTES / 4 && !send(&mut lines, to) {
                return Ok(()); // The reader has gone.
            }
        }
        self.end(&chain, &mut lines)?;
        send(&mut lines, to);
        Ok(())
    }

    fn end(&self, chain: &Chain, lines: &mut Vec<u8>) -> Result<(), Status> {
        let (sequence, hash) = chain.head();
        let walked = chain.walked();
        let ending = Ending {
            cluster_id: self.view.cluster_id().to_owned(),
            anchor_sequence: self.view.head().anchor_sequence,
            records: walked.records,
            checkpoints: walked.checkpoints,
            sequence,
            hash,
            at_unix_ms: self.at.0,
            node_id: self.node_id,
            thumbprint: self.own.thumbprint(),
        };
        let signed = self.own.sign(&ending.message());
        let signed =
            signed.map_err(|error| convert::internal("The export could not be signed", error))?;
        lines::end(&ending, signed, lines);
        Ok(())
    }
}

/// Whether the reader still takes lines.
fn send(lines: &mut Vec<u8>, to: &mpsc::Sender<ExportResponse>) -> bool {
    // A message holds one chunk and what was left of the one before: far below the bound of a message.
    to.blocking_send(ExportResponse { lines: std::mem::take(lines) }).is_ok()
}
