//! Which records are wanted.

use rookery_proto::log::v1::{AuditOutcome, AuditRecord};
use tonic::Status;

use super::FilterMessage;
use crate::{edge::convert, limits, names::RequestId};

/// Shortest beginning of a thumbprint that is taken for one, in characters of hex.
const ACTOR_CHARS_MIN: usize = 8;

/// A filter whose fields were read once.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    from: Option<i64>,
    to: Option<i64>,
    actor: Option<String>,
    operation: Option<String>,
    target: Option<String>,
    outcome: Option<i32>,
    node: Option<u64>,
    request: Option<[u8; 16]>,
}

impl Filter {
    pub(super) fn parse(given: &FilterMessage) -> Result<Self, Status> {
        let outcome = AuditOutcome::try_from(given.outcome)
            .map_err(|_| convert::invalid("filter.outcome", "is none"))?;
        let request = match given.request_id.as_str() {
            "" => None,
            text => {
                let id: RequestId =
                    text.parse().map_err(|why| convert::invalid("filter.request_id", why))?;
                Some(*id.as_bytes())
            }
        };
        Ok(Self {
            from: (given.from_unix_ms != 0).then_some(given.from_unix_ms),
            to: (given.to_unix_ms != 0).then_some(given.to_unix_ms),
            actor: actor(&given.actor)?,
            operation: text("filter.operation", &given.operation)?,
            target: text("filter.target", &given.target.to_lowercase())?,
            outcome: (outcome != AuditOutcome::Unspecified).then_some(given.outcome),
            node: (given.node_id != 0).then_some(given.node_id),
            request,
        })
    }

    pub(super) fn fits(&self, record: &AuditRecord) -> bool {
        let time = record.at_unix_ms;
        self.from.is_none_or(|from| time >= from)
            && self.to.is_none_or(|to| time <= to)
            && self.outcome.is_none_or(|outcome| record.outcome == outcome)
            && self.node.is_none_or(|node| record.node_id == node)
            && self.operation.as_ref().is_none_or(|operation| record.operation == *operation)
            && self.request.is_none_or(|request| record.request_id == request)
            && self.actor.as_ref().is_none_or(|actor| hex::encode(&record.actor).starts_with(actor))
            && self.target.as_ref().is_none_or(|target| {
                record.target.to_lowercase().contains(target)
                    || record.database.to_lowercase().contains(target)
            })
    }
}

fn text(field: &'static str, given: &str) -> Result<Option<String>, Status> {
    if given.len() > 4 * limits::AUDIT_TEXT_CHARS_MAX {
        return Err(convert::invalid(field, "is longer than any record's"));
    }
    Ok((!given.is_empty()).then(|| given.to_owned()))
}

fn actor(given: &str) -> Result<Option<String>, Status> {
    if given.is_empty() {
        return Ok(None);
    }
    let hex: String = given.chars().filter(|c| *c != ':').collect::<String>().to_lowercase();
    let is_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_hex || hex.len() < ACTOR_CHARS_MIN || hex.len() > 64 {
        let why = format!("must be {ACTOR_CHARS_MIN} to 64 characters of a thumbprint in hex");
        return Err(convert::invalid("filter.actor", why));
    }
    Ok(Some(hex))
}
