//! Renewal by the same key and the same issuer, and the tombstones of keys that may not come back by it.
//!
//! ```text
//! unknown certificate ─► policy? ─► dates? ─► tombstone? ─► sibling: same key, same issuer, in force ─► its clearance?
//! ```
//!
//! The node whose handshake proved the key asks; the policy of the cluster is what allows it. The new certificate becomes
//! a secondary of its sibling's entry, so whatever is done to that entry, before or after, is done to it too: rights,
//! second factor, disabling, deletion. An entry keeps [`limits::RENEWALS_PER_KEY_MAX`] secondaries of one key: those
//! that expire last. No other entry is touched: who uploads a certificate with somebody else's public key gets that
//! key's renewals refused, and nothing more.
//!
//! **Invariant:** who deletes or disables a certificate has done with its key: no certificate of it comes back unless
//! an administrator registers it. Only an expired one that was already followed by another leaves its key alone.

use std::sync::Arc;

use rookery_proto::log::v1::{CertificateRecord, Refusal, RenewCertificate, TombstoneRecord};

use super::{Renewal, hands_on};
use crate::{
    authz::{Clearance, Registration, SKEW_MS, State, state},
    certificates::{self, KeyDigest, Parsed},
    cluster::{
        Applying, Certificate, Error, Outcome, Registry, certificates::secondary_record, check,
        records,
    },
    limits,
    names::{Thumbprint, Timestamp},
    results::refusal,
};

/// A certificate that may be registered without an administrator, and the one it follows.
#[derive(Debug, Clone)]
pub struct Renewable {
    /// The new one.
    pub parsed: Parsed,
    /// Whose rights it gets.
    pub sibling: Arc<Certificate>,
    /// The digest of the key of both.
    pub key: KeyDigest,
    /// Leaves the entry to make room for it.
    leaves: Option<Thumbprint>,
}

fn refused(why: &str) -> Refusal {
    refusal("RENEWAL_REFUSED", why)
}

/// Whether an unknown certificate renews a registered one, by the policy of this registry.
///
/// # Errors
/// `RENEWAL_REFUSED` with the first step that forbids it.
pub fn renewable(registry: &Registry, der: &[u8], at: Timestamp) -> Result<Renewable, Refusal> {
    let policy = registry.policy();
    if policy.renewal == Renewal::Explicit {
        return Err(refused("certificates are registered by administrators only"));
    }
    let parsed = check::certificate("der", der)?;
    let key = certificates::key_digest(der).map_err(|e| check::invalid("der", e))?;
    if registry.identity(&parsed.thumbprint).is_some() {
        return Err(refused("this certificate is registered already"));
    }
    if parsed.not_before.0 > at.0.saturating_add(SKEW_MS) || parsed.not_after < at {
        return Err(refused("the certificate is not in force at this moment"));
    }
    if registry.trust.tombstones.contains(&key) {
        return Err(refused("a certificate of this key was deleted or disabled"));
    }
    let heirs: Vec<_> =
        registry.siblings(&key, der).filter(|it| hands_on(&it.registration, at)).collect();
    let sibling = heirs
        .iter()
        .copied()
        .max_by_key(|sibling| (sibling.registration.not_after, sibling.registration.thumbprint));
    let sibling = sibling.ok_or_else(|| {
        refused("no certificate of this key and issuer is registered and in force")
    })?;
    if heirs.iter().any(|other| other.primary != sibling.primary) {
        return Err(refused("several entries hold certificates of this key and issuer"));
    }
    match sibling.registration.clearance {
        Clearance::User | Clearance::Operator => {}
        Clearance::ClusterAdmin if policy.renewal_for_cluster_admin => {}
        Clearance::ClusterAdmin => return Err(refused("the policy does not renew Cluster Admins")),
        Clearance::ClusterNode => return Err(refused("Cluster Nodes are never renewed")),
    }
    let leaves = room(registry, sibling, &parsed, &key)?;
    Ok(Renewable { parsed, sibling: Arc::clone(sibling), key, leaves })
}

/// Which secondary of the sibling's entry makes room for one more of this key: none, or the one that expires first.
fn room(
    registry: &Registry,
    sibling: &Certificate,
    parsed: &Parsed,
    key: &KeyDigest,
) -> Result<Option<Thumbprint>, Refusal> {
    let of_key = registry.entry(sibling).filter(|it| it.is_secondary() && it.key == *key);
    let mut kept: Vec<(Timestamp, Thumbprint)> =
        of_key.map(|it| (it.registration.not_after, it.registration.thumbprint)).collect();
    kept.sort_unstable();
    let leaves = match kept.first() {
        Some((not_after, first)) if kept.len() >= limits::RENEWALS_PER_KEY_MAX => {
            if parsed.not_after <= *not_after {
                let why = "enough certificates of this key that expire later are registered";
                return Err(refused(why));
            }
            Some(*first)
        }
        Some(_) | None => None,
    };
    let others = sibling.entry.secondaries.len();
    if leaves.is_none() && 1 + others >= limits::ENTRY_CERTIFICATES_MAX {
        return Err(refused("the entry has as many certificates as one may have"));
    }
    Ok(leaves)
}

