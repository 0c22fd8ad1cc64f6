//! What stands around the certificates: the security policy, well-known admins, keys that may not come back, last use.
//!
//! | file | what it does |
//! | --- | --- |
//! | `trust` | the state, as a part of the registry |
//! | `policy` | commands: set the policy, declare well-known admins |
//! | `renewal` | the command that registers a renewed certificate, and the tombstones that forbid it |
//! | `uses` | commands of nodes: what was used, what was told of expiry |
//! | `owner` | the command of whoever owns a node's files |
//! | `check` | what each of these must be like whatever the registry says |
//!
//! **Invariant:** uses stand outside the registry's revision: they change no etag and no decision.

pub(super) mod check;
mod owner;
mod policy;
pub(super) mod renewal;
mod uses;

use std::{collections::BTreeMap, sync::Arc};

use imbl::{OrdMap, OrdSet};
use rookery_proto::log::v1::{
    SecurityPolicyRecord, TombstoneRecord, TrustRecord, UseRecord, trust_record,
};

use crate::{
    authz::{self, Clearance, Registration},
    certificates::KeyDigest,
    cluster::{Registry, records},
    names::{NodeId, Thumbprint, Timestamp},
    results::Error,
    storage::{Read, Space},
};

pub use uses::{THRESHOLDS, expiry_threshold};

/// What well-known admins are called in the registry.
const WELL_KNOWN_NAME: &str = "well-known admin";

/// How a certificate may follow another one of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Renewal {
    /// Not by itself: an administrator registers every certificate.
    #[default]
    Explicit,
    /// By the key and the issuer of a registered one.
    SameKeySameIssuer,
}

impl Renewal {
    /// The number on the wire and in the log.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Explicit => 1,
            Self::SameKeySameIssuer => 2,
        }
    }

    /// The renewal of a number; 0 is none.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        [Self::Explicit, Self::SameKeySameIssuer].into_iter().find(|one| one.number() == number)
    }
}

/// The security policy of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecurityPolicy {
    /// Whether certificates renew themselves.
    pub renewal: Renewal,
    /// Whether those of Cluster Admins do.
    pub renewal_for_cluster_admin: bool,
    /// Certificates of these clearances need a second factor; weakest first.
    pub second_factor_required_for: Vec<Clearance>,
    /// Log index of the last change; 0: never set.
    pub revision: u64,
}

impl TryFrom<SecurityPolicyRecord> for SecurityPolicy {
    type Error = Error;

    fn try_from(record: SecurityPolicyRecord) -> Result<Self, Error> {
        let corrupt = |why: String| Error::corrupt("security policy", why);
        let renewal =
            Renewal::of(record.renewal).ok_or_else(|| corrupt("its renewal is unknown".into()))?;
        let clearances = record.second_factor_required_for.into_iter().map(Clearance::try_from);
        Ok(Self {
            renewal,
            renewal_for_cluster_admin: record.renewal_for_cluster_admin,
            second_factor_required_for: clearances
                .collect::<Result<_, _>>()
                .map_err(|e| corrupt(e.to_string()))?,
            revision: record.revision,
        })
    }
}

/// When and where a certificate was last accepted, and what was told of its expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastUse {
    /// To the minute; 0: not yet.
    pub at: Timestamp,
    /// The node that was called.
    pub node: NodeId,
    /// The last threshold of expiry, in days, that was told.
    pub told: Option<u32>,
}

impl LastUse {
    fn of(record: &UseRecord) -> Self {
        Self {
            at: Timestamp(record.at_unix_ms),
            node: NodeId(record.node_id),
            told: record.told.checked_sub(1),
        }
    }

    fn record(self, thumbprint: &Thumbprint) -> UseRecord {
        UseRecord {
            thumbprint: thumbprint.as_bytes().to_vec(),
            at_unix_ms: self.at.0,
            node_id: self.node.0,
            told: self.told.map_or(0, |days| days + 1),
        }
    }
}

/// A thumbprint that nodes declare, and whether it opens anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WellKnownAdmin {
    /// SHA-256 of the certificate.
    pub thumbprint: Thumbprint,
    /// The members that declare it.
    pub nodes: Vec<NodeId>,
    /// False where a registered certificate of this thumbprint decides instead.
    pub in_force: bool,
}

/// This part of the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) policy: Arc<SecurityPolicy>,
    declared: OrdMap<NodeId, Arc<[Thumbprint]>>,
    /// Made from `declared`.
    pub(super) well_known: OrdMap<Thumbprint, Arc<Registration>>,
    keys: OrdMap<KeyDigest, OrdSet<Thumbprint>>,
    tombstones: OrdSet<KeyDigest>,
    pub(super) uses: OrdMap<Thumbprint, LastUse>,
}

impl Trust {
    pub(super) fn has_key(&mut self, key: KeyDigest, thumbprint: Thumbprint) {
        self.keys.entry(key).or_default().insert(thumbprint);
    }

    pub(super) fn lost_key(&mut self, key: KeyDigest, thumbprint: &Thumbprint) {
        let Some(holders) = self.keys.get_mut(&key) else { return };
        holders.remove(thumbprint);
        if holders.is_empty() {
            self.keys.remove(&key);
        }
    }

