//! Where the cluster's records stand inside its space, and how they are read.
//!
//! | key | value |
//! | --- | --- |
//! | `10` | `ClusterSettings`; there once the cluster is formed |
//! | `11` thumbprint (32 bytes) | `CertificateRecord` |
//! | `12` database id (8 bytes big endian) | `DatabaseRecord` |
//! | `13` node id (8 bytes big endian) | `NodeRecord`; kept after removal, so that no id or incarnation comes back |
//! | `14` token id | `JoinTokenRecord` |
//! | `16` thumbprint (32 bytes) | `UseRecord`; outside the registry's revision |
//! | `17` key digest (32 bytes) | `TombstoneRecord`; never deleted |
//! | `18` `00` | `TrustRecord` with the security policy |
//! | `18` `01` node id (8 bytes big endian) | `TrustRecord` with what the node declares |
//! | `19` | `CertificateReplacement`: the one under way, or the last one |
//! | `1c` sequence (8 bytes big endian) | `AuditRecord` |
//! | `1d` sequence (8 bytes big endian) | `AuditCheckpoint` |
//! | `1e` | `AuditHead`; there from the first audit record on |
//! | `1f` key id (8 bytes big endian) | `ClusterSecretRecord` |
//! | `20` thumbprint (32 bytes) | `SecondFactorRecord` |
//!
//! Components have a fixed length or are the last. `00` to `0f` belong to the layer above (applied position,
//! membership); `70` and `71` to [`crate::results`].

use std::ops::{Bound, ControlFlow};

use prost::Message;
use rookery_proto::log::v1::{
    AuditCheckpoint, AuditHead, AuditRecord, CertificateRecord, CertificateReplacement,
    ClusterSecretRecord, ClusterSettings, DatabaseRecord, JoinTokenRecord, NodeRecord,
    SecondFactorRecord, TombstoneRecord, TrustRecord, UseRecord, trust_record,
};

use crate::{
    results::Error,
    storage::{self, Overlay, Read, Space},
};

/// A kind of record: its prefix, its name in errors, and what its keys are made of.
pub(super) trait Record: Message + Default {
    const PREFIX: u8;
    const WHAT: &'static str;
    /// What stands behind the prefix in the key of this record.
    fn id(&self) -> Vec<u8>;
}

macro_rules! records {
    ($($record:ident $prefix:literal $what:literal $this:ident => $id:expr;)*) => {
    $(
        impl Record for $record {
            const PREFIX: u8 = $prefix;
            const WHAT: &'static str = $what;
            fn id(&self) -> Vec<u8> {
                let $this = self;
                $id
            }
        }
    )*

        /// Prefix, name, and full name of the message of every kind of record, for the audit log.
        pub(super) const KINDS: &[(u8, &str, &str)] =
            &[$(($prefix, $what, concat!("rookery.log.v1.", stringify!($record))),)*];
    };
}
records! {
    ClusterSettings 0x10 "cluster settings" _this => Vec::new();
    CertificateRecord 0x11 "certificate" this => this.thumbprint.clone();
    DatabaseRecord 0x12 "database" this => this.id.to_be_bytes().to_vec();
    NodeRecord 0x13 "node" this => this.id.to_be_bytes().to_vec();
    JoinTokenRecord 0x14 "join token" this => this.id.as_bytes().to_vec();
    UseRecord 0x16 "use" this => this.thumbprint.clone();
    TombstoneRecord 0x17 "tombstone" this => this.key_digest.clone();
    TrustRecord 0x18 "trust" this => match &this.record {
        Some(trust_record::Record::Policy(_)) => vec![0],
        Some(trust_record::Record::WellKnownAdmins(declared)) => declaration_id(declared.node_id),
        None => Vec::new(), // Stands under no key, so it is found out.
    };
    CertificateReplacement 0x19 "certificate replacement" _this => Vec::new();
    // audit
    AuditRecord 0x1c "audit record" this => this.sequence.to_be_bytes().to_vec();
    AuditCheckpoint 0x1d "audit checkpoint" this => this.sequence.to_be_bytes().to_vec();
    AuditHead 0x1e "audit head" _this => Vec::new();
    ClusterSecretRecord 0x1f "cluster secret" this => this.key_id.to_be_bytes().to_vec();
    SecondFactorRecord 0x20 "second factor" this => this.thumbprint.clone();
}

