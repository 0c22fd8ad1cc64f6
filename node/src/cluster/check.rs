//! What a command must be like whatever the registry says: checked before it is proposed, and again in `apply`.

use std::collections::BTreeSet;

use rookery_proto::log::v1::{
    ClusterCommand, CreateDatabase, CreateJoinToken, EditCertificate, FormCluster, GrantByName,
    JoinNode, NodeRecord, PutCertificate, Refusal, cluster_command,
};

use crate::{
    authz::{Access, Clearance},
    certificates::{self, Parsed},
    cluster::second_factor,
    limits,
    names::{CertificateName, DatabaseName, Incarnation, NodeName, Thumbprint},
    results::refusal_at,
};

/// Checks what a command says of itself, before it is proposed. `apply` holds it to the same rules.
///
/// A command of no kind is refused here and stops the node in `apply`: in the log it can only be that of a newer build.
///
/// # Errors
/// `INVALID_ARGUMENT` or `LIMIT_EXCEEDED`, with the path of the field.
pub fn check(command: &ClusterCommand) -> Result<(), Refusal> {
    use cluster_command::Command as C;
    match &command.command {
        Some(C::FormCluster(form)) => check_form(form),
        Some(C::PutCertificate(put)) => check_put(put, "").map(drop),
        Some(C::EditCertificate(edit)) => check_edit(edit),
        Some(C::DeleteCertificate(delete)) => thumbprint(&delete.thumbprint).map(drop),
        Some(C::CreateDatabase(create)) => check_create_database(create),
        Some(C::SetDatabaseState(set)) => database_name(&set.name).map(drop),
        Some(C::DeleteDatabase(delete)) => database_name(&delete.name).map(drop),
        Some(C::CreateJoinToken(create)) => check_token(create),
        Some(C::RevokeJoinToken(revoke)) => token_id("id", &revoke.id),
        Some(C::JoinNode(join)) => check_join(join),
        Some(C::RemoveNode(_)) => Ok(()),
        Some(C::RegisterSealingKey(register)) => sealing_key(&register.key),
        Some(
            C::PutClusterSecret(_)
            | C::SealClusterSecret(_)
            | C::ForgetClusterSecret(_)
            | C::EnrolSecondFactor(_)
            | C::OpenSession(_)
            | C::NoteWrongCode(_)
            | C::EndSession(_)
            | C::RemoveSecondFactor(_)
            | C::ResealSecondFactor(_),
        ) => second_factor::check(command),
        None => Err(invalid("command", "there is no command")),
    }
}

pub(super) fn invalid(field: impl Into<String>, message: impl ToString) -> Refusal {
    refusal_at("INVALID_ARGUMENT", field, message.to_string())
}

pub(super) fn too_many(field: impl Into<String>, most: usize) -> Refusal {
    refusal_at("LIMIT_EXCEEDED", field, format!("there may be at most {most}"))
}

pub(super) fn thumbprint(bytes: &[u8]) -> Result<Thumbprint, Refusal> {
    Thumbprint::from_bytes(bytes).map_err(|e| invalid("thumbprint", e))
}

pub(super) fn database_name(name: &str) -> Result<DatabaseName, Refusal> {
    DatabaseName::parse(name).map_err(|e| invalid("name", e))
}

pub(super) fn clearance(field: impl Into<String>, number: u32) -> Result<Clearance, Refusal> {
    Clearance::try_from(number).map_err(|e| invalid(field, e))
}

pub(super) fn certificate(field: impl Into<String>, der: &[u8]) -> Result<Parsed, Refusal> {
    let field = field.into();
    if der.len() > limits::CERTIFICATE_BYTES_MAX {
        return Err(too_many(field, limits::CERTIFICATE_BYTES_MAX));
    }
    certificates::parse(der).map_err(|e| invalid(field, e))
}

