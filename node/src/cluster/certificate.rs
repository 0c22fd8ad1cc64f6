//! A registered certificate in memory, made from its record. One record may stand for several certificates: a primary
//! and its secondaries, which have all that the primary has but their own bytes and dates.

use std::sync::Arc;

use rookery_proto::log::v1::{CertificateRecord, SecondaryRecord};

use crate::{
    authz::{Access, Clearance, Registration},
    certificates::{self, KeyDigest},
    names::{DatabaseId, NodeId, Thumbprint, Timestamp},
    results::Error,
};

/// A registered certificate and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What decisions are made from.
    pub registration: Arc<Registration>,
    /// The primary of the entry; itself where it is one.
    pub primary: Thumbprint,
    /// What all certificates of the entry share.
    pub entry: Arc<CertificateEntry>,
    /// The digest of its key.
    pub key: KeyDigest,
}

/// What a primary and its secondaries share, besides their rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEntry {
    /// When it was registered.
    pub created: Timestamp,
    /// Who registered it; `None` for the first administrators and for nodes.
    pub created_by: Option<Thumbprint>,
    /// Whether this cluster made the key pair.
    pub generated: bool,
    /// Remarks of administrators.
    pub note: String,
    /// Who answers for it.
    pub owner: String,
    /// The other certificates of the entry, in the order of their upload.
    pub secondaries: Vec<Thumbprint>,
    /// The name in lower case, by which lists are searched and sorted.
    pub name_key: Arc<str>,
    /// The latest first moment of its certificates.
    pub begins: Timestamp,
    /// The earliest last moment of its certificates.
    pub expires: Timestamp,
}

impl Certificate {
    /// Whether it stands for another one.
    #[must_use]
    pub fn is_secondary(&self) -> bool {
        self.primary != self.registration.thumbprint
    }

    /// All certificates of a record, the primary first.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn of_record(record: CertificateRecord) -> Result<Vec<Self>, Error> {
        let CertificateRecord { secondaries, note, owner, .. } = &record;
        let (note, owner) = (note.clone(), owner.clone());
        let created_by = match record.created_by.as_slice() {
            [] => None,
            bytes => Some(thumbprint(bytes)?),
        };
        let last_moments = secondaries.iter().map(|secondary| secondary.not_after_unix_ms);
        let expires = last_moments.fold(record.not_after_unix_ms, i64::min);
        let first_moments = secondaries.iter().map(|secondary| secondary.not_before_unix_ms);
        let begins = first_moments.fold(record.not_before_unix_ms, i64::max);
        let secondaries = secondaries.iter().map(|secondary| thumbprint(&secondary.thumbprint));
        let entry = Arc::new(CertificateEntry {
            created: Timestamp(record.created_unix_ms),
            created_by,
            generated: record.generated,
            note,
            owner,
            secondaries: secondaries.collect::<Result<_, _>>()?,
            name_key: record.name.to_lowercase().into(),
            begins: Timestamp(begins),
            expires: Timestamp(expires),
        });
        let first = registration(&record)?;
        let primary = first.thumbprint;
        let mut all = Vec::with_capacity(1 + record.secondaries.len());
        for secondary in record.secondaries {
            let key = key(&secondary.key_digest, &secondary.der)?;
            let registration = Arc::new(stands_for(&first, secondary)?);
            all.push(Self { registration, primary, entry: Arc::clone(&entry), key });
        }
        let key = key(&record.key_digest, &record.der)?;
        all.insert(0, Self { registration: Arc::new(first), primary, entry, key });
        Ok(all)
    }
}

/// The digest of a certificate's key, as it was kept, or taken again where it was not.
fn key(digest: &[u8], der: &[u8]) -> Result<KeyDigest, Error> {
    match KeyDigest::from_bytes(digest) {
        Some(key) => Ok(key),
        None => certificates::key_digest(der).map_err(corrupt),
    }
}

fn corrupt(why: impl ToString) -> Error {
    Error::corrupt("certificate", why)
}

fn thumbprint(bytes: &[u8]) -> Result<Thumbprint, Error> {
    Thumbprint::from_bytes(bytes).map_err(corrupt)
}

/// The primary's registration.
fn registration(record: &CertificateRecord) -> Result<Registration, Error> {
    let grants = record.grants.iter().map(|grant| {
        let access = Access::try_from(grant.access).map_err(corrupt)?;
        Ok((DatabaseId(grant.database_id), access))
    });
    Ok(Registration {
        thumbprint: thumbprint(&record.thumbprint)?,
        name: record.name.clone(),
        clearance: Clearance::try_from(record.clearance).map_err(corrupt)?,
        grants: grants.collect::<Result<_, Error>>()?,
        not_before: Timestamp(record.not_before_unix_ms),
        not_after: Timestamp(record.not_after_unix_ms),
        disabled: record.disabled,
        revision: record.revision,
        node: (record.node_id != 0).then_some(NodeId(record.node_id)),
        second_factor: None, // Stands in a record of its own.
        der: record.der.as_slice().into(),
    })
}

/// A secondary's registration: the primary's rights under its own thumbprint, bytes and dates. It is never a member.
fn stands_for(primary: &Registration, secondary: SecondaryRecord) -> Result<Registration, Error> {
    Ok(Registration {
        thumbprint: thumbprint(&secondary.thumbprint)?,
        not_before: Timestamp(secondary.not_before_unix_ms),
        not_after: Timestamp(secondary.not_after_unix_ms),
        node: None,
        der: secondary.der.into(),
        ..primary.clone()
    })
}
