//! Canonical bytes and hash of one record.

use rookery_proto::log::v1::AuditRecord;
use sha2::{Digest as _, Sha256};

use super::{Canonical, Hash};

/// What the first record of a cluster follows: a chain belongs to one cluster.
#[must_use]
pub fn genesis(cluster_id: &str) -> Hash {
    Sha256::new().chain_update("rookery audit chain 1\n").chain_update(cluster_id).finalize().into()
}

/// The hash of a record that follows a record with the hash `previous`.
#[must_use]
pub fn hash(previous: &Hash, record: &AuditRecord) -> Hash {
    let hasher = Sha256::new().chain_update("rookery audit record 1\n").chain_update(previous);
    hasher.chain_update(canonical(record)).finalize().into()
}

/// The fields of a record, without `previous` and `hash`, in the order of their numbers.
#[must_use]
pub fn canonical(record: &AuditRecord) -> Vec<u8> {
    let mut bytes = Canonical::default();
    bytes
        .number(record.sequence)
        .number(u64::from(record.outcome.cast_unsigned()))
        .time(record.at_unix_ms)
        .number(record.index)
        .number(record.node_id)
        .text(&record.operation)
        .text(&record.target)
        .bytes(&record.actor)
        .text(&record.actor_name)
        .bytes(&record.request_id)
        .text(&record.reason)
        .text(&record.rule)
        .text(&record.database)
        .text(&record.remote)
        .number(record.count)
        .time(record.first_unix_ms)
        .time(record.last_unix_ms);
    bytes.count(record.asked.len());
    for field in &record.asked {
        bytes.text(&field.name).text(&field.value);
    }
    bytes.count(record.changes.len());
    for change in &record.changes {
        bytes.text(&change.record).count(change.fields.len());
        for field in &change.fields {
            bytes.text(&field.name).text(&field.before).text(&field.after);
        }
    }
    bytes.number(record.changes_left_out).text(&record.details);
    bytes.0
}
