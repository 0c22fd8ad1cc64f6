//! What is signed: that the chain had a hash at a sequence, and that an export ended there.

use rookery_proto::log::v1::AuditCheckpoint;

use super::{Canonical, Hash};
use crate::{names::Thumbprint, tls};

/// The message that a checkpoint's signature is over.
#[must_use]
pub fn message(cluster_id: &str, checkpoint: &AuditCheckpoint) -> Vec<u8> {
    let mut message = Canonical::new("rookery audit checkpoint 1\n");
    message
        .text(cluster_id)
        .number(checkpoint.sequence)
        .bytes(&checkpoint.hash)
        .time(checkpoint.at_unix_ms)
        .number(checkpoint.node_id)
        .bytes(&checkpoint.thumbprint);
    message.0
}

/// Whether the holder of the certificate's key signed this checkpoint of this cluster.
#[must_use]
pub fn is_signed(cluster_id: &str, checkpoint: &AuditCheckpoint, certificate: &[u8]) -> bool {
    let signed = tls::Signed { scheme: checkpoint.scheme, signature: checkpoint.signature.clone() };
    Thumbprint::of(certificate).as_bytes().as_slice() == checkpoint.thumbprint
        && tls::is_signed(certificate, &message(cluster_id, checkpoint), &signed)
}

/// How an export ends: how much there was, and where the chain stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The cluster.
    pub cluster_id: String,
    /// What the first record of the export follows.
    pub anchor_sequence: u64,
    /// Records in the export.
    pub records: u64,
    /// Checkpoints in the export.
    pub checkpoints: u64,
    /// The last record.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
    /// The exporting node's wall clock.
    pub at_unix_ms: i64,
    /// The exporting node.
    pub node_id: u64,
    /// Its certificate.
    pub thumbprint: Thumbprint,
}

impl Ending {
    /// The message that the signature of an export's last line is over.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut message = Canonical::new("rookery audit export 1\n");
        message
            .text(&self.cluster_id)
            .number(self.anchor_sequence)
            .number(self.records)
            .number(self.checkpoints)
            .number(self.sequence)
            .bytes(&self.hash)
            .time(self.at_unix_ms)
            .number(self.node_id)
            .bytes(self.thumbprint.as_bytes());
        message.0
    }
}
