//! Certificates as they are told to callers.

use rookery_proto::{
    log::v1 as log,
    security::v1::{Certificate, Grant, SecondaryCertificate},
};
use tonic::Status;

use crate::{
    authz::{Access, Registration},
    certificates,
    cluster::{self, Registry, list::State},
    edge::convert,
    names::{DatabaseId, Timestamp},
};

pub(in crate::edge::services) fn state(registration: &Registration, at: Timestamp) -> String {
    State::of(registration, at).word().to_owned()
}

pub(in crate::edge::services) fn grants<'a>(
    grants: impl Iterator<Item = (&'a DatabaseId, &'a Access)>,
    registry: &Registry,
) -> Vec<Grant> {
    let named = grants.filter_map(|(id, access)| {
        let record = registry.database_by_id(*id)?; // A grant on a deleted database opens nothing.
        Some(Grant { database: record.name.clone(), access: (*access).into() })
    });
    named.collect()
}

/// The entry of a registered certificate.
pub(in crate::edge::services) fn entry(
    found: &cluster::Certificate,
    registry: &Registry,
    at: Timestamp,
) -> Option<Certificate> {
    let all: Vec<_> = registry.entry(found).map(|it| &**it).collect();
    shown(&all, registry, at)
}

/// The entry of a record that the log answered with.
pub(in crate::edge::services) fn record(
    record: log::CertificateRecord,
    registry: &Registry,
    at: Timestamp,
) -> Result<Certificate, Status> {
    let unreadable =
        |why: &dyn std::fmt::Display| convert::internal("The record could not be read", why);
    let all = cluster::Certificate::of_record(record).map_err(|why| unreadable(&why))?;
    let all: Vec<_> = all.iter().collect();
    shown(&all, registry, at).ok_or_else(|| unreadable(&"it holds no certificate"))
}

/// An entry without the bytes of its certificates, for lists.
pub(in crate::edge::services) fn without_bytes(mut certificate: Certificate) -> Certificate {
    certificate.der.clear();
    certificate.secondaries.iter_mut().for_each(|secondary| secondary.der.clear());
    certificate
}

/// A primary and its secondaries, with what can be read in their bytes; where a certificate cannot be parsed any more,
/// these fields stay empty.
fn shown(all: &[&cluster::Certificate], registry: &Registry, at: Timestamp) -> Option<Certificate> {
    let (primary, secondaries) = all.split_first()?;
    let (registration, entry) = (&primary.registration, &primary.entry);
    let mut certificate = Certificate {
        thumbprint: registration.thumbprint.to_string(),
        name: registration.name.clone(),
        clearance: registration.clearance.into(),
        grants: grants(registration.grants.iter(), registry),
        not_before_unix_ms: registration.not_before.0,
        not_after_unix_ms: registration.not_after.0,
        state: state(registration, at),
        created_unix_ms: entry.created.0,
        created_by: entry.created_by.map_or_else(String::new, |author| author.to_string()),
        etag: registration.revision.to_string(),
        der: registration.der.to_vec(),
        secondaries: secondaries.iter().map(|it| secondary(&it.registration, at)).collect(),
        note: entry.note.clone(),
        owner: entry.owner.clone(),
        disabled: registration.disabled,
        generated: entry.generated,
        ..Certificate::default()
    };
    let second_factor = registry.second_factor(&registration.thumbprint);
    certificate.has_second_factor = second_factor.is_some_and(|record| record.confirmed);
    certificate.second_factor_pending = second_factor.is_some_and(|record| !record.confirmed);
    let session = second_factor.and_then(|record| record.session.as_ref());
    let session = session.filter(|session| session.expires_unix_ms > at.0);
    certificate.session_expires_unix_ms = session.map_or(0, |session| session.expires_unix_ms);
    if let Some(last) = registry.last_use(&registration.thumbprint) {
        certificate.last_used_unix_ms = last.at.0;
        certificate.last_used_node =
            registry.node(last.node).map_or_else(String::new, |node| node.name.clone());
    }
    if let Ok(parsed) = certificates::parse(&registration.der) {
        certificate.thumbprint_sha1 = parsed.thumbprint_sha1;
        certificate.subject = parsed.subject;
        certificate.issuer = parsed.issuer;
        certificate.serial_hex = parsed.serial_hex;
        certificate.key_algorithm = parsed.key_algorithm;
    }
    Some(certificate)
}

/// What can be read in a certificate that is not registered.
pub(in crate::edge::services) fn inspected(
    der: &[u8],
    at: Timestamp,
) -> Result<Certificate, certificates::Refused> {
    let parsed = certificates::parse(der)?;
    let state = match (parsed.not_before <= at, at <= parsed.not_after) {
        (_, false) => "expired",
        (false, true) => "not yet valid",
        (true, true) => "valid",
    };
    Ok(Certificate {
        thumbprint: parsed.thumbprint.to_string(),
        thumbprint_sha1: parsed.thumbprint_sha1,
        not_before_unix_ms: parsed.not_before.0,
        not_after_unix_ms: parsed.not_after.0,
        subject: parsed.subject,
        issuer: parsed.issuer,
        serial_hex: parsed.serial_hex,
        key_algorithm: parsed.key_algorithm,
        state: state.to_owned(),
        der: parsed.der,
        ..Certificate::default()
    })
}

fn secondary(registration: &Registration, at: Timestamp) -> SecondaryCertificate {
    let mut secondary = SecondaryCertificate {
        thumbprint: registration.thumbprint.to_string(),
        not_before_unix_ms: registration.not_before.0,
        not_after_unix_ms: registration.not_after.0,
        state: state(registration, at),
        der: registration.der.to_vec(),
        ..SecondaryCertificate::default()
    };
    if let Ok(parsed) = certificates::parse(&registration.der) {
        secondary.thumbprint_sha1 = parsed.thumbprint_sha1;
        secondary.subject = parsed.subject;
        secondary.issuer = parsed.issuer;
        secondary.serial_hex = parsed.serial_hex;
    }
    secondary
}
