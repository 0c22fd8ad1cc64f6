//! The registry: certificates, databases and nodes as of one log position, in memory and shared by all readers.
//!
//! Every map is persistent: the next revision shares all that did not change with the one before, so a change costs the
//! path to one record, and readers keep what they hold.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use rookery_proto::log::v1::{
    CertificateRecord, ClusterSecretRecord, DatabaseRecord, NodeRecord, SecondFactorRecord,
};

use crate::{
    authz::{self, Access, Caller, Clearance, Gap, Registration, SecondFactor, Session},
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
}

/// Everything that decisions and routing need to know, as of one log position.
#[derive(Debug, Clone, Default, PartialEq)]
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
    second_factors: OrdMap<Thumbprint, Arc<SecondFactorRecord>>,
    sessions_by_end: OrdSet<(Timestamp, Thumbprint)>,
    cluster_secrets: OrdMap<u64, Arc<ClusterSecretRecord>>,
    member_by_thumbprint: OrdMap<Thumbprint, NodeId>,
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
    ///
    /// For callers whose session token was compared already, by the node that took the call; `edge` compares it.
    #[must_use]
    pub fn caller(&self, thumbprint: Option<Thumbprint>) -> Caller<'_> {
        let Some(thumbprint) = thumbprint else { return Caller::Anonymous };
        let Some(found) = self.certificate(&thumbprint) else {
            return Caller::Unknown(thumbprint);
        };
        let bare = found.second_factor.is_none() && !found.is_member();
        if bare && self.second_factor_required(found.clearance) {
            return Caller::Unproven(found, Gap::NotEnrolled);
        }
        Caller::Registered(found)
    }

    /// Whether certificates of this clearance must have a second factor.
    #[must_use]
    pub fn second_factor_required(&self, _clearance: Clearance) -> bool {
        false
    }

    /// The second factor of a certificate, confirmed or not.
    #[must_use]
    pub fn second_factor(&self, thumbprint: &Thumbprint) -> Option<&Arc<SecondFactorRecord>> {
        self.second_factors.get(thumbprint)
    }

    /// All second factors in the order of their thumbprints.
    pub fn second_factors(&self) -> impl Iterator<Item = &Arc<SecondFactorRecord>> {
        self.second_factors.values()
    }

    /// The certificates whose sessions ended after `from`, up to and with `to`.
    pub fn sessions_ended(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = Thumbprint> {
        self.sessions_by_end
            .iter()
            .skip_while(move |(end, _)| *end <= from)
            .take_while(move |(end, _)| *end <= to)
            .map(|(_, thumbprint)| *thumbprint)
    }

    /// The cluster secret that seals what is new.
    #[must_use]
    pub fn current_cluster_secret(&self) -> Option<&Arc<ClusterSecretRecord>> {
        self.cluster_secrets.get_max().map(|(_, record)| record)
    }

    /// A cluster secret that is still in use.
    #[must_use]
    pub fn cluster_secret(&self, key_id: u64) -> Option<&Arc<ClusterSecretRecord>> {
        self.cluster_secrets.get(&key_id)
    }

    /// The cluster secrets that are in use, oldest first.
    pub fn cluster_secrets(&self) -> impl Iterator<Item = &Arc<ClusterSecretRecord>> {
        self.cluster_secrets.values()
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
        let mut certificate = Certificate::try_from(record)?;
        let thumbprint = certificate.registration.thumbprint;
        if let Some(record) = self.second_factors.get(&thumbprint) {
            let registration = Arc::make_mut(&mut certificate.registration);
            registration.second_factor = facts(record)?;
        }
        let registration = &certificate.registration;
        if registration.clearance == Clearance::ClusterAdmin {
            self.cluster_admins.insert(thumbprint);
        } else {
            self.cluster_admins.remove(&thumbprint);
        }
        self.certificates.insert(thumbprint, Arc::new(certificate));
        Ok(())
    }

    /// Stores a second factor, and tells the registration of its certificate.
    pub(super) fn set_second_factor(&mut self, record: SecondFactorRecord) -> Result<(), Error> {
        let thumbprint = Thumbprint::from_bytes(&record.thumbprint)
            .map_err(|e| Error::corrupt("second factor", e))?;
        self.forget_session(&thumbprint);
        let facts = facts(&record)?;
        if let Some(session) = facts.and_then(|facts| facts.session) {
            self.sessions_by_end.insert((session.expires, thumbprint));
        }
        self.second_factors.insert(thumbprint, Arc::new(record));
        self.tell(&thumbprint, facts);
        Ok(())
    }

    pub(super) fn remove_second_factor(&mut self, thumbprint: &Thumbprint) {
        self.forget_session(thumbprint);
        self.second_factors.remove(thumbprint);
        self.tell(thumbprint, None);
    }

    fn forget_session(&mut self, thumbprint: &Thumbprint) {
        let session = self.second_factors.get(thumbprint).and_then(|old| old.session.as_ref());
        if let Some(session) = session {
            self.sessions_by_end.remove(&(Timestamp(session.expires_unix_ms), *thumbprint));
        }
    }

    fn tell(&mut self, thumbprint: &Thumbprint, facts: Option<SecondFactor>) {
        if let Some(certificate) = self.certificates.get_mut(thumbprint) {
            let certificate = Arc::make_mut(certificate);
            Arc::make_mut(&mut certificate.registration).second_factor = facts;
        }
    }

    pub(super) fn set_cluster_secret(&mut self, record: ClusterSecretRecord) {
        self.cluster_secrets.insert(record.key_id, Arc::new(record));
    }

    pub(super) fn remove_cluster_secret(&mut self, key_id: u64) {
        self.cluster_secrets.remove(&key_id);
    }

    pub(super) fn remove_certificate(&mut self, thumbprint: &Thumbprint) {
        self.certificates.remove(thumbprint);
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
            second_factor: None, // Stands in a record of its own.
            der: record.der.into(),
        };
        Ok(Self {
            registration: Arc::new(registration),
            created: Timestamp(record.created_unix_ms),
            created_by,
            generated: record.generated,
        })
    }
}

/// What decisions need of a second factor; `None` until its first code.
fn facts(record: &SecondFactorRecord) -> Result<Option<SecondFactor>, Error> {
    if !record.confirmed {
        return Ok(None);
    }
    let session = record.session.as_ref().map(|session| {
        let token_digest = match session.token_digest.as_slice() {
            [] => None,
            digest => Some(
                digest
                    .try_into()
                    .map_err(|_| Error::corrupt("second factor", "a token digest has 32 bytes"))?,
            ),
        };
        Ok::<_, Error>(Session { expires: Timestamp(session.expires_unix_ms), token_digest })
    });
    Ok(Some(SecondFactor { session: session.transpose()? }))
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
    lost.collect()
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
    let shut = shuts(old.second_factor.as_ref(), new.second_factor.as_ref());
    left_the_cluster || no_node_any_more || disabled || weaker || closed || shut
}

/// Whether calls that a second factor let pass before would not pass any more.
fn shuts(old: Option<&SecondFactor>, new: Option<&SecondFactor>) -> bool {
    match (old, new) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => match (&old.session, &new.session) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(old), Some(new)) => {
                new.expires < old.expires
                    || (new.token_digest.is_some() && new.token_digest != old.token_digest)
            }
        },
    }
}
