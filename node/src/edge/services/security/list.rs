//! Lists of certificates: the query out of the request, and its page.

use rookery_proto::security::v1::{
    CertificateSort, CertificateState, Clearance as ClearanceNumber, ListCertificatesRequest,
    ListCertificatesResponse,
};
use tonic::Status;

use super::{parse, shown};
use crate::{
    authz::Clearance,
    cluster::list::{Position, Query, Sort, State},
    database::page_token::Binding,
    edge::{
        convert,
        peer_identity::CallContext,
        services::{page_size, page_start},
    },
    limits,
    names::{DatabaseId, DatabaseName, ThumbprintPrefix},
};

pub(super) fn page(
    asked: &ListCertificatesRequest,
    context: &CallContext,
) -> Result<ListCertificatesResponse, Status> {
    let query = query(asked, context)?;
    let binding = binding(&query, context);
    let after = match page_start(&binding, &asked.page_token)? {
        None => None,
        Some(bytes) => Some(
            Position::from_bytes(&bytes, query.sort)
                .ok_or_else(|| convert::invalid("page_token", "is no token of this list"))?,
        ),
    };
    let page = context.registry.list(&query, after.as_ref(), page_size(asked.page_size)?);
    let certificates = page
        .certificates
        .iter()
        .filter_map(|found| shown::entry(found, &context.registry, context.at))
        .map(shown::without_bytes)
        .collect();
    let next = page.next.map(|last| binding.encode(&last.to_bytes()));
    Ok(ListCertificatesResponse { certificates, next_page_token: next.unwrap_or_default() })
}

fn query(asked: &ListCertificatesRequest, context: &CallContext) -> Result<Query, Status> {
    let clearance = match ClearanceNumber::try_from(asked.clearance) {
        Ok(ClearanceNumber::Unspecified) => None,
        Ok(_) | Err(_) => Some(parse::clearance(asked.clearance)?),
    };
    if asked.name_contains.chars().count() > limits::CERTIFICATE_NAME_CHARS_MAX {
        return Err(convert::invalid("name_contains", "is longer than a name can be"));
    }
    let within = i64::try_from(asked.expiring_within_seconds).ok();
    let within_ms = within.and_then(|seconds| seconds.checked_mul(1000));
    let within_ms = within_ms
        .ok_or_else(|| convert::invalid("expiring_within_seconds", "is too far in the future"))?;
    Ok(Query {
        at: context.at,
        clearance,
        database: database(&asked.database, context)?,
        name_contains: asked.name_contains.to_lowercase(),
        prefix: prefix(&asked.thumbprint_prefix)?,
        state: state(asked.state)?,
        expires_within_ms: (within_ms > 0).then_some(within_ms),
        sort: sort(asked.sort)?,
        descending: asked.descending,
    })
}

fn database(text: &str, context: &CallContext) -> Result<Option<DatabaseId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let name = DatabaseName::parse(text).map_err(|why| convert::invalid("database", why))?;
    let record = context.registry.database(&name);
    let record = record.ok_or_else(|| convert::not_found("database", &name))?;
    Ok(Some(DatabaseId(record.id)))
}

fn prefix(text: &str) -> Result<Option<ThumbprintPrefix>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|why| convert::invalid("thumbprint_prefix", why))
}

fn state(number: i32) -> Result<Option<State>, Status> {
    match CertificateState::try_from(number) {
        Ok(CertificateState::Unspecified) => Ok(None),
        Ok(CertificateState::Valid) => Ok(Some(State::Valid)),
        Ok(CertificateState::Expiring) => Ok(Some(State::Expiring)),
        Ok(CertificateState::Expired) => Ok(Some(State::Expired)),
        Ok(CertificateState::NotYetValid) => Ok(Some(State::NotYetValid)),
        Ok(CertificateState::Disabled) => Ok(Some(State::Disabled)),
        Err(_) => Err(convert::invalid("state", "is no state of certificates")),
    }
}

fn sort(number: i32) -> Result<Sort, Status> {
    match CertificateSort::try_from(number) {
        Ok(CertificateSort::Unspecified | CertificateSort::Name) => Ok(Sort::Name),
        Ok(CertificateSort::Expiry) => Ok(Sort::Expiry),
        Ok(CertificateSort::Created) => Ok(Sort::Created),
        Err(_) => Err(convert::invalid("sort", "is no order of certificates")),
    }
}

/// A token continues this list for this caller and no other.
fn binding(query: &Query, context: &CallContext) -> Binding {
    let Query { clearance, database, name_contains, prefix, state, expires_within_ms, .. } = query;
    let prefix = prefix.as_ref().map_or("", ThumbprintPrefix::as_str);
    Binding::new(context.thumbprint(), "certificates")
        .field(&clearance.map_or(0, Clearance::number).to_be_bytes())
        .field(&database.map_or(0, |id| id.0).to_be_bytes())
        .field(name_contains.as_bytes())
        .field(prefix.as_bytes())
        .field(state.map_or("", State::word).as_bytes())
        .field(&expires_within_ms.unwrap_or_default().to_be_bytes())
        .field(format!("{:?} {}", query.sort, query.descending).as_bytes())
}
