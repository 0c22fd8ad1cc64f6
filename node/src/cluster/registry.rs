//! The registry: certificates, databases and nodes as of one log position, in memory and shared by all readers.
//!
//! Every map is persistent: the next revision shares all that did not change with the one before, so a change costs the
//! path to one record, and readers keep what they hold.

use std::{collections::BTreeSet, sync::Arc};

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use rookery_proto::log::v1::{CertificateRecord, DatabaseRecord, NodeRecord};

use crate::{
    authz::{self, Access, Caller, Clearance, Registration},
    certificates::{self, KeyDigest},
    cluster::trust::{self, Trust},
    names::{DatabaseId, DatabaseName, NodeId, Thumbprint, Timestamp},
    results::Error,
};

/// A registered certificate and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What decisions are made from.
    pub registration: Arc<Registration>,
    /// When it was registered.
    pub created: Timestamp,
    /// Who registered it; `None` for the first administrators and for nodes.
    pub created_by: Option<Thumbprint>,
    /// Whether this cluster made the key pair.
    pub generated: bool,
    /// The digest of its key.
    pub key: KeyDigest,
}

/// Everything that decisions and routing need to know, as of one log position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// Log index of the last entry that changed certificates, databases or nodes.
    pub revision: u64,
    /// A UUID; empty until the cluster is formed.
    pub cluster_id: String,
    /// The id of the next database; smaller ones without a record were deleted.
    pub next_database_id: u64,
    certificates: OrdMap<Thumbprint, Arc<Certificate>>,
    cluster_admins: OrdSet<Thumbprint>,
    databases: OrdMap<DatabaseId, Arc<DatabaseRecord>>,
    database_by_key: OrdMap<String, DatabaseId>,
    nodes: OrdMap<NodeId, Arc<NodeRecord>>,
    member_by_thumbprint: OrdMap<Thumbprint, NodeId>,
    pub(super) trust: Trust,
}

impl Registry {
    /// Whether the cluster's first command was applied.
    #[must_use]
    pub fn is_formed(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// Whether a database was created and deleted again, as far as this revision knows.
    #[must_use]
    pub fn was_deleted(&self, id: DatabaseId) -> bool {
        id.0 < self.next_database_id && !self.databases.contains_key(&id)
    }

    /// Who holds a certificate; `None`: none was presented.
    #[must_use]
    pub fn caller(&self, thumbprint: Option<Thumbprint>) -> Caller<'_> {
        match thumbprint {
            None => Caller::Anonymous,
            Some(thumbprint) => self
                .identity(&thumbprint)
                .map_or(Caller::Unknown(thumbprint), |found| Caller::Registered(found)),
        }
    }

    /// What decisions about a thumbprint are made from: its registration, or else what makes it a well-known admin.
    #[must_use]
    pub fn identity(&self, thumbprint: &Thumbprint) -> Option<&Arc<Registration>> {
        self.certificate(thumbprint).or_else(|| self.trust.well_known.get(thumbprint))
    }

    /// The registration of a certificate.
    #[must_use]
    pub fn certificate(&self, thumbprint: &Thumbprint) -> Option<&Arc<Registration>> {
        self.certificates.get(thumbprint).map(|certificate| &certificate.registration)
    }

    /// The registration of a certificate and where it came from.
    #[must_use]
    pub fn certificate_details(&self, thumbprint: &Thumbprint) -> Option<&Arc<Certificate>> {
        self.certificates.get(thumbprint)
    }