/// What stands behind the prefix in the key of what a node declares.
pub(super) fn declaration_id(node_id: u64) -> Vec<u8> {
    [&[1], node_id.to_be_bytes().as_slice()].concat()
}

fn key<R: Record>(id: &[u8]) -> Vec<u8> {
    [&[R::PREFIX], id].concat()
}

fn decode<R: Record>(bytes: &[u8]) -> Result<R, Error> {
    R::decode(bytes).map_err(|e| Error::corrupt(R::WHAT, e))
}

pub(super) fn get<R: Record>(state: &Overlay<'_>, id: &[u8]) -> Result<Option<R>, Error> {
    state.get(&key::<R>(id))?.map(|bytes| decode(&bytes)).transpose()
}

/// A record that the registry says is there.
pub(super) fn require<R: Record>(state: &Overlay<'_>, id: &[u8]) -> Result<R, Error> {
    get(state, id)?.ok_or_else(|| Error::corrupt(R::WHAT, "it is missing"))
}

pub(super) fn put<R: Record>(state: &mut Overlay<'_>, record: &R) -> Result<(), Error> {
    Ok(state.put(&key::<R>(&record.id()), record.encode_to_vec())?)
}

pub(super) fn delete<R: Record>(state: &mut Overlay<'_>, id: &[u8]) -> Result<(), Error> {
    state.delete(&key::<R>(id))?;
    Ok(())
}

/// The first record of a kind from an id on, in a state under way.
pub(super) fn first_pending<R: Record>(state: &Overlay<'_>, id: &[u8]) -> Result<Option<R>, Error> {
    let mut first = None;
    let to = [R::PREFIX + 1];
    state.scan(&key::<R>(id), Bound::Excluded(&to), &mut |stored, bytes| {
        first = Some(decode_under::<R>(stored, &bytes));
        ControlFlow::Break(())
    })?;
    first.transpose()
}

/// A record of a store.
pub(super) fn find<R: Record>(
    read: &dyn Read,
    space: Space,
    id: &[u8],
) -> Result<Option<R>, Error> {
    read.get(space, &key::<R>(id))?.map(|bytes| decode(&bytes)).transpose()
}

/// Records of a kind in a store, from an id on, in the order of their keys, until `visit` breaks.
pub(super) fn from<R: Record>(
    read: &dyn Read,
    space: Space,
    id: &[u8],
    mut visit: impl FnMut(R, usize) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut failed = None;
    let to = [R::PREFIX + 1];
    read.scan(
        space,
        &key::<R>(id),
        Bound::Excluded(&to),
        &mut |stored, bytes| match decode_under::<R>(stored, &bytes) {
            Ok(record) => visit(record, bytes.len()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    failed.map_or(Ok(()), Err)
}

fn decode_under<R: Record>(stored: &[u8], bytes: &[u8]) -> Result<R, Error> {
    let record = decode::<R>(bytes)?;
    if key::<R>(&record.id()) == stored {
        return Ok(record);
    }
    Err(Error::corrupt(R::WHAT, "it stands under another key"))
}

pub(super) fn settings(read: &dyn Read, space: Space) -> Result<Option<ClusterSettings>, Error> {
    read.get(space, &key::<ClusterSettings>(&[]))?.map(|bytes| decode(&bytes)).transpose()
}

/// All records of a kind in a store, in the order of their keys.
pub(super) fn all<R: Record>(
    read: &dyn Read,
    space: Space,
    visit: impl FnMut(R) -> Result<(), Error>,
) -> Result<(), Error> {
    collect(visit, |from, to, each| read.scan(space, from, to, each))
}

/// All records of a kind in a state under way.
pub(super) fn all_pending<R: Record>(
    state: &Overlay<'_>,
    visit: impl FnMut(R) -> Result<(), Error>,
) -> Result<(), Error> {
    collect(visit, |from, to, each| state.scan(from, to, each))
}

fn collect<R: Record>(
    mut visit: impl FnMut(R) -> Result<(), Error>,
    scan: impl FnOnce(
        &[u8],
        Bound<&[u8]>,
        &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
    ) -> storage::Result<()>,
) -> Result<(), Error> {
    let mut failed = None;
    scan(&[R::PREFIX], Bound::Excluded(&[R::PREFIX + 1]), &mut |stored, bytes| {
        let visited = decode_under::<R>(stored, &bytes).and_then(&mut visit);
        match visited {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}
