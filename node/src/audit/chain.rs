//! The walk along a chain, record by record, which stops at the first thing that is wrong.

use rookery_proto::log::v1::{AuditCheckpoint, AuditRecord};

use super::{Hash, checkpoint, record};

/// The first thing that is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {sequence}: {why}")]
pub struct Wrong {
    /// Where; 0 where it is no record in particular.
    pub sequence: u64,
    /// What, for people.
    pub why: String,
}

impl Wrong {
    /// At a record.
    pub fn at(sequence: u64, why: impl Into<String>) -> Self {
        Self { sequence, why: why.into() }
    }
}

/// What a walk found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// Records.
    pub records: u64,
    /// Checkpoints whose hash fits.
    pub checkpoints: u64,
    /// Checkpoints among them whose signature was not checked, for want of the certificate.
    pub unchecked: u64,
    /// The last record that a checkpoint with a checked signature vouches for.
    pub sealed: u64,
}

/// A walk under way.
#[derive(Debug, Clone)]
pub struct Chain {
    cluster_id: String,
    anchor: u64,
    anchor_sealed: bool,
    last: u64,
    hash: Hash,
    last_checkpoint: Option<u64>,
    walked: Walked,
}

impl Chain {
    /// Begins behind the record `anchor` with the hash `hash`; 0: at the first record of all.
    ///
    /// # Errors
    /// A chain that begins at its first record begins with another hash than this cluster's.
    pub fn after(cluster_id: &str, anchor: u64, hash: Hash) -> Result<Self, Wrong> {
        if anchor == 0 && hash != record::genesis(cluster_id) {
            return Err(Wrong::at(0, "the chain does not begin with this cluster's first hash"));
        }
        Ok(Self {
            cluster_id: cluster_id.to_owned(),
            anchor,
            anchor_sealed: anchor == 0,
            last: anchor,
            hash,
            last_checkpoint: None,
            walked: Walked::default(),
        })
    }

    /// The last record that was walked over, and its hash.
    #[must_use]
    pub fn head(&self) -> (u64, Hash) {
        (self.last, self.hash)
    }

    /// What was found in order so far.
    #[must_use]
    pub fn walked(&self) -> Walked {
        self.walked
    }

    /// The next record.
    ///
    /// # Errors
    /// It is not the next one, or was changed.
    pub fn record(&mut self, next: &AuditRecord) -> Result<(), Wrong> {
        let expected = self.last + 1;
        if next.sequence > expected {
            let why = format!("is missing; record {} stands in its place", next.sequence);
            return Err(Wrong::at(expected, why));
        }
        if next.sequence < expected {
            let why = format!("stands a second time, where record {expected} belongs");
            return Err(Wrong::at(next.sequence, why));
        }
        if next.previous != self.hash {
            return Err(Wrong::at(
                expected,
                "does not follow the record before it: one of them was changed",
            ));
        }
        let hash = record::hash(&self.hash, next);
        if next.hash != hash {
            return Err(Wrong::at(expected, "was changed: it does not have the hash it was given"));
        }
        self.last = expected;
        self.hash = hash;
        self.walked.records += 1;
        Ok(())
    }

    /// The checkpoint of the record that was walked over last. Without its signer's certificate only the hash is held
    /// against the chain.
    ///
    /// # Errors
    /// It vouches for something else, or was not signed with the certificate's key.
    pub fn checkpoint(
        &mut self,
        next: &AuditCheckpoint,
        certificate: Option<&[u8]>,
    ) -> Result<(), Wrong> {
        let at = next.sequence;
        if at > self.last {
            let why = format!("is missing; a checkpoint vouches for record {at}");
            return Err(Wrong::at(self.last + 1, why));
        }
        if at < self.last || self.last_checkpoint == Some(at) {
            return Err(Wrong::at(at, "its checkpoint stands in the wrong place, or twice"));
        }
        if next.hash != self.hash {
            return Err(Wrong::at(at, "does not have the hash that its checkpoint vouches for"));
        }
        match certificate {
            Some(certificate) if !checkpoint::is_signed(&self.cluster_id, next, certificate) => {
                let why = format!("its checkpoint is not signed by node {}", next.node_id);
                return Err(Wrong::at(at, why));
            }
            Some(_) => self.walked.sealed = at,
            None => self.walked.unchecked += 1,
        }
        self.anchor_sealed |= at == self.anchor;
        self.last_checkpoint = Some(at);
        self.walked.checkpoints += 1;
        Ok(())
    }

    /// The end, which must be the record `sequence` with the hash `hash`.
    ///
    /// # Errors
    /// Records are missing at the end, or the beginning is vouched for by no checkpoint.
    pub fn end(&self, sequence: u64, hash: &[u8]) -> Result<Walked, Wrong> {
        if self.last < sequence {
            let why = format!("is missing, and all up to {sequence}: the chain was cut off");
            return Err(Wrong::at(self.last + 1, why));
        }
        if self.last > sequence || self.hash != hash {
            return Err(Wrong::at(self.last, "is not the record that the chain should end with"));
        }
        if !self.anchor_sealed {
            let why = "the first record kept follows a record that no checkpoint vouches for";
            return Err(Wrong::at(self.anchor, why));
        }
        Ok(self.walked)
    }
}
