//! Commands on certificates: register, edit, delete.

use rookery_proto::log::v1::{
    CertificateRecord, DeleteCertificate, EditCertificate, GrantByName, GrantRecord,
    PutCertificate, Refusal, cluster_outcome,
};

use crate::{
    authz::{
        Access, Clearance, Registration,
        certificates_rules::{self, Action, Target},
    },
    certificates::{self, Parsed},
    cluster::{Applying, Outcome, Registry, check, denial, done, records},
    names::Thumbprint,
    results::{refusal, refusal_at, with},
};

impl Applying<'_, '_> {
    pub(super) fn put_certificate(
        &mut self,
        actor: &Registration,
        put: &PutCertificate,
    ) -> Outcome {
        let parsed = check::check_put(put, "")?;
        let action = if put.generated { Action::Generate } else { Action::Upload };
        let target = Target {
            requested: Some(check::clearance("clearance", put.clearance)?),
            is_current_member: self.registry.member(&parsed.thumbprint).is_some(),
            ..Target::default()
        };
        decide(actor, action, &target)?;
        self.not_well_known(&parsed.thumbprint)?;
        self.not_registered(&parsed.thumbprint, "der")?;
        let grants = self.resolve(&put.grants)?;
        let record = CertificateRecord { grants, ..self.new_record(put, &parsed) };
        self.store_certificate(record.clone())?;
        Ok(cluster_outcome::Outcome::Certificate(record))
    }

    pub(super) fn not_registered(
        &self,
        thumbprint: &Thumbprint,
        field: &str,
    ) -> Result<(), Refusal> {
        if self.registry.certificate(thumbprint).is_none() {
            return Ok(());
        }
        let message = "this certificate is registered already; edit it instead";
        Err(with(refusal_at("ALREADY_EXISTS", field, message), "thumbprint", thumbprint))
    }

    /// The record of a new certificate, without grants.
    pub(super) fn new_record(&self, put: &PutCertificate, parsed: &Parsed) -> CertificateRecord {
        CertificateRecord {
            thumbprint: parsed.thumbprint.as_bytes().to_vec(),
            der: put.der.clone(),
            name: put.name.clone(),
            clearance: put.clearance,
            grants: Vec::new(),
            not_before_unix_ms: parsed.not_before.0,
            not_after_unix_ms: parsed.not_after.0,
            disabled: false,
            created_unix_ms: self.entry.at.0,
            created_by: self.author(),
            revision: self.entry.index,
            generated: put.generated,
            node_id: 0,
            key_digest: certificates::key_digest(&parsed.der)
                .map_or_else(|_| Vec::new(), |key| key.as_bytes().to_vec()),
        }
    }

    /// Binds grants by name to the ids of databases that exist, in the order of the ids.
    fn resolve(&self, grants: &[GrantByName]) -> Result<Vec<GrantRecord>, Refusal> {
        let mut resolved = Vec::with_capacity(grants.len());
        for (place, (name, access)) in check::grants(grants)?.iter().enumerate() {
            let database = self.registry.database(name).ok_or_else(|| {
                let field = format!("grants[{place}].database");
                refusal_at("NOT_FOUND", field, format!("there is no database {name}"))
            })?;
            resolved.push(GrantRecord { database_id: database.id, access: access.number() });
        }
        resolved.sort_unstable_by_key(|grant| grant.database_id);
        Ok(resolved)
    }

    pub(super) fn edit_certificate(
        &mut self,
        actor: &Registration,
        edit: &EditCertificate,
    ) -> Outcome {
        let (thumbprint, target) = self.target(actor, &edit.thumbprint)?;
        let requested = edit.clearance.map(|number| check::clearance("clearance", number));
        let requested = requested.transpose()?;
        let target = Target { requested, sets_grants: edit.set_grants, ..target };
        decide(actor, Action::Edit, &target)?;
        let old: CertificateRecord = records::require(self.state, thumbprint.as_bytes())?;
        expect_revision(edit.expected_revision, old.revision)?;
        let mut record = old.clone();
        if let Some(name) = &edit.name {
            record.name.clone_from(name);
        }
        if let Some(clearance) = requested {
            record.clearance = clearance.number();
        }
        if edit.set_grants {
            record.grants = self.resolve(&edit.grants)?;
        }
        if record != old {
            record.revision = self.entry.index;
            self.store_certificate(record.clone())?;
        }
        Ok(cluster_outcome::Outcome::Certificate(record))
    }

