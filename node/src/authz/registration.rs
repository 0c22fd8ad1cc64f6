//! What the registry knows of one certificate, and who stands at the other end of a connection.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    authz::{Access, Clearance, Gap, SecondFactor},
    names::{DatabaseId, NodeId, Thumbprint, Timestamp},
};

/// A registered certificate: all that a decision needs to know of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Registration {
    /// SHA-256 of the DER.
    pub thumbprint: Thumbprint,
    /// What people call it; never an identity.
    pub name: String,
    /// What it may do to the cluster.
    pub clearance: Clearance,
    /// What a User may do to which database. Bound to database ids, so a namesake of a deleted database is closed.
    pub grants: BTreeMap<DatabaseId, Access>,
    /// First moment of validity, from the certificate.
    pub not_before: Timestamp,
    /// Last moment of validity, from the certificate.
    pub not_after: Timestamp,
    /// Switched off by an administrator.
    pub disabled: bool,
    /// Log index of the last change of this record.
    pub revision: u64,
    /// The member whose node certificate this is.
    pub node: Option<NodeId>,
    /// The confirmed second factor; `None`: nothing but the certificate is asked for.
    pub second_factor: Option<SecondFactor>,
    /// The certificate; compared byte for byte with the presented one.
    pub der: Arc<[u8]>,
}

impl Registration {
    /// The access of this certificate to a database; Operators and above have Admin everywhere.
    #[must_use]
    pub fn access(&self, database: DatabaseId) -> Option<Access> {
        if self.clearance.covers(Clearance::Operator) {
            return Some(Access::Admin);
        }
        self.grants.get(&database).copied()
    }

    /// Whether it is the node certificate of a member: nodes have no second factor.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.clearance == Clearance::ClusterNode && self.node.is_some()
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("thumbprint", &self.thumbprint)
            .field("name", &self.name)
            .field("clearance", &self.clearance)
            .field("grants", &self.grants)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("disabled", &self.disabled)
            .field("revision", &self.revision)
            .field("node", &self.node)
            .field("second_factor", &self.second_factor)
            .finish_non_exhaustive()
    }
}

/// Who asks. Whoever builds one has compared the presented DER with the registered one.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// No certificate was presented.
    Anonymous,
    /// A certificate that is not registered.
    Unknown(Thumbprint),
    /// A registered certificate. Where its session needs a token, that came with the call, or a member vouches for it.
    Registered(&'a Registration),
    /// A registered certificate that lacks a part of its second factor.
    Unproven(&'a Registration, Gap),
}

impl Caller<'_> {
    /// The thumbprint of the presented certificate.
    #[must_use]
    pub fn thumbprint(&self) -> Option<Thumbprint> {
        match self {
            Self::Anonymous => None,
            Self::Unknown(thumbprint) => Some(*thumbprint),
            Self::Registered(registration) | Self::Unproven(registration, _) => {
                Some(registration.thumbprint)
            }
        }
    }
}

impl<'a> Caller<'a> {
    /// The registration of the presented certificate, whatever its second factor.
    #[must_use]
    pub fn registration(&self) -> Option<&'a Registration> {
        match self {
            Self::Anonymous | Self::Unknown(_) => None,
            Self::Registered(registration) | Self::Unproven(registration, _) => Some(registration),
        }
    }
}
