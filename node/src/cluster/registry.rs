//! The registry: certificates, databases and nodes as of one log position, in memory and shared by all readers.
//!
//! Every map is persistent: the next revision shares all that did not change with the one before, so a change costs the
//! path to one record, and readers keep what they hold.

use std::{collections::BTreeSet, sync::Arc};

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use rookery_proto::log::v1::{
    CertificateRecord, CertificateReplacement, ClusterSecretRecord, DatabaseRecord, NodeRecord,
    SecondFactorRecord,
};

use crate::{
    authz::{self, Caller, Clearance, Gap, Registration, SecondFactor, Session},
    cluster::{
        Certificate,
        list::Entries,
        trust::{self, Trust},
    },
    names::{DatabaseId, DatabaseName, NodeId, Thumbprint, Timestamp},
    results::Error,
};

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
    entries: Entries,
    databases: OrdMap<DatabaseId, Arc<DatabaseRecord>>,
    database_by_key: OrdMap<String, DatabaseId>,
    nodes: OrdMap<NodeId, Arc<NodeRecord>>,
    /// A certificate may be that of several nodes.
    members_by_thumbprint: OrdMap<Thumbprint, OrdSet<NodeId>>,
    replacement: Option<Arc<CertificateReplacement>>,
    pub(super) trust: Trust,
    /// By the primaries of entries: all certificates of an entry share one.
    second_factors: OrdMap<Thumbprint, Arc<SecondFactorRecord>>,
    sessions_by_end: OrdSet<(Timestamp, Thumbprint)>,
    cluster_secrets: OrdMap<u64, Arc<ClusterSecretRecord>>,
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
        let Some(found) = self.identity(&thumbprint) else {
            return Caller::Unknown(thumbprint);
        };
        if self.lacks_second_factor(found) {
            return Caller::Unproven(found, Gap::NotEnrolled);
        }
        Caller::Registered(found)
    }

    /// Whether certificates of this clearance must have a second factor.
    #[must_use]
    pub fn second_factor_required(&self, clearance: Clearance) -> bool {
        self.trust.policy.second_factor_required_for.contains(&clearance)
    }

    /// Whether the policy demands a second factor that this registration lacks. Members have none, and neither have
    /// well-known admins, who are in no registry that could keep it: they are the way back in.
    fn lacks_second_factor(&self, registration: &Registration) -> bool {
        registration.second_factor.is_none()
            && self.second_factor_required(registration.clearance)
            && !registration.is_member()
            && !self.is_well_known(&registration.thumbprint)
    }

    /// The primary of the entry that a certificate belongs to; of one that is not registered, itself.
    #[must_use]
    pub fn primary(&self, thumbprint: &Thumbprint) -> Thumbprint {
        self.certificates.get(thumbprint).map_or(*thumbprint, |certificate| certificate.primary)
    }

    /// The second factor of a certificate, confirmed or not; that of its primary.
    #[must_use]
    pub fn second_factor(&self, thumbprint: &Thumbprint) -> Option<&Arc<SecondFactorRecord>> {
        self.second_factors.get(&self.primary(thumbprint))
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
            .filter_map(|(_, primary)| self.certificates.get(primary))
            .flat_map(|primary| self.entry(primary))
            .map(|certificate| certificate.registration.thumbprint)
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

    /// The certificates of the entry that a certificate belongs to, the primary first.
    pub fn entry(&self, certificate: &Certificate) -> impl Iterator<Item = &Arc<Certificate>> {
        let secondaries = certificate.entry.secondaries.iter().copied();
        std::iter::once(certificate.primary)
            .chain(secondaries)
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|thumbprint| self.certificates.get(&thumbprint))
    }

    /// All certificates after `after` in the order of their thumbprints, secondaries among them; `None`: from the first.
    pub fn certificates(
        &self,
        after: Option<Thumbprint>,
    ) -> impl Iterator<Item = &Arc<Certificate>> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.certificates.range((from, Bound::Unbounded)).map(|(_, certificate)| certificate)
    }

    /// The certificates with thumbprints from `from` to `to`, both included, in their order; secondaries are among them.
    pub fn certificates_between(
        &self,
        from: Thumbprint,
        to: Thumbprint,
    ) -> impl Iterator<Item = &Arc<Certificate>> {
        self.certificates.range(from..=to).map(|(_, certificate)| certificate)
    }

    /// How many certificates are registered, secondaries included.
    #[must_use]
    pub fn certificate_count(&self) -> usize {
        self.certificates.len()
    }

    /// The primaries of all entries, by name, expiry, age, clearance and grant.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Whether this is the primary of a Cluster Admin entry, and no other one has a certificate in force.
    #[must_use]
    pub fn is_last_cluster_admin(&self, thumbprint: &Thumbprint, at: Timestamp) -> bool {
        let admins = self.entries.of_clearance(Clearance::ClusterAdmin);
        admins.contains(thumbprint)
            && !admins.iter().any(|other| other != thumbprint && self.is_in_force(other, at))
    }

    /// Whether there is a Cluster Admin with a certificate in force.
    #[must_use]
    pub fn has_cluster_admin(&self, at: Timestamp) -> bool {
        let admins = self.entries.of_clearance(Clearance::ClusterAdmin);
        admins.iter().any(|admin| self.is_in_force(admin, at))
    }

    /// Whether any certificate of the entry may be used.
    pub(super) fn is_in_force(&self, primary: &Thumbprint, at: Timestamp) -> bool {
        self.certificates.get(primary).is_some_and(|primary| {
            self.entry(primary).any(|it| authz::state(&it.registration, at) == authz::State::Valid)
        })
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

    /// The member with the lowest id whose certificate this is; nodes may share one.
    #[must_use]
    pub fn member(&self, thumbprint: &Thumbprint) -> Option<&NodeRecord> {
        self.members_of(thumbprint).next()
    }

    /// The members whose certificate this is: the one in force, the next one, or one that is not revoked yet.
    pub fn members_of(&self, thumbprint: &Thumbprint) -> impl Iterator<Item = &NodeRecord> {
        let ids = self.members_by_thumbprint.get(thumbprint);
        ids.into_iter().flatten().filter_map(|id| self.node(*id)).map(|node| &**node)
    }

    /// Whether a member is known by a certificate.
    #[must_use]
    pub fn is_certificate_of(&self, id: NodeId, thumbprint: &Thumbprint) -> bool {
        self.members_by_thumbprint.get(thumbprint).is_some_and(|ids| ids.contains(&id))
            && self.node(id).is_some()
    }

    /// The replacement of the nodes' certificates that is under way, or the last one.
    #[must_use]
    pub fn replacement(&self) -> Option<&CertificateReplacement> {
        self.replacement.as_deref()
    }

    pub(super) fn set_replacement(&mut self, replacement: CertificateReplacement) {
        self.replacement = Some(Arc::new(replacement));
    }

    /// Nodes that are or were members.
    pub fn all_nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values()
    }

    /// Takes an entry in, in place of the one that its primary had.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: a record that cannot be read, or a certificate that stands in another entry.
    pub fn insert(&mut self, record: CertificateRecord) -> Result<(), Error> {
        self.set_certificate(record)
    }

    pub(super) fn set_certificate(&mut self, record: CertificateRecord) -> Result<(), Error> {
        let all = Certificate::of_record(record)?;
        if let Some(first) = all.first() {
            let old = self.certificates.get(&first.primary);
            if old.is_some_and(|old| old.is_secondary()) {
                return Err(Error::corrupt("certificate", "it stands in two records"));
            }
            self.remove_certificate(&first.primary);
        }
        let record = all.first().and_then(|first| self.second_factors.get(&first.primary));
        let second_factor = record.map_or(Ok(None), |record| facts(record))?;
        for mut certificate in all {
            let thumbprint = certificate.registration.thumbprint;
            Arc::make_mut(&mut certificate.registration).second_factor = second_factor;
            let certificate = Arc::new(certificate);
            if !certificate.is_secondary() {
                self.entries.insert(&certificate);
            }
            self.trust.has_key(certificate.key, thumbprint);
            if self.certificates.insert(thumbprint, certificate).is_some() {
                return Err(Error::corrupt("certificate", "it stands in two records"));
            }
        }
        Ok(())
    }

    /// Stores a second factor, and tells the registrations of the entry it belongs to.
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

    pub(super) fn remove_second_factor(&mut self, primary: &Thumbprint) {
        self.forget_session(primary);
        self.second_factors.remove(primary);
        self.tell(primary, None);
    }

    fn forget_session(&mut self, primary: &Thumbprint) {
        let session = self.second_factors.get(primary).and_then(|old| old.session.as_ref());
        if let Some(session) = session {
            self.sessions_by_end.remove(&(Timestamp(session.expires_unix_ms), *primary));
        }
    }

    fn tell(&mut self, primary: &Thumbprint, facts: Option<SecondFactor>) {
        let Some(before) = self.certificates.get(primary).cloned() else { return };
        for thumbprint in std::iter::once(primary).chain(&before.entry.secondaries) {
            if let Some(certificate) = self.certificates.get_mut(thumbprint) {
                let certificate = Arc::make_mut(certificate);
                Arc::make_mut(&mut certificate.registration).second_factor = facts;
            }
        }
        // Lists hold the primary too.
        self.entries.remove(&before);
        if let Some(after) = self.certificates.get(primary) {
            self.entries.insert(after);
        }
    }

    pub(super) fn set_cluster_secret(&mut self, record: ClusterSecretRecord) {
        self.cluster_secrets.insert(record.key_id, Arc::new(record));
    }

    pub(super) fn remove_cluster_secret(&mut self, key_id: u64) {
        self.cluster_secrets.remove(&key_id);
    }

    /// Removes a primary and its secondaries.
    pub(super) fn remove_certificate(&mut self, primary: &Thumbprint) {
        let Some(removed) = self.certificates.remove(primary) else { return };
        self.trust.lost_key(removed.key, primary);
        for secondary in &removed.entry.secondaries {
            if let Some(removed) = self.certificates.remove(secondary) {
                self.trust.lost_key(removed.key, secondary);
            }
        }
        self.entries.remove(&removed);
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
        let id = NodeId(record.id);
        if let Some(before) = self.nodes.get(&id).cloned() {
            for thumbprint in thumbprints(&before)? {
                let mut ids = self.members_by_thumbprint.remove(&thumbprint).unwrap_or_default();
                ids.remove(&id);
                if !ids.is_empty() {
                    self.members_by_thumbprint.insert(thumbprint, ids);
                }
            }
        }
        if record.removed {
            self.trust.declare(id, &[]);
        }
        let thumbprints = thumbprints(&record)?;
        for thumbprint in thumbprints.into_iter().filter(|_| !record.removed) {
            self.members_by_thumbprint.entry(thumbprint).or_default().insert(id);
        }
        self.nodes.insert(id, Arc::new(record));
        Ok(())
    }
}