impl Registry {
    /// Registered certificates of a key and of the issuer of `der`.
    fn siblings<'a>(
        &'a self,
        key: &KeyDigest,
        der: &'a [u8],
    ) -> impl Iterator<Item = &'a Arc<Certificate>> {
        let holders = self.trust.keys.get(key).into_iter().flat_map(|holders| holders.iter());
        holders.filter_map(|thumbprint| self.certificate_details(thumbprint)).filter(|sibling| {
            certificates::same_issuer(&sibling.registration.der, der).unwrap_or(false)
        })
    }
}

impl Applying<'_, '_> {
    pub(in crate::cluster) fn renew(&mut self, renew: &RenewCertificate) -> Outcome {
        let Renewable { parsed, sibling, key: _, leaves } =
            renewable(self.registry, &renew.der, self.entry.at)?;
        let old = self.record(&sibling.primary)?;
        let mut record = old.clone();
        if let Some(leaves) = leaves {
            record.secondaries.retain(|it| it.thumbprint != leaves.as_bytes());
        }
        record.secondaries.push(secondary_record(&parsed));
        self.renews = true;
        self.changed(&old, record)
    }

    /// What was declared as a well-known admin would be one again without its registration, so that stays.
    pub(in crate::cluster) fn not_declared(&self, gone: &Certificate) -> Result<(), Refusal> {
        if !self.registry.is_declared(&gone.registration.thumbprint) {
            return Ok(());
        }
        let message = "nodes declare this certificate as a well-known admin, and without its registration it would be \
                       a Cluster Admin: take it out of their configuration first, or disable it here";
        Err(refusal("WELL_KNOWN", message))
    }

    /// A disabled certificate's key does not come back.
    pub(in crate::cluster) fn bury_disabled(
        &mut self,
        thumbprint: &Thumbprint,
    ) -> Result<(), Error> {
        for stored in self.whole_entry(thumbprint) {
            if stored.registration.disabled {
                self.bury(&stored)?;
            }
        }
        Ok(())
    }

    /// A deleted certificate's key does not come back.
    pub(in crate::cluster) fn bury_deleted(
        &mut self,
        thumbprint: &Thumbprint,
    ) -> Result<(), Error> {
        for deleted in self.whole_entry(thumbprint) {
            if !self.is_followed(&deleted) {
                self.bury(&deleted)?;
            }
        }
        Ok(())
    }

    /// A secondary that its entry has no more is deleted like any other, and its uses are forgotten.
    pub(in crate::cluster) fn bury_left_out(
        &mut self,
        primary: &Thumbprint,
        next: &CertificateRecord,
    ) -> Result<(), Error> {
        for stored in self.whole_entry(primary) {
            let thumbprint = stored.registration.thumbprint;
            let stays = thumbprint == *primary
                || next.secondaries.iter().any(|it| it.thumbprint == thumbprint.as_bytes());
            if stays {
                continue;
            }
            if !self.renews && !self.is_followed(&stored) {
                self.bury(&stored)?;
            }
            self.forget_use(&thumbprint)?;
        }
        Ok(())
    }

    /// All certificates of the entry that this one belongs to.
    fn whole_entry(&self, thumbprint: &Thumbprint) -> Vec<Arc<Certificate>> {
        let named = self.registry.certificate_details(thumbprint);
        named.map_or_else(Vec::new, |named| self.registry.entry(named).cloned().collect())
    }

    /// Whether it expired and another one of its key and issuer is in force.
    fn is_followed(&self, deleted: &Certificate) -> bool {
        let Registration { der, thumbprint, .. } = &*deleted.registration;
        state(&deleted.registration, self.entry.at) == State::Expired
            && self.registry.siblings(&deleted.key, der).any(|sibling| {
                sibling.registration.thumbprint != *thumbprint
                    && hands_on(&sibling.registration, self.entry.at)
            })
    }

    fn bury(&mut self, certificate: &Certificate) -> Result<(), Error> {
        let never_renewed = certificate.registration.clearance == Clearance::ClusterNode;
        if never_renewed || self.registry.trust.tombstones.contains(&certificate.key) {
            return Ok(());
        }
        let record = TombstoneRecord {
            key_digest: certificate.key.as_bytes().to_vec(),
            at_unix_ms: self.entry.at.0,
        };
        self.changed = true;
        records::put(self.state, &record)?;
        self.registry.trust.set_tombstone(&record)
    }
}
