//! Deletes what has expired, as far as the author may delete it.
//!
//! An entry goes when all its certificates have expired. While one of them is in force, the expired secondaries go and
//! the primary stays, for it names the entry. Each entry is held to the rules of a deletion: Operators leave what is
//! above Operator, nobody touches their own entry, the certificate of a member, or the last Cluster Admin.

use std::sync::Arc;

use rookery_proto::log::v1::{
    PurgeCertificates, PurgedCertificates, SecondaryRecord, cluster_outcome,
};

use crate::{
    authz::{
        Clearance, Registration,
        certificates_rules::{self, Action, Target},
    },
    cluster::{Applying, Certificate, Error, Outcome, check},
    names::{Thumbprint, Timestamp},
};

impl Applying<'_, '_> {
    pub(super) fn purge_certificates(
        &mut self,
        actor: &Registration,
        purge: &PurgeCertificates,
    ) -> Outcome {
        let at = self.entry.at;
        let limit = check::purge_limit(purge.limit)?;
        let (chosen, kept, more) = self.choose_expired(actor, limit);
        let mut thumbprints = Vec::new();
        for primary in chosen {
            thumbprints.extend(self.purge_entry(&primary, at)?);
        }
        thumbprints.sort_unstable();
        let thumbprints = thumbprints.iter().map(|it| it.as_bytes().to_vec()).collect();
        let purged = PurgedCertificates { thumbprints, more, kept };
        Ok(cluster_outcome::Outcome::PurgedCertificates(purged))
    }

    /// The entries to purge, how many expired certificates are not the author's to delete, and whether some that are
    /// were left for the next call.
    fn choose_expired(
        &self,
        actor: &Registration,
        limit: usize,
    ) -> (Vec<Arc<Certificate>>, u64, bool) {
        let at = self.entry.at;
        // Expired certificates are no administrators in force, so this does not change while they go.
        let has_cluster_admin = self.registry.has_cluster_admin(at);
        let (mut chosen, mut kept, mut more) = (Vec::new(), 0, false);
        for primary in self.registry.entries().expired(at) {
            let clearance = primary.registration.clearance;
            let named = Target {
                clearance: Some(clearance),
                is_last_cluster_admin: clearance == Clearance::ClusterAdmin && !has_cluster_admin,
                ..self.registry.ownership(primary, Some(actor.thumbprint))
            };
            let allowed = certificates_rules::decide(actor.clearance, Action::Delete, &named);
            let expired = self.expired_of(primary, at);
            if allowed.is_err() {
                kept += expired as u64;
            } else if self.may_go(primary, expired) {
                if chosen.len() == limit {
                    more = true;
                } else {
                    chosen.push(Arc::clone(primary));
                }
            }
        }
        (chosen, kept, more)
    }

    fn expired_of(&self, primary: &Certificate, at: Timestamp) -> usize {
        self.registry.entry(primary).filter(|it| at > it.registration.not_after).count()
    }

    /// Whether anything goes: not where the primary alone has expired and a secondary is in force.
    fn may_go(&self, primary: &Certificate, expired: usize) -> bool {
        if self.nothing_declared(primary).is_err() {
            return false;
        }
        let all = 1 + primary.entry.secondaries.len();
        expired == all || expired > usize::from(self.entry.at > primary.registration.not_after)
    }

    fn purge_entry(
        &mut self,
        primary: &Certificate,
        at: Timestamp,
    ) -> Result<Vec<Thumbprint>, Error> {
        let entry: Vec<_> = self
            .registry
            .entry(primary)
            .map(|it| (it.registration.thumbprint, at > it.registration.not_after))
            .collect();
        if entry.iter().all(|(_, expired)| *expired) {
            self.forget_certificate(&primary.primary)?;
            return Ok(entry.into_iter().map(|(thumbprint, _)| thumbprint).collect());
        }
        let mut record = self.record(&primary.primary)?;
        let expired = |it: &SecondaryRecord| at.0 > it.not_after_unix_ms;
        let gone = record.secondaries.iter().filter(|it| expired(it));
        let gone = gone
            .map(|it| Thumbprint::from_bytes(&it.thumbprint))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Error::corrupt("certificate", e))?;
        record.secondaries.retain(|it| !expired(it));
        record.revision = self.entry.index;
        self.store_certificate(record)?;
        Ok(gone)
    }
}
