//! Commands: set the security policy; declare what a node's configuration says of well-known admins.

use rookery_proto::log::v1::{
    DeclareWellKnownAdmins, Refusal, SecurityPolicyRecord, SetSecurityPolicy, TrustRecord,
    WellKnownAdmins, cluster_outcome, trust_record,
};

use crate::{
    authz::Registration,
    cluster::{Applying, Error, Outcome, check, done, records},
    names::{NodeId, Thumbprint},
    results::{refusal, refusal_at, with},
};

impl Applying<'_, '_> {
    /// Cluster Admins replace the whole policy.
    pub(in crate::cluster) fn set_policy(&mut self, set: &SetSecurityPolicy) -> Outcome {
        let policy = set.policy.as_ref().ok_or_else(|| check::invalid("policy", "is missing"))?;
        let current = self.registry.trust.policy.revision;
        if set.expected_revision != 0 && set.expected_revision != current {
            let message = "the policy was changed since it was read; read it again";
            let refused = refusal_at("CONCURRENCY", "expected_revision", message);
            return Err(with(refused, "current_revision", current).into());
        }
        let record = SecurityPolicyRecord { revision: self.entry.index, ..policy.clone() };
        let stored = trust_record::Record::Policy(record.clone());
        self.store_trust(TrustRecord { record: Some(stored) })?;
        Ok(cluster_outcome::Outcome::SecurityPolicy(record))
    }

    /// A member says what its configuration holds. What it held before and holds no more is gone.
    pub(in crate::cluster) fn declare(
        &mut self,
        author: &Registration,
        declare: &DeclareWellKnownAdmins,
    ) -> Outcome {
        let node = own_node(author, declare.node_id)?;
        let thumbprints = declare.thumbprints.iter().map(|bytes| check::thumbprint(bytes));
        let thumbprints: Vec<Thumbprint> = thumbprints.collect::<Result<_, _>>()?;
        if self.registry.declared_by(node) == thumbprints {
            return Ok(done());
        }
        if thumbprints.is_empty() {
            self.forget_declaration(node)?;
            return Ok(done());
        }
        let record = WellKnownAdmins { node_id: node.0, thumbprints: declare.thumbprints.clone() };
        let stored = trust_record::Record::WellKnownAdmins(record);
        self.store_trust(TrustRecord { record: Some(stored) })?;
        Ok(done())
    }

    fn store_trust(&mut self, record: TrustRecord) -> Result<(), Error> {
        self.changed = true;
        records::put(self.state, &record)?;
        self.registry.trust.set(record)
    }

    pub(in crate::cluster) fn forget_declaration(&mut self, node: NodeId) -> Result<(), Error> {
        if self.registry.declared_by(node).is_empty() {
            return Ok(());
        }
        self.changed = true;
        records::delete::<TrustRecord>(self.state, &records::declaration_id(node.0))?;
        self.registry.trust.declare(node, &[]);
        Ok(())
    }

    /// What a node's configuration decides cannot be changed through the API.
    pub(in crate::cluster) fn not_well_known(
        &self,
        thumbprint: &Thumbprint,
    ) -> Result<(), Refusal> {
        if !self.registry.is_well_known(thumbprint) {
            return Ok(());
        }
        Err(well_known(thumbprint))
    }
}

fn well_known(thumbprint: &Thumbprint) -> Refusal {
    let message = "this thumbprint is a well-known admin: it stands in the configuration of nodes \
                   (authorization.well_known_admins). Take it out there and restart them";
    with(refusal_at("WELL_KNOWN", "thumbprint", message), "thumbprint", thumbprint)
}

/// The node that a member's certificate belongs to, which must be the one that the command speaks of.
pub(super) fn own_node(author: &Registration, node_id: u64) -> Result<NodeId, Refusal> {
    match author.node {
        Some(node) if node.0 == node_id => Ok(node),
        Some(_) | None => Err(refusal("NOT_A_MEMBER", "a node speaks for itself only")),
    }
}
