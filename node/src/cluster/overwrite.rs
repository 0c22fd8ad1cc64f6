//! An upload over an entry that is there: an edit of all that it holds, by the rules of an edit.
//!
//! The entry becomes what was uploaded. It keeps when and by whom it was registered, and whether it is disabled: who
//! uploads a disabled certificate again has not enabled it.

use std::collections::BTreeSet;

use rookery_proto::log::v1::{CertificateRecord, PutCertificate, Refusal};

use crate::{
    authz::{
        DeniedReason, Registration,
        certificates_rules::{Action, Target},
    },
    cluster::{
        Applying, Certificate, Outcome,
        certificates::{confirmed, decide, expect_revision, is_primary},
        check::{self, Collection},
    },
    names::Thumbprint,
    results::refusal_at,
};

impl Applying<'_, '_> {
    /// `registered` is the certificate that the upload calls its primary.
    pub(super) fn overwrite_certificate(
        &mut self,
        actor: &Registration,
        put: &PutCertificate,
        collection: &Collection,
        registered: &Certificate,
    ) -> Outcome {
        let target = Target {
            requested: Some(check::clearance("clearance", put.clearance)?),
            sets_grants: true,
            sets_remarks: true,
            ..self.registry.target(registered, Some(actor.thumbprint), self.entry.at)
        };
        decide(actor, Action::Upload, &target)?;
        is_primary(registered)?;
        confirmed(&target, put.confirm_self_demotion)?;
        for (field, parsed) in collection.all() {
            self.not_well_known(&parsed.thumbprint)?;
            let here = self.registry.certificate_details(&parsed.thumbprint);
            if here.is_none_or(|here| here.primary != registered.primary) {
                self.not_registered(&parsed.thumbprint, &field)?;
            }
        }
        let kept: BTreeSet<_> = collection.all().map(|(_, parsed)| parsed.thumbprint).collect();
        self.keeps_the_callers(actor, &kept, &target)?;
        for gone in self.registry.entry(registered) {
            if !kept.contains(&gone.registration.thumbprint) {
                self.not_declared(gone)?;
            }
        }
        let old = self.record(&registered.primary)?;
        expect_revision(put.expected_revision, old.revision)?;
        let record = CertificateRecord {
            grants: self.resolve(&put.grants)?,
            disabled: old.disabled,
            created_unix_ms: old.created_unix_ms,
            created_by: old.created_by.clone(),
            generated: old.generated,
            revision: old.revision,
            node_id: old.node_id,
            ..self.new_record(put, collection)
        };
        self.keeps_an_administrator(&target, &record)?;
        self.changed(&old, record)
    }

    /// Nobody drops the certificate they call with.
    fn keeps_the_callers(
        &self,
        actor: &Registration,
        kept: &BTreeSet<Thumbprint>,
        target: &Target,
    ) -> Result<(), Refusal> {
        if !target.is_self || kept.contains(&actor.thumbprint) {
            return Ok(());
        }
        let message = "the certificate you call with belongs to this entry and is not in the upload; nobody takes \
                       their own certificate away";
        Err(refusal_at(DeniedReason::OwnCertificate.code(), "secondaries", message))
    }

    /// The last Cluster Admin keeps a certificate that is in force.
    fn keeps_an_administrator(
        &self,
        target: &Target,
        record: &CertificateRecord,
    ) -> Result<(), Refusal> {
        let at = self.entry.at.0;
        let in_force = |from: i64, to: i64| from <= at && at <= to && !record.disabled;
        let keeps = in_force(record.not_before_unix_ms, record.not_after_unix_ms)
            || (record.secondaries.iter())
                .any(|it| in_force(it.not_before_unix_ms, it.not_after_unix_ms));
        if !target.is_last_cluster_admin || keeps {
            return Ok(());
        }
        let message = "this is the last Cluster Admin, and none of the uploaded certificates is in force at this \
                       moment; register another Cluster Admin first";
        Err(refusal_at(DeniedReason::LastClusterAdmin.code(), "der", message))
    }
}
