//! The security policy on the wire.

use rookery_proto::{
    log::v1::{self as log, cluster_command::Command},
    security::v1::{Renewal as RenewalNumber, SecurityPolicy, SetSecurityPolicyRequest},
};
use tonic::Status;

use crate::{
    authz::{Clearance, Permit},
    cluster,
    edge::{
        Edge, convert,
        peer_identity::CallContext,
        services::{propose, request_id, security::parse, unexpected_outcome},
    },
};

/// The policy as clients see it.
pub fn shown(policy: &cluster::SecurityPolicy) -> SecurityPolicy {
    let renewal = match policy.renewal {
        cluster::Renewal::Explicit => RenewalNumber::Explicit,
        cluster::Renewal::SameKeySameIssuer => RenewalNumber::SameKeySameIssuer,
    };
    SecurityPolicy {
        renewal: renewal.into(),
        renewal_for_cluster_admin: policy.renewal_for_cluster_admin,
        second_factor_required_for: policy
            .second_factor_required_for
            .iter()
            .map(|clearance| i32::from(*clearance))
            .collect(),
        etag: policy.revision.to_string(),
    }
}

fn renewal(number: i32) -> Result<cluster::Renewal, Status> {
    match RenewalNumber::try_from(number) {
        Ok(RenewalNumber::Explicit) => Ok(cluster::Renewal::Explicit),
        Ok(RenewalNumber::SameKeySameIssuer) => Ok(cluster::Renewal::SameKeySameIssuer),
        Ok(RenewalNumber::Unspecified) | Err(_) => {
            let why = "must be written out: explicit or same-key-same-issuer";
            Err(convert::invalid("policy.renewal", why))
        }
    }
}

fn clearances(numbers: &[i32]) -> Result<Vec<u32>, Status> {
    let parsed = numbers.iter().enumerate().map(|(place, number)| {
        let field = format!("policy.second_factor_required_for[{place}]");
        Clearance::try_from(*number).map_err(|why| convert::invalid(&field, why))
    });
    let mut parsed = parsed.map(|it| it.map(Clearance::number)).collect::<Result<Vec<_>, _>>()?;
    parsed.sort_unstable();
    Ok(parsed)
}

/// Replaces the policy.
pub async fn set(
    edge: &Edge,
    permit: Permit,
    context: &CallContext,
    asked: SetSecurityPolicyRequest,
) -> Result<SecurityPolicy, Status> {
    let id = request_id(&asked.request_id)?;
    let policy = asked.policy.ok_or_else(|| convert::invalid("policy", "is missing"))?;
    let record = log::SecurityPolicyRecord {
        renewal: renewal(policy.renewal)?.number(),
        renewal_for_cluster_admin: policy.renewal_for_cluster_admin,
        second_factor_required_for: clearances(&policy.second_factor_required_for)?,
        revision: 0,
    };
    let set = log::SetSecurityPolicy {
        policy: Some(record),
        expected_revision: parse::revision(&asked.expected_etag)?,
    };
    let outcome = propose(edge, permit, context, id, Command::SetSecurityPolicy(set)).await?;
    let log::cluster_outcome::Outcome::SecurityPolicy(record) = outcome else {
        return Err(unexpected_outcome());
    };
    let policy = cluster::SecurityPolicy::try_from(record)
        .map_err(|why| convert::internal("The policy could not be read", why))?;
    Ok(shown(&policy))
}