/// A grant that is well formed: database, access.
pub(super) fn grants(grants: &[GrantByName]) -> Result<Vec<(DatabaseName, Access)>, Refusal> {
    if grants.len() > limits::GRANTS_MAX {
        return Err(too_many("grants", limits::GRANTS_MAX));
    }
    let mut seen = BTreeSet::new();
    let mut parsed = Vec::with_capacity(grants.len());
    for (place, grant) in grants.iter().enumerate() {
        let field = format!("grants[{place}].database");
        let database = DatabaseName::parse(&grant.database).map_err(|e| invalid(&field, e))?;
        if !seen.insert(database.key().to_owned()) {
            return Err(invalid(field, "this database is named twice (letter case aside)"));
        }
        let access = Access::try_from(grant.access)
            .map_err(|e| invalid(format!("grants[{place}].access"), e))?;
        parsed.push((database, access));
    }
    Ok(parsed)
}

/// `path` is empty, or the path of the message with a dot behind it.
pub(super) fn check_put(put: &PutCertificate, path: &str) -> Result<Parsed, Refusal> {
    let under = |refusal: Refusal| Refusal { field: format!("{path}{}", refusal.field), ..refusal };
    CertificateName::parse(&put.name).map_err(|e| under(invalid("name", e)))?;
    clearance("clearance", put.clearance).map_err(under)?;
    grants(&put.grants).map_err(under)?;
    certificate("der", &put.der).map_err(under)
}

fn check_edit(edit: &EditCertificate) -> Result<(), Refusal> {
    thumbprint(&edit.thumbprint)?;
    if let Some(name) = &edit.name {
        CertificateName::parse(name).map_err(|e| invalid("name", e))?;
    }
    if let Some(number) = edit.clearance {
        clearance("clearance", number)?;
    }
    if !edit.set_grants && !edit.grants.is_empty() {
        return Err(invalid("grants", "grants are given, but `set_grants` is not"));
    }
    grants(&edit.grants).map(drop)
}

fn check_create_database(create: &CreateDatabase) -> Result<(), Refusal> {
    database_name(&create.name)?;
    if create.nodes.len() > limits::NODES_MAX {
        return Err(too_many("nodes", limits::NODES_MAX));
    }
    let mut seen = BTreeSet::new();
    for (place, name) in create.nodes.iter().enumerate() {
        let field = format!("nodes[{place}]");
        NodeName::parse(name).map_err(|e| invalid(&field, e))?;
        if !seen.insert(name) {
            return Err(invalid(field, "this node is named twice"));
        }
    }
    Ok(())
}

fn token_id(field: &str, id: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let sound =
        !id.is_empty() && id.len() <= limits::JOIN_TOKEN_ID_BYTES_MAX && id.bytes().all(plain);
    if sound { Ok(()) } else { Err(invalid(field, "this is no id of a join token")) }
}

fn digest(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() == 32 { Ok(()) } else { Err(invalid("secret_digest", "must be 32 bytes")) }
}

fn sealing_key(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() == 32 { Ok(()) } else { Err(invalid("key", "must be 32 bytes")) }
}

fn check_token(create: &CreateJoinToken) -> Result<(), Refusal> {
    token_id("id", &create.id)?;
    digest(&create.secret_digest)
}

fn check_join(join: &JoinNode) -> Result<(), Refusal> {
    token_id("token_id", &join.token_id)?;
    digest(&join.secret_digest)?;
    NodeName::parse(&join.name).map_err(|e| invalid("name", e))?;
    address("client_address", &join.client_address)?;
    address("peer_address", &join.peer_address)?;
    if join.client_address == join.peer_address {
        return Err(invalid(
            "peer_address",
            "is the client address; peers have a listener of their own",
        ));
    }
    Incarnation::from_bytes(&join.incarnation).map_err(|e| invalid("incarnation", e))?;
    certificate("certificate", &join.certificate).map(drop)
}