    pub(super) fn delete_certificate(
        &mut self,
        actor: &Registration,
        delete: &DeleteCertificate,
    ) -> Outcome {
        let (thumbprint, target) = self.target(actor, &delete.thumbprint)?;
        decide(actor, Action::Delete, &target)?;
        self.forget_certificate(&thumbprint)?;
        Ok(done())
    }

    /// A registered certificate as the rules want to know it.
    pub(super) fn target(
        &self,
        actor: &Registration,
        thumbprint: &[u8],
    ) -> Result<(Thumbprint, Target), Refusal> {
        let thumbprint = check::thumbprint(thumbprint)?;
        let Some(registered) = self.registry.certificate(&thumbprint) else {
            self.not_well_known(&thumbprint)?;
            let message = "no certificate of this thumbprint is registered";
            return Err(refusal_at("NOT_FOUND", "thumbprint", message));
        };
        let target = Target {
            clearance: Some(registered.clearance),
            requested: None,
            sets_grants: false,
            is_self: thumbprint == actor.thumbprint,
            is_last_cluster_admin: self.registry.is_last_cluster_admin(&thumbprint, self.entry.at),
            is_current_member: self.registry.member(&thumbprint).is_some(),
        };
        Ok((thumbprint, target))
    }
}

pub(super) fn decide(actor: &Registration, action: Action, target: &Target) -> Result<(), Refusal> {
    certificates_rules::decide(actor.clearance, action, target).map_err(|denied| denial(&denied))
}

fn expect_revision(expected: u64, current: u64) -> Result<(), Refusal> {
    if expected == 0 || expected == current {
        return Ok(());
    }
    let message = "the certificate was changed since it was read; read it again";
    let refused = refusal("CONCURRENCY", message);
    Err(with(Refusal { field: "expected_revision".into(), ..refused }, "current_revision", current))
}

/// Whether an edit may take something away; see [`super::takes_rights_away`].
pub(super) fn may_narrow(before: &Registry, edit: &EditCertificate) -> bool {
    if edit.clearance.is_none() && !edit.set_grants {
        return false; // Only the name.
    }
    let registered = Thumbprint::from_bytes(&edit.thumbprint)
        .ok()
        .and_then(|thumbprint| before.certificate(&thumbprint));
    match registered {
        // Any other revision is refused by apply, so this comparison is with what the edit will meet.
        Some(old) if old.revision == edit.expected_revision => narrows(before, old, edit),
        Some(_) | None => true,
    }
}

fn narrows(before: &Registry, old: &Registration, edit: &EditCertificate) -> bool {
    let requested = edit.clearance.map(Clearance::try_from);
    let keeps_clearance = match requested {
        None => true,
        Some(Ok(Clearance::ClusterNode)) => true,
        Some(Ok(new)) => old.clearance != Clearance::ClusterNode && new.covers(old.clearance),
        Some(Err(_)) => false,
    };
    let covers = |(id, access): (&crate::names::DatabaseId, &Access)| {
        edit.grants.iter().any(|grant| {
            let database = crate::names::DatabaseName::parse(&grant.database).ok();
            let same = database
                .and_then(|name| before.database(&name))
                .is_some_and(|database| database.id == id.0);
            same && Access::try_from(grant.access).is_ok_and(|new| new >= *access)
        })
    };
    let keeps_grants = !edit.set_grants || old.grants.iter().all(covers);
    !(keeps_clearance && keeps_grants)
}
