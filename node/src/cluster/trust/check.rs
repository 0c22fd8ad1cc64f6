//! What the commands around certificates must be like whatever the registry says; a part of the log's format.

use rookery_proto::log::v1::{
    DeclareWellKnownAdmins, NoteExpiry, OwnerCommand, RecordUse, Refusal, RenewCertificate,
    SetSecurityPolicy, owner_command,
};

use super::{Renewal, uses::THRESHOLDS};
use crate::{
    authz::Clearance,
    cluster::check::{certificate, check_put, clearance, invalid, thumbprint},
    limits,
    results::refusal_at,
};

fn too_many(field: &str, most: usize) -> Refusal {
    refusal_at("LIMIT_EXCEEDED", field, format!("there may be at most {most}"))
}

pub(in crate::cluster) fn set_policy(set: &SetSecurityPolicy) -> Result<(), Refusal> {
    let Some(policy) = &set.policy else { return Err(invalid("policy", "is missing")) };
    if Renewal::of(policy.renewal).is_none() {
        return Err(invalid("policy.renewal", "is none of explicit, same-key-same-issuer"));
    }
    let mut last = 0;
    for (place, number) in policy.second_factor_required_for.iter().enumerate() {
        let field = format!("policy.second_factor_required_for[{place}]");
        if clearance(&field, *number)? == Clearance::ClusterNode {
            return Err(invalid(field, "nodes are no people and have no second factor"));
        }
        if *number <= last {
            return Err(invalid(field, "stands twice, or out of order"));
        }
        last = *number;
    }
    Ok(())
}

pub(in crate::cluster) fn declare(declare: &DeclareWellKnownAdmins) -> Result<(), Refusal> {
    if declare.thumbprints.len() > limits::WELL_KNOWN_ADMINS_MAX {
        return Err(too_many("thumbprints", limits::WELL_KNOWN_ADMINS_MAX));
    }
    let mut last: Option<&[u8]> = None;
    for bytes in &declare.thumbprints {
        thumbprint(bytes)?;
        if last.is_some_and(|last| last >= bytes.as_slice()) {
            return Err(invalid("thumbprints", "one stands twice, or out of order"));
        }
        last = Some(bytes);
    }
    Ok(())
}

pub(in crate::cluster) fn renew(renew: &RenewCertificate) -> Result<(), Refusal> {
    certificate("der", &renew.der).map(drop)
}

pub(in crate::cluster) fn record_use(record: &RecordUse) -> Result<(), Refusal> {
    if record.uses.len() > limits::USES_PER_COMMAND_MAX {
        return Err(too_many("uses", limits::USES_PER_COMMAND_MAX));
    }
    record.uses.iter().try_for_each(|used| thumbprint(&used.thumbprint).map(drop))
}

pub(in crate::cluster) fn owner(owner: &OwnerCommand) -> Result<(), Refusal> {
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let sound = !owner.reason.is_empty()
        && owner.reason.len() <= limits::OWNER_REASON_BYTES_MAX
        && owner.reason.bytes().all(plain);
    if !sound {
        return Err(invalid("reason", "must be a few words"));
    }
    match &owner.command {
        Some(owner_command::Command::Put(put)) => {
            check_put(put, "put.")?;
            if clearance("put.clearance", put.clearance)? == Clearance::ClusterNode {
                let why = "nodes become members with a join token, not over the admin socket";
                return Err(invalid("put.clearance", why));
            }
            Ok(())
        }
        Some(owner_command::Command::Delete(delete)) => thumbprint(&delete.thumbprint).map(drop),
        None => Err(invalid("command", "there is no command")),
    }
}

pub(in crate::cluster) fn note_expiry(note: &NoteExpiry) -> Result<(), Refusal> {
    if note.notices.len() > limits::EXPIRY_NOTICES_PER_COMMAND_MAX {
        return Err(too_many("notices", limits::EXPIRY_NOTICES_PER_COMMAND_MAX));
    }
    for notice in &note.notices {
        thumbprint(&notice.thumbprint)?;
        if !THRESHOLDS.contains(&notice.days) {
            return Err(invalid("notices.days", "is no threshold"));
        }
    }
    Ok(())
}
