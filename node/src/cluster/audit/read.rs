//! Reading the audit log out of a store, in bounded pieces.

use std::ops::ControlFlow;

use rookery_proto::log::v1::{AuditCheckpoint, AuditHead, AuditRecord};

use crate::{
    cluster::records,
    limits,
    results::Error,
    storage::{Read, Space},
};

/// Records that follow each other, and the checkpoints among them.
#[derive(Debug, Clone, Default)]
pub struct AuditChunk {
    /// In the order of their keys; whether they follow each other is for a walk to see.
    pub records: Vec<AuditRecord>,
    /// Of the stretch from the record asked for to the last of these.
    pub checkpoints: Vec<AuditCheckpoint>,
}

/// How far the chain is; `None` before the first record.
///
/// # Errors
/// [`Error::Storage`] and [`Error::Corrupt`].
pub fn audit_head(read: &dyn Read, space: Space) -> Result<Option<AuditHead>, Error> {
    records::find(read, space, &[])
}

/// The hash of a record, where it is kept or is the anchor.
///
/// # Errors
/// [`Error::Storage`] and [`Error::Corrupt`].
pub fn audit_hash(read: &dyn Read, space: Space, sequence: u64) -> Result<Option<Vec<u8>>, Error> {
    let found: Option<AuditRecord> = records::find(read, space, &sequence.to_be_bytes())?;
    if let Some(record) = found {
        return Ok(Some(record.hash));
    }
    let head = audit_head(read, space)?;
    Ok(head.filter(|head| head.anchor_sequence == sequence).map(|head| head.anchor_hash))
}

/// The checkpoint of one record.
///
/// # Errors
/// [`Error::Storage`] and [`Error::Corrupt`].
pub fn audit_checkpoint(
    read: &dyn Read,
    space: Space,
    sequence: u64,
) -> Result<Option<AuditCheckpoint>, Error> {
    records::find(read, space, &sequence.to_be_bytes())
}

/// The records after `after`, as many as are read at once, and their checkpoints; empty at the end.
///
/// # Errors
/// [`Error::Storage`] and [`Error::Corrupt`].
pub fn audit_chunk(read: &dyn Read, space: Space, after: u64) -> Result<AuditChunk, Error> {
    let mut chunk = AuditChunk::default();
    let from = after.saturating_add(1).to_be_bytes();
    let mut bytes_read = 0;
    records::from(read, space, &from, |record: AuditRecord, bytes| {
        chunk.records.push(record);
        bytes_read += bytes;
        let full = chunk.records.len() as u64 >= limits::AUDIT_CHUNK_RECORDS
            || bytes_read >= limits::AUDIT_CHUNK_BYTES;
        if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let last = chunk.records.last().map_or(u64::MAX, |record| record.sequence);
    let from = after.to_be_bytes();
    records::from(read, space, &from, |checkpoint: AuditCheckpoint, _| {
        if checkpoint.sequence > last {
            return ControlFlow::Break(());
        }
        chunk.checkpoints.push(checkpoint);
        ControlFlow::Continue(())
    })?;
    Ok(chunk)
}

/// The records before `before`, as many as are read at once, newest first; empty at the beginning.
///
/// # Errors
/// [`Error::Storage`] and [`Error::Corrupt`].
pub fn audit_before(read: &dyn Read, space: Space, before: u64) -> Result<Vec<AuditRecord>, Error> {
    let from = before.saturating_sub(limits::AUDIT_CHUNK_RECORDS).max(1);
    let mut found = Vec::new();
    records::from(read, space, &from.to_be_bytes(), |record: AuditRecord, _| {
        if record.sequence >= before {
            return ControlFlow::Break(());
        }
        found.push(record);
        ControlFlow::Continue(())
    })?;
    found.reverse();
    Ok(found)
}