/// `host:port` that others can dial: not empty, not "any address". Loopback is allowed, for clusters on one machine.
fn address(field: impl Into<String>, address: &str) -> Result<(), Refusal> {
    let fail = |why: &str| Err(invalid(field, why));
    if address.len() > limits::ADDRESS_BYTES_MAX {
        return fail("is too long");
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return fail("must be host:port");
    };
    if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return fail("has no host name or address before the port");
    }
    let unspecified =
        |host: &str| host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified());
    if unspecified(host.trim_start_matches('[').trim_end_matches(']')) {
        return fail("is no address that others can dial; advertise a real one");
    }
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return fail("has no port from 1 to 65535");
    }
    Ok(())
}

fn check_form(form: &FormCluster) -> Result<(), Refusal> {
    uuid::Uuid::try_parse(&form.cluster_id).map_err(|_| invalid("cluster_id", "must be a UUID"))?;
    if form.nodes.is_empty() {
        return Err(invalid("nodes", "a cluster has at least one node"));
    }
    if form.nodes.len() > limits::NODES_MAX {
        return Err(too_many("nodes", limits::NODES_MAX));
    }
    if form.node_certificates.len() != form.nodes.len() {
        return Err(invalid("node_certificates", "there must be one for each node"));
    }
    if form.administrators.is_empty() {
        return Err(invalid("administrators", "a cluster starts with at least one Cluster Admin"));
    }
    if form.administrators.len() > limits::NODES_MAX {
        return Err(too_many("administrators", limits::NODES_MAX));
    }
    let mut taken = BTreeSet::new();
    for (place, (node, der)) in form.nodes.iter().zip(&form.node_certificates).enumerate() {
        check_founder(&format!("nodes[{place}]"), node, der, &mut taken)?;
    }
    for (place, administrator) in form.administrators.iter().enumerate() {
        check_administrator(&format!("administrators[{place}]."), administrator, &mut taken)?;
    }
    Ok(())
}

/// `taken` holds what no two nodes or certificates may share, each with a word before it.
fn check_founder(
    path: &str,
    node: &NodeRecord,
    der: &[u8],
    taken: &mut BTreeSet<(&'static str, Vec<u8>)>,
) -> Result<(), Refusal> {
    NodeName::parse(&node.name).map_err(|e| invalid(format!("{path}.name"), e))?;
    address(format!("{path}.client_address"), &node.client_address)?;
    address(format!("{path}.peer_address"), &node.peer_address)?;
    let thumbprint = *certificate(format!("{path}.certificate"), der)?.thumbprint.as_bytes();
    if !node.thumbprint.is_empty() && node.thumbprint != thumbprint {
        return Err(invalid(format!("{path}.thumbprint"), "is not that of the certificate"));
    }
    if !node.incarnation.is_empty() {
        Incarnation::from_bytes(&node.incarnation)
            .map_err(|e| invalid(format!("{path}.incarnation"), e))?;
    }
    for (what, field, value) in [
        ("name", "name", node.name.as_bytes()),
        ("address", "client_address", node.client_address.as_bytes()),
        ("address", "peer_address", node.peer_address.as_bytes()),
        ("incarnation", "incarnation", node.incarnation.as_slice()),
        ("certificate", "certificate", thumbprint.as_slice()),
    ] {
        if !value.is_empty() && !taken.insert((what, value.to_vec())) {
            return Err(invalid(format!("{path}.{field}"), "is given twice"));
        }
    }
    Ok(())
}

fn check_administrator(
    path: &str,
    administrator: &PutCertificate,
    taken: &mut BTreeSet<(&'static str, Vec<u8>)>,
) -> Result<(), Refusal> {
    let parsed = check_put(administrator, path)?;
    if clearance("clearance", administrator.clearance)? != Clearance::ClusterAdmin {
        return Err(invalid(
            format!("{path}clearance"),
            "the first certificates are Cluster Admins",
        ));
    }
    if !administrator.grants.is_empty() {
        return Err(invalid(format!("{path}grants"), "there are no databases yet"));
    }
    if !taken.insert(("certificate", parsed.thumbprint.as_bytes().to_vec())) {
        return Err(invalid(format!("{path}der"), "is given twice"));
    }
    Ok(())
}
