//! Renewal by the same key and the same issuer, and the tombstones of keys that may not come back by it.
//!
//! ```text
//! unknown certificate ─► policy? ─► dates? ─► tombstone? ─► sibling: same key, same issuer, in force ─► its clearance?
//! ```
//!
//! The node whose handshake proved the key asks; the policy of the cluster is what allows it. The new certificate gets
//! everything that the sibling has, its second factor too, but no session of it. Of one key at most [`limits::RENEWALS_PER_KEY_MAX`] certificates
//! of one issuer are kept: those that expire last.
//!
//! **Invariant:** who deletes or disables a certificate has done with its key: no certificate of it comes back unless
//! an administrator registers it. Only an expired one that was already followed by another leaves its key alone.

use std::sync::Arc;

use rookery_proto::log::v1::{
    CertificateRecord, Refusal, RenewCertificate, SecondFactorRecord, TombstoneRecord,
    cluster_outcome,
};

use super::{Renewal, hands_on};
use crate::{
    authz::{Clearance, Registration, SKEW_MS, State, state},
    certificates::{self, KeyDigest, Parsed},
    cluster::{Applying, Certificate, Error, Outcome, Registry, check, records},
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
    key: KeyDigest,
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
    let sibling = registry
        .siblings(&key, der)
        .filter(|it| hands_on(&it.registration, at))
        .max_by_key(|sibling| (sibling.registration.not_after, sibling.registration.thumbprint));
    let sibling = sibling.ok_or_else(|| {
        refused("no certificate of this key and issuer is registered and in force")
    })?;
    match sibling.registration.clearance {
        Clearance::User | Clearance::Operator => {}
        Clearance::ClusterAdmin if policy.renewal_for_cluster_admin => {}
        Clearance::ClusterAdmin => return Err(refused("the policy does not renew Cluster Admins")),
        Clearance::ClusterNode => return Err(refused("Cluster Nodes are never renewed")),
    }
    Ok(Renewable { parsed, sibling: Arc::clone(sibling), key })
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
        let Renewable { parsed, sibling, key } =
            renewable(self.registry, &renew.der, self.entry.at)?;
        let excess = self.excess(&parsed, &key, &renew.der)?;
        let second_factor = self.registry.second_factor(&sibling.primary).cloned();
        self.renews = true;
        for thumbprint in excess {
            self.forget_certificate(&thumbprint)?;
        }
        let old: CertificateRecord = records::require(self.state, sibling.primary.as_bytes())?;
        // All that was decided about the sibling holds for the new one; only what is the certificate's own is new.
        let record = CertificateRecord {
            thumbprint: parsed.thumbprint.as_bytes().to_vec(),
            der: renew.der.clone(),
            not_before_unix_ms: parsed.not_before.0,
            not_after_unix_ms: parsed.not_after.0,
            created_unix_ms: self.entry.at.0,
            created_by: self.author(),
            revision: self.entry.index,
            key_digest: key.as_bytes().to_vec(),
            generated: false,
            secondaries: Vec::new(),
            ..old
        };
        self.store_certificate(record.clone())?;
        if let Some(followed) = second_factor.filter(|it| it.confirmed) {
            // Sealed for the first of them, as `sealed_for` keeps saying; what was used of it stays used.
            self.store_second_factor(SecondFactorRecord {
                thumbprint: record.thumbprint.clone(),
                session: None,
                ..SecondFactorRecord::clone(&followed)
            })?;
        }
        Ok(cluster_outcome::Outcome::Certificate(record))
    }

    /// The certificates that make room for a new one: of its key and issuer, those that expire first.
    fn excess(
        &self,
        parsed: &Parsed,
        key: &KeyDigest,
        der: &[u8],
    ) -> Result<Vec<Thumbprint>, Refusal> {
        let mut kept: Vec<(Timestamp, Thumbprint)> = self
            .registry
            .siblings(key, der)
            // An entry of several certificates goes as a whole or not at all.
            .filter(|it| !it.is_secondary() && it.entry.secondaries.is_empty())
            .map(|it| (it.registration.not_after, it.registration.thumbprint))
            .collect();
        kept.sort_unstable();
        let excess = (kept.len() + 1).saturating_sub(limits::RENEWALS_PER_KEY_MAX);
        let first = kept.first().filter(|_| excess > 0);
        if first.is_some_and(|(not_after, _)| parsed.not_after <= *not_after) {
            return Err(refused(
                "enough certificates of this key that expire later are registered",
            ));
        }
        Ok(kept.into_iter().take(excess).map(|(_, thumbprint)| thumbprint).collect())
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
            if !self.renews && !self.is_followed(&deleted) {
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
            if !self.is_followed(&stored) {
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