/// All certificates by which a node is known.
fn thumbprints(record: &NodeRecord) -> Result<Vec<Thumbprint>, Error> {
    std::iter::once(&record.thumbprint)
        .chain(&record.other_thumbprints)
        .map(|bytes| Thumbprint::from_bytes(bytes).map_err(|e| Error::corrupt("node", e)))
        .collect()
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
            let (old, new) = (&old.registration, &new.registration);
            let bare = after.lacks_second_factor(new) && !before.lacks_second_factor(old);
            (bare || is_narrower(old, new)).then_some(*thumbprint)
        }
    });
    let lost: BTreeSet<Thumbprint> =
        lost.chain(trust::lost_rights(before, after)).chain(newly_bare(before, after)).collect();
    lost.into_iter().collect()
}

/// The certificates that have no second factor and need one since the policy changed.
fn newly_bare<'a>(
    before: &'a Registry,
    after: &'a Registry,
) -> impl Iterator<Item = Thumbprint> + 'a {
    let demanded = after.trust.policy.second_factor_required_for.iter();
    demanded
        .filter(|clearance| !before.second_factor_required(**clearance))
        .flat_map(|clearance| after.entries.of_clearance(*clearance))
        .filter_map(|primary| after.certificates.get(primary))
        .flat_map(|primary| after.entry(primary))
        .filter(|certificate| after.lacks_second_factor(&certificate.registration))
        .map(|certificate| certificate.registration.thumbprint)
}

/// Whether a registration lost anything on its way from `old` to `new`.
fn is_narrower(old: &Registration, new: &Registration) -> bool {
    // A certificate that several nodes share stays a node's when one of them goes; its channels end with its id.
    let left_the_cluster = old.node.is_some() && new.node.is_none();
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
