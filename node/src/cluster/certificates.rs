//! Commands on certificates: register, edit, disable, delete.
//!
//! An entry is a primary and its secondaries, in one record. The rules are decided for the primary, whichever of them
//! was named; who may manage it and named a secondary is told which one to name.

use std::sync::Arc;

use rookery_proto::log::v1::{
    CertificateRecord, DeleteCertificate, EditCertificate, GrantByName, GrantRecord,
    PutCertificate, Refusal, SecondaryRecord, SetCertificateState, cluster_outcome,
};

use crate::{
    authz::{
        Access, Clearance, Registration,
        certificates_rules::{self, Action, Target},
    },
    certificates::{self, Parsed},
    cluster::{Applying, Certificate, Outcome, Registry, check, denial, done, records},
    names::Thumbprint,
    results::{refusal, refusal_at, with},
};

impl Applying<'_, '_> {
    pub(super) fn put_certificate(
        &mut self,
        actor: &Registration,
        put: &PutCertificate,
    ) -> Outcome {
        let collection = check::check_put(put, "")?;
        let registered = self.registry.certificate_details(&collection.primary.thumbprint);
        if let Some(registered) = registered.filter(|_| put.overwrite).map(Arc::clone) {
            return self.overwrite_certificate(actor, put, &collection, &registered);
        }
        expect_revision(put.expected_revision, 0)?; // What was to be overwritten is gone.
        let action = if put.generated { Action::Generate } else { Action::Upload };
        let is_a_members =
            |(_, parsed): (String, &Parsed)| self.registry.member(&parsed.thumbprint).is_some();
        let target = Target {
            requested: Some(check::clearance("clearance", put.clearance)?),
            is_current_member: collection.all().any(is_a_members),
            ..Target::default()
        };
        decide(actor, action, &target)?;
        for (field, parsed) in collection.all() {
            self.not_well_known(&parsed.thumbprint)?;
            self.not_registered(&parsed.thumbprint, &field)?;
        }
        let grants = self.resolve(&put.grants)?;
        let record = CertificateRecord { grants, ..self.new_record(put, &collection) };
        self.store_certificate(record.clone())?;
        Ok(cluster_outcome::Outcome::Certificate(record))
    }

    pub(super) fn not_registered(
        &self,
        thumbprint: &Thumbprint,
        field: &str,
    ) -> Result<(), Refusal> {
        let Some(found) = self.registry.certificate_details(thumbprint) else { return Ok(()) };
        let message = format!(
            "the certificate {thumbprint} is registered already, as \"{}\"; edit that entry, or overwrite it",
            certificates::escape(&found.registration.name)
        );
        let refused = refusal_at("ALREADY_EXISTS", field, message);
        Err(with(with(refused, "thumbprint", thumbprint), "primary", found.primary))
    }

    /// The record of a new entry, without grants.
    pub(super) fn new_record(
        &self,
        put: &PutCertificate,
        collection: &check::Collection,
    ) -> CertificateRecord {
        let parsed = &collection.primary;
        CertificateRecord {
            thumbprint: parsed.thumbprint.as_bytes().to_vec(),
            der: put.der.clone(),
            name: put.name.clone(),
            clearance: put.clearance,
            not_before_unix_ms: parsed.not_before.0,
            not_after_unix_ms: parsed.not_after.0,
            created_unix_ms: self.entry.at.0,
            created_by: self.author(),
            revision: self.entry.index,
            generated: put.generated,
            secondaries: collection.secondaries.iter().map(secondary_record).collect(),
            note: put.note.clone(),
            owner: put.owner.clone(),
            key_digest: key_digest(parsed),
            ..CertificateRecord::default()
        }
    }

    /// Binds grants by name to the ids of databases that exist, in the order of the ids.
    pub(super) fn resolve(&self, grants: &[GrantByName]) -> Result<Vec<GrantRecord>, Refusal> {
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
        let (named, target) = self.target(actor, &edit.thumbprint)?;
        let requested = edit.clearance.map(|number| check::clearance("clearance", number));
        let requested = requested.transpose()?;
        let target = Target {
            requested,
            sets_grants: edit.set_grants,
            sets_remarks: edit.note.is_some() || edit.owner.is_some(),
            ..target
        };
        decide(actor, Action::Edit, &target)?;
        is_primary(&named)?;
        confirmed(&target, edit.confirm_self_demotion)?;
        let old = self.record(&named.primary)?;
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
        if let Some(note) = &edit.note {
            record.note.clone_from(note);
        }
        if let Some(owner) = &edit.owner {
            record.owner.clone_from(owner);
        }
        self.changed(&old, record)
    }

    /// Switches an entry off or on.
    pub(super) fn set_certificate_state(
        &mut self,
        actor: &Registration,
        set: &SetCertificateState,
    ) -> Outcome {
        let (named, target) = self.target(actor, &set.thumbprint)?;
        let action = if set.disabled { Action::Disable } else { Action::Enable };
        decide(actor, action, &target)?;
        is_primary(&named)?;
        let old = self.record(&named.primary)?;
        expect_revision(set.expected_revision, old.revision)?;
        self.changed(&old, CertificateRecord { disabled: set.disabled, ..old.clone() })
    }

    /// Deletes an entry, secondaries included.
    pub(super) fn delete_certificate(
        &mut self,
        actor: &Registration,
        delete: &DeleteCertificate,
    ) -> Outcome {
        let (named, target) = self.target(actor, &delete.thumbprint)?;
        decide(actor, Action::Delete, &target)?;
        is_primary(&named)?;
        self.nothing_declared(&named)?;
        self.forget_certificate(&named.primary)?;
        Ok(done())
    }

