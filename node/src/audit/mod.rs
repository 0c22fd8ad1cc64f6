//! The audit log as anybody can check it: canonical bytes, the chain of hashes, signed checkpoints, the export.
//!
//! ```text
//! genesis ──► record 1 ──► record 2 ──► … ──► record n = head
//!              hash₁        hash₂ = SHA-256(hash₁ ‖ record 2)
//!                            ▲
//!                       checkpoint: "at 2 the hash was hash₂", signed with a node's TLS key
//! ```
//!
//! The chain makes a change of any record visible to whoever knows a later hash; checkpoints make later hashes known to
//! whoever has the nodes' certificates. What is written and when stands in [`crate::cluster`]; here nothing is written.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`record`] | canonical bytes and hash of a record |
//! | [`checkpoint`] | what a checkpoint and the end of an export sign |
//! | [`chain`] | the walk along a chain, which stops at the first thing that is wrong |
//! | [`lines`] | the export: JSON lines, and their verification without a cluster |
//! | [`text`] | text of strangers, escaped and cut |
//!
//! **Invariant:** canonical bytes and signed messages never change; a new form gets a new first line.

pub mod chain;
pub mod checkpoint;
pub mod lines;
pub mod record;
pub mod text;

#[cfg(test)]
mod tests;

/// A hash of the chain: SHA-256.
pub type Hash = [u8; 32];

/// Collects the canonical form: numbers as 8 bytes big endian, bytes and text with their length (4 bytes) in front,
/// lists with their count (4 bytes) in front.
#[derive(Default)]
struct Canonical(Vec<u8>);

impl Canonical {
    /// `first_line` separates the domains of all that is hashed or signed; it ends with a newline and stands bare.
    fn new(first_line: &str) -> Self {
        Self(first_line.as_bytes().to_vec())
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Two's complement.
    fn time(&mut self, unix_ms: i64) -> &mut Self {
        self.number(unix_ms.cast_unsigned())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn count(&mut self, count: usize) -> &mut Self {
        // Everything that is hashed is bounded far below this.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&count.to_be_bytes());
        self
    }
}