    /// All certificates after `after` in the order of their thumbprints; `None`: from the first.
    pub fn certificates(
        &self,
        after: Option<Thumbprint>,
    ) -> impl Iterator<Item = &Arc<Certificate>> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.certificates.range((from, Bound::Unbounded)).map(|(_, certificate)| certificate)
    }

    /// How many certificates are registered.
    #[must_use]
    pub fn certificate_count(&self) -> usize {
        self.certificates.len()
    }

    /// Whether this is a Cluster Admin certificate, and no other enabled and unexpired one is registered.
    #[must_use]
    pub fn is_last_cluster_admin(&self, thumbprint: &Thumbprint, at: Timestamp) -> bool {
        let valid = |other: &Thumbprint| {
            self.certificate(other)
                .is_some_and(|other| authz::state(other, at) == authz::State::Valid)
        };
        self.cluster_admins.contains(thumbprint)
            && !self.cluster_admins.iter().any(|other| other != thumbprint && valid(other))
    }

    /// The database of a name, letter case aside.
    #[must_use]
    pub fn database(&self, name: &DatabaseName) -> Option<&Arc<DatabaseRecord>> {
        self.database_by_key.get(name.key()).and_then(|id| self.databases.get(id))
    }

    /// The database of an id.
    #[must_use]
    pub fn database_by_id(&self, id: DatabaseId) -> Option<&Arc<DatabaseRecord>> {
        self.databases.get(&id)
    }

    /// All databases in the order of their ids.
    pub fn databases(&self) -> impl Iterator<Item = &Arc<DatabaseRecord>> {
        self.databases.values()
    }

    /// All databases in the order of their lower-case names, after `after`; `None`: from the first.
    pub fn databases_by_name(
        &self,
        after: Option<&str>,
    ) -> impl Iterator<Item = &Arc<DatabaseRecord>> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.database_by_key
            .range::<_, str>((from, Bound::Unbounded))
            .filter_map(|(_, id)| self.databases.get(id))
    }

    /// The members in the order of their ids; removed nodes are not among them.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values().filter(|node| !node.removed)
    }

    /// A member; `None` for a removed node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<NodeRecord>> {
        self.nodes.get(&id).filter(|node| !node.removed)
    }

    /// Whether a node of this id was a member and is none any more.
    #[must_use]
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.removed)
    }

    /// The member of a name.
    #[must_use]
    pub fn node_by_name(&self, name: &str) -> Option<&Arc<NodeRecord>> {
        self.nodes().find(|node| node.name == name)
    }

    /// The member whose node certificate this is.
    #[must_use]
    pub fn member(&self, thumbprint: &Thumbprint) -> Option<&NodeRecord> {
        self.member_by_thumbprint.get(thumbprint).and_then(|id| self.node(*id)).map(|node| &**node)
    }

    /// Nodes that are or were members.
    pub fn all_nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values()
    }

    pub(super) fn set_certificate(&mut self, record: CertificateRecord) -> Result<(), Error> {
        let certificate = Certificate::try_from(record)?;
        let registration = &certificate.registration;
        let thumbprint = registration.thumbprint;
        if registration.clearance == Clearance::ClusterAdmin {
            self.cluster_admins.insert(thumbprint);
        } else {
            self.cluster_admins.remove(&thumbprint);
        }
        self.trust.has_key(certificate.key, thumbprint);
        self.certificates.insert(thumbprint, Arc::new(certificate));
        Ok(())
    }

    pub(super) fn remove_certificate(&mut self, thumbprint: &Thumbprint) {
        if let Some(removed) = self.certificates.remove(thumbprint) {
            self.trust.lost_key(removed.key, thumbprint);
        }
        self.cluster_admins.remove(thumbprint);
    }

    pub(super) fn set_database(&mut self, record: DatabaseRecord) -> Result<(), Error> {
        let name = DatabaseName::parse(&record.name).map_err(|e| Error::corrupt("database", e))?;
        let id = DatabaseId(record.id);
        self.database_by_key.insert(name.key().to_owned(), id);
        self.databases.insert(id, Arc::new(record));
        Ok(())
    }

    pub(super) fn remove_database(&mut self, name: &DatabaseName) {
        if let Some(id) = self.database_by_key.remove(name.key()) {
            self.databases.remove(&id);
        }
    }

    pub(super) fn set_node(&mut self, record: NodeRecord) -> Result<(), Error> {
        let thumbprint =
            Thumbprint::from_bytes(&record.thumbprint).map_err(|e| Error::corrupt("node", e))?;
        let id = NodeId(record.id);
        if record.removed {
            // A later member may have the certificate of a removed one; it has a greater id and is set after it.
            self.member_by_thumbprint.remove(&thumbprint);
            self.trust.declare(id, &[]);
        } else {
            self.member_by_thumbprint.insert(thumbprint, id);
        }
        self.nodes.insert(id, Arc::new(record));
        Ok(())
    }
}

impl TryFrom<CertificateRecord> for Certificate {
    type Error = Error;

    fn try_from(record: CertificateRecord) -> Result<Self, Error> {
        let corrupt = |why: String| Error::corrupt("certificate", why);
        let thumbprint =
            Thumbprint::from_bytes(&record.thumbprint).map_err(|e| corrupt(e.to_string()))?;
        let created_by = match record.created_by.as_slice() {
            [] => None,
            bytes => Some(Thumbprint::from_bytes(bytes).map_err(|e| corrupt(e.to_string()))?),
        };
        let key = match KeyDigest::from_bytes(&record.key_digest) {
            Some(key) => key,
            // Registered before the digest was kept.
            None => certificates::key_digest(&record.der).map_err(|e| corrupt(e.to_string()))?,
        };
        let grants = record.grants.iter().map(|grant| {
            let access = Access::try_from(grant.access).map_err(|e| corrupt(e.to_string()))?;
            Ok((DatabaseId(grant.database_id), access))
        });
        let registration = Registration {
            thumbprint,
            name: record.name,
            clearance: Clearance::try_from(record.clearance).map_err(|e| corrupt(e.to_string()))?,
            grants: grants.collect::<Result<_, Error>>()?,
            not_before: Timestamp(record.not_before_unix_ms),
            not_after: Timestamp(record.not_after_unix_ms),
            disabled: record.disabled,
            revision: record.revision,
            node: (record.node_id != 0).then_some(NodeId(record.node_id)),
            der: record.der.into(),
        };
        Ok(Self {
            registration: Arc::new(registration),
            created: Timestamp(record.created_unix_ms),
            created_by,
            generated: record.generated,
            key,
        })
    }
}

/// The certificates that may do less in `after` than in `before`: their connections and streams are to be closed.
///
/// Costs what changed between the two, not what is registered. Passing dates are not among the reasons.
#[must_use]
pub fn lost_rights(before: &Registry, after: &Registry) -> Vec<Thumbprint> {
    let lost = before.certificates.diff(&after.certificates).filter_map(|item| match item {
        DiffItem::Add(..) => None,
        DiffItem::Remove(thumbprint, _) => Some(*thumbprint),
        DiffItem::Update { old: (thumbprint, old), new: (_, new) } => {
            is_narrower(&old.registration, &new.registration).then_some(*thumbprint)
        }
    });
    let lost: BTreeSet<Thumbprint> = lost.chain(trust::lost_rights(before, after)).collect();
    lost.into_iter().collect()
}

/// Whether a registration lost anything on its way from `old` to `new`.
fn is_narrower(old: &Registration, new: &Registration) -> bool {
    let left_the_cluster = old.node.is_some() && new.node != old.node;
    let no_node_any_more =
        old.clearance == Clearance::ClusterNode && new.clearance != old.clearance;
    let disabled = new.disabled && !old.disabled;
    let weaker = !new.clearance.covers(old.clearance);
    let closed = !new.clearance.covers(Clearance::Operator)
        && old.grants.iter().any(|(id, access)| new.grants.get(id).is_none_or(|now| now < access));
    left_the_cluster || no_node_any_more || disabled || weaker || closed
}