    /// Everything that `node` declares from now on.
    pub(super) fn declare(&mut self, node: NodeId, thumbprints: &[Thumbprint]) {
        if thumbprints.is_empty() {
            self.declared.remove(&node);
        } else {
            self.declared.insert(node, thumbprints.into());
        }
        let all = self.declared.values().flat_map(|declared| declared.iter().copied());
        self.well_known = all.map(|it| (it, Arc::new(well_known(it)))).collect();
    }

    fn set(&mut self, record: TrustRecord) -> Result<(), Error> {
        match record.record {
            Some(trust_record::Record::Policy(policy)) => {
                self.policy = Arc::new(SecurityPolicy::try_from(policy)?);
            }
            Some(trust_record::Record::WellKnownAdmins(declared)) => {
                let thumbprints = declared.thumbprints.iter();
                let thumbprints = thumbprints
                    .map(|bytes| Thumbprint::from_bytes(bytes))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|e| Error::corrupt("trust", e))?;
                self.declare(NodeId(declared.node_id), &thumbprints);
            }
            None => return Err(Error::corrupt("trust", "it holds nothing")),
        }
        Ok(())
    }

    fn set_use(&mut self, record: &UseRecord) -> Result<(), Error> {
        let thumbprint =
            Thumbprint::from_bytes(&record.thumbprint).map_err(|e| Error::corrupt("use", e))?;
        self.uses.insert(thumbprint, LastUse::of(record));
        Ok(())
    }

    fn set_tombstone(&mut self, record: &TombstoneRecord) -> Result<(), Error> {
        let key = KeyDigest::from_bytes(&record.key_digest)
            .ok_or_else(|| Error::corrupt("tombstone", "its digest has another length"))?;
        self.tombstones.insert(key);
        Ok(())
    }
}

/// A Cluster Admin of whom nothing but the thumbprint is known. The dates stand in the certificate that is presented;
/// the edge holds them against the clock, because only there the certificate is at hand.
fn well_known(thumbprint: Thumbprint) -> Registration {
    Registration {
        thumbprint,
        name: WELL_KNOWN_NAME.to_owned(),
        clearance: Clearance::ClusterAdmin,
        grants: BTreeMap::new(),
        not_before: Timestamp(i64::MIN),
        not_after: Timestamp(i64::MAX),
        disabled: false,
        revision: 0,
        node: None,
        second_factor: None,
        der: Arc::from(&[][..]),
    }
}

/// Reads this part of the registry from the records of a space; nodes and certificates are there.
pub(super) fn load(registry: &mut Registry, read: &dyn Read, space: Space) -> Result<(), Error> {
    let trust = &mut registry.trust;
    records::all::<TrustRecord>(read, space, |record| trust.set(record))?;
    records::all::<TombstoneRecord>(read, space, |record| trust.set_tombstone(&record))?;
    records::all::<UseRecord>(read, space, |record| trust.set_use(&record))
}

impl Registry {
    /// The security policy.
    #[must_use]
    pub fn policy(&self) -> &SecurityPolicy {
        &self.trust.policy
    }

    /// Whether a thumbprint is a Cluster Admin because members declare it, and no registered certificate says otherwise.
    #[must_use]
    pub fn is_well_known(&self, thumbprint: &Thumbprint) -> bool {
        self.trust.well_known.contains_key(thumbprint) && self.certificate(thumbprint).is_none()
    }

    /// Whether members declare a thumbprint, registered or not.
    #[must_use]
    pub fn is_declared(&self, thumbprint: &Thumbprint) -> bool {
        self.trust.well_known.contains_key(thumbprint)
    }

    /// What a node declares.
    #[must_use]
    pub fn declared_by(&self, node: NodeId) -> &[Thumbprint] {
        self.trust.declared.get(&node).map_or(&[], |declared| declared)
    }

    /// Every declared thumbprint, in order.
    #[must_use]
    pub fn well_known_admins(&self) -> Vec<WellKnownAdmin> {
        let admin = |thumbprint: &Thumbprint| WellKnownAdmin {
            thumbprint: *thumbprint,
            nodes: self
                .trust
                .declared
                .iter()
                .filter(|(_, declared)| declared.contains(thumbprint))
                .map(|(node, _)| *node)
                .collect(),
            in_force: self.is_well_known(thumbprint),
        };
        self.trust.well_known.keys().map(admin).collect()
    }

    /// When a certificate was last used; `None` where nothing is known of it.
    #[must_use]
    pub fn last_use(&self, thumbprint: &Thumbprint) -> Option<LastUse> {
        self.trust.uses.get(thumbprint).copied()
    }

    /// Whether `other` holds the same uses; cheap, and never yes where they differ.
    pub(super) fn same_uses(&self, other: &Self) -> bool {
        self.trust.uses.ptr_eq(&other.trust.uses)
    }
}

/// Well-known admins of `before` that may do less in `after`.
pub(super) fn lost_rights<'a>(
    before: &'a Registry,
    after: &'a Registry,
) -> impl Iterator<Item = Thumbprint> + 'a {
    let still = |thumbprint: &Thumbprint| {
        after
            .identity(thumbprint)
            .is_some_and(|now| now.clearance.covers(Clearance::ClusterAdmin) && !now.disabled)
    };
    let well_known = before.trust.well_known.keys().copied();
    well_known.filter(move |thumbprint| before.is_well_known(thumbprint) && !still(thumbprint))
}

/// Whether a certificate hands its rights on by renewal at this moment.
fn hands_on(registration: &Registration, at: Timestamp) -> bool {
    authz::state(registration, at) == authz::State::Valid
}