    /// No certificate of an entry that is to go is declared as a well-known admin.
    pub(super) fn nothing_declared(&self, named: &Certificate) -> Result<(), Refusal> {
        self.registry.entry(named).try_for_each(|it| self.not_declared(it))
    }

    pub(super) fn record(
        &self,
        primary: &Thumbprint,
    ) -> Result<CertificateRecord, crate::results::Error> {
        records::require(self.state, primary.as_bytes())
    }

    /// Stores a record under the entry's revision; what is the same as before is no change.
    pub(super) fn changed(
        &mut self,
        old: &CertificateRecord,
        mut record: CertificateRecord,
    ) -> Outcome {
        if record != *old {
            record.revision = self.entry.index;
            self.store_certificate(record.clone())?;
        }
        Ok(cluster_outcome::Outcome::Certificate(record))
    }

    /// A registered certificate, and its entry as the rules want to know it.
    pub(super) fn target(
        &self,
        actor: &Registration,
        thumbprint: &[u8],
    ) -> Result<(Arc<Certificate>, Target), Refusal> {
        let thumbprint = check::thumbprint(thumbprint)?;
        let Some(named) = self.registry.certificate_details(&thumbprint) else {
            self.not_well_known(&thumbprint)?;
            let message = "no certificate of this thumbprint is registered";
            return Err(refusal_at("NOT_FOUND", "thumbprint", message));
        };
        let target = self.registry.target(named, Some(actor.thumbprint), self.entry.at);
        Ok((Arc::clone(named), target))
    }
}

impl Registry {
    /// The entry of a certificate as the rules about certificates want to know it, with nothing asked for yet.
    #[must_use]
    pub fn target(
        &self,
        named: &Certificate,
        actor: Option<Thumbprint>,
        at: crate::names::Timestamp,
    ) -> Target {
        Target {
            clearance: Some(named.registration.clearance),
            is_last_cluster_admin: self.is_last_cluster_admin(&named.primary, at),
            ..self.ownership(named, actor)
        }
    }

    /// Any certificate as the rules want to know it: registered, a well-known admin's, or nobody's.
    #[must_use]
    pub fn target_of(
        &self,
        thumbprint: &Thumbprint,
        actor: Option<Thumbprint>,
        at: crate::names::Timestamp,
    ) -> Target {
        match self.certificate_details(thumbprint) {
            Some(named) => self.target(named, actor, at),
            None => Target {
                clearance: self.identity(thumbprint).map(|it| it.clearance),
                is_self: actor == Some(*thumbprint),
                is_current_member: self.member(thumbprint).is_some(),
                ..Target::default()
            },
        }
    }

    /// Whose an entry is: the actor's own, or a member's.
    pub(super) fn ownership(&self, named: &Certificate, actor: Option<Thumbprint>) -> Target {
        let is_the_actors = |it: &Arc<Certificate>| Some(it.registration.thumbprint) == actor;
        let is_a_members =
            |it: &Arc<Certificate>| self.member(&it.registration.thumbprint).is_some();
        Target {
            is_self: self.entry(named).any(is_the_actors),
            is_current_member: self.entry(named).any(is_a_members),
            ..Target::default()
        }
    }
}

pub(super) fn secondary_record(parsed: &Parsed) -> SecondaryRecord {
    SecondaryRecord {
        thumbprint: parsed.thumbprint.as_bytes().to_vec(),
        der: parsed.der.clone(),
        not_before_unix_ms: parsed.not_before.0,
        not_after_unix_ms: parsed.not_after.0,
        key_digest: key_digest(parsed),
    }
}

/// SHA-256 of the key; none where it cannot be read, and then the record's bytes say it again later.
fn key_digest(parsed: &Parsed) -> Vec<u8> {
    certificates::key_digest(&parsed.der).map_or_else(|_| Vec::new(), |key| key.as_bytes().to_vec())
}

pub(super) fn decide(actor: &Registration, action: Action, target: &Target) -> Result<(), Refusal> {
    certificates_rules::decide(actor.clearance, action, target).map_err(|denied| denial(&denied))
}

/// Secondaries are managed through their primary alone.
///
/// # Errors
/// `SECONDARY_CERTIFICATE`, with the thumbprint of the primary.
pub fn is_primary(named: &Certificate) -> Result<(), Refusal> {
    if !named.is_secondary() {
        return Ok(());
    }
    let message = format!(
        "this certificate is a secondary of {}, and is managed through it alone: name that one",
        named.primary
    );
    let refused = refusal_at("SECONDARY_CERTIFICATE", "thumbprint", message);
    Err(with(refused, "primary", named.primary))
}

/// Whoever weakens their own certificate has said that it is meant.
///
/// # Errors
/// `CONFIRMATION_REQUIRED`.
pub fn confirmed(target: &Target, confirmed: bool) -> Result<(), Refusal> {
    if confirmed || !target.weakens_the_caller() {
        return Ok(());
    }
    let message = "this is the certificate you call with, and it would lose clearance that you cannot give back to \
                   it; confirm that this is meant";
    Err(refusal_at("CONFIRMATION_REQUIRED", "confirm_self_demotion", message))
}

pub(super) fn expect_revision(expected: u64, current: u64) -> Result<(), Refusal> {
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
        return false; // Only name, note or owner.
    }
    // A clearance that demands a second factor shuts out a holder without one, however high it is.
    let requested = edit.clearance.and_then(|number| Clearance::try_from(number).ok());
    if requested.is_some_and(|clearance| before.second_factor_required(clearance)) {
        return true;
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
