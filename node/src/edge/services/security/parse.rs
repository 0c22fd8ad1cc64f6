//! The fields of requests on certificates, each parsed once, with its path in the refusal.

use rookery_proto::{log::v1 as log, security::v1::Grant};
use tonic::Status;

use crate::{
    authz::{Access, Clearance},
    certificates,
    edge::convert,
    limits,
    names::{self, CertificateName, DatabaseName, Thumbprint},
};

/// A name as people will read it: nothing invisible, nothing that turns the reading direction.
pub(in crate::edge::services) fn certificate_name(text: &str) -> Result<CertificateName, Status> {
    let name = CertificateName::parse(text).map_err(|why| convert::invalid("name", why))?;
    readable("name", text)?;
    Ok(name)
}

/// A note and who answers for the certificate.
pub(in crate::edge::services) fn remarks(note: &str, owner: &str) -> Result<(), Status> {
    names::check_note(note).map_err(|why| convert::invalid("note", why))?;
    names::check_owner(owner).map_err(|why| convert::invalid("owner", why))?;
    readable("note", note)?;
    readable("owner", owner)
}

/// Two names that look the same must not be told apart by something nobody sees.
fn readable(field: &str, text: &str) -> Result<(), Status> {
    if !certificates::is_misleading(text) {
        return Ok(());
    }
    let why = "must not hold characters that are invisible or change the direction of reading";
    Err(convert::invalid(field, why))
}

pub(in crate::edge::services) fn thumbprint(text: &str) -> Result<Thumbprint, Status> {
    text.parse().map_err(|why| convert::invalid("thumbprint", why))
}

pub(in crate::edge::services) fn clearance(number: i32) -> Result<Clearance, Status> {
    Clearance::try_from(number).map_err(|why| convert::invalid("clearance", why))
}

/// Grants by name. Above User they would mean nothing, so that they are given is a mistake.
pub(in crate::edge::services) fn grants(
    grants: &[Grant],
    clearance: Clearance,
) -> Result<Vec<log::GrantByName>, Status> {
    if clearance != Clearance::User && !grants.is_empty() {
        let why = format!("are for User certificates; {clearance} reaches every database without");
        return Err(convert::invalid("grants", why));
    }
    if grants.len() > limits::GRANTS_MAX {
        return Err(convert::invalid("grants", format!("must be at most {}", limits::GRANTS_MAX)));
    }
    let parsed = grants.iter().enumerate().map(|(place, grant)| {
        let database = DatabaseName::parse(&grant.database)
            .map_err(|why| convert::invalid(&format!("grants[{place}].database"), why))?;
        let access = Access::try_from(grant.access)
            .map_err(|why| convert::invalid(&format!("grants[{place}].access"), why))?;
        let database = database.as_str().to_owned();
        Ok(log::GrantByName { database, access: access.number() })
    });
    parsed.collect()
}

/// The revision in an etag; 0 for any.
pub(in crate::edge::services) fn revision(etag: &str) -> Result<u64, Status> {
    match etag {
        "" => Ok(0),
        etag => match etag.parse() {
            Ok(revision) if revision > 0 => Ok(revision),
            Ok(_) | Err(_) => {
                Err(convert::invalid("expected_etag", "is not one that this server gave"))
            }
        },
    }
}
