//! What a command must be like whatever the registry says: checked before it is proposed, and again in `apply`.

use std::collections::BTreeSet;

use rookery_proto::log::v1::{
    ClusterCommand, CreateDatabase, CreateJoinToken, EditCertificate, FormCluster, GrantByName,
    JoinNode, NodeRecord, PutCertificate, Refusal, ReplacementNode, ReportCertificateReplacement,
    StartCertificateReplacement, cluster_command, report_certificate_replacement::Report,
};

use crate::{
    authz::{Access, Clearance},
    certificates::{self, Parsed},
    cluster::{audit, second_factor, trust},
    limits,
    names::{self, CertificateName, DatabaseName, Incarnation, NodeName, Thumbprint},
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
        Some(C::SetCertificateState(set)) => thumbprint(&set.thumbprint).map(drop),
        Some(C::PurgeCertificates(purge)) => purge_limit(purge.limit).map(drop),
        Some(C::RemoveNode(_) | C::CheckpointAudit(_)) => Ok(()),
        Some(C::RecordDenials(denials)) => audit::check_denials(denials),
        Some(C::RecordAction(action)) => audit::check_action(action),
        Some(C::RegisterSealingKey(register)) => sealing_key(&register.key),
        Some(C::RenewNodeCertificate(renew)) => {
            certificate("certificate", &renew.certificate).map(drop)
        }
        Some(C::RetireNodeCertificates(retire)) => thumbprint(&retire.keep).map(drop),
        Some(C::StartCertificateReplacement(start)) => check_replacement(start),
        Some(C::ReportCertificateReplacement(report)) => check_report(report),
        Some(C::ActivateCertificateReplacement(activate)) => replacement_id(&activate.id),
        Some(C::AbortCertificateReplacement(abort)) => replacement_id(&abort.id),
        Some(C::SetSecurityPolicy(set)) => trust::check::set_policy(set),
        Some(C::DeclareWellKnownAdmins(declare)) => trust::check::declare(declare),
        Some(C::RenewCertificate(renew)) => trust::check::renew(renew),
        Some(C::RecordUse(record)) => trust::check::record_use(record),
        Some(C::Owner(owner)) => trust::check::owner(owner),
        Some(C::NoteExpiry(note)) => trust::check::note_expiry(note),
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

/// The certificates of one entry.
pub(super) struct Collection {
    /// Gives the entry its thumbprint.
    pub primary: Parsed,
    /// The others.
    pub secondaries: Vec<Parsed>,
}

impl Collection {
    /// All of them, the primary first, each with the path of its field.
    pub(super) fn all(&self) -> impl Iterator<Item = (String, &Parsed)> {
        let secondaries = self.secondaries.iter().enumerate();
        std::iter::once(("der".to_owned(), &self.primary))
            .chain(secondaries.map(|(place, parsed)| (format!("secondaries[{place}]"), parsed)))
    }
}

/// `path` is empty, or the path of the message with a dot behind it.
pub(super) fn check_put(put: &PutCertificate, path: &str) -> Result<Collection, Refusal> {
    let under = |refusal: Refusal| Refusal { field: format!("{path}{}", refusal.field), ..refusal };
    CertificateName::parse(&put.name).map_err(|e| under(invalid("name", e)))?;
    clearance("clearance", put.clearance).map_err(under)?;
    grants(&put.grants).map_err(under)?;
    remarks(Some(&put.note), Some(&put.owner)).map_err(under)?;
    if put.generated && (put.overwrite || !put.secondaries.is_empty()) {
        let why = "what is generated is one new certificate";
        return Err(under(invalid("generated", why)));
    }
    collection(put).map_err(under)
}

fn collection(put: &PutCertificate) -> Result<Collection, Refusal> {
    if put.secondaries.len() >= limits::ENTRY_CERTIFICATES_MAX {
        return Err(too_many("secondaries", limits::ENTRY_CERTIFICATES_MAX - 1));
    }
    let primary = certificate("der", &put.der)?;
    let mut seen = BTreeSet::from([primary.thumbprint]);
    let mut secondaries = Vec::with_capacity(put.secondaries.len());
    for (place, der) in put.secondaries.iter().enumerate() {
        let field = format!("secondaries[{place}]");
        let parsed = certificate(&field, der)?;
        if !seen.insert(parsed.thumbprint) {
            return Err(invalid(field, "is given twice"));
        }
        secondaries.push(parsed);
    }
    Ok(Collection { primary, secondaries })
}

fn remarks(note: Option<&str>, owner: Option<&str>) -> Result<(), Refusal> {
    names::check_note(note.unwrap_or_default()).map_err(|e| invalid("note", e))?;
    names::check_owner(owner.unwrap_or_default()).map_err(|e| invalid("owner", e))
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
    remarks(edit.note.as_deref(), edit.owner.as_deref())?;
    grants(&edit.grants).map(drop)
}

/// How many entries a purge may change.
pub(super) fn purge_limit(limit: u32) -> Result<usize, Refusal> {
    match usize::try_from(limit) {
        Ok(limit) if (1..=limits::PURGED_MAX).contains(&limit) => Ok(limit),
        Ok(_) | Err(_) => Err(invalid("limit", format!("must be 1 to {}", limits::PURGED_MAX))),
    }
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

fn replacement_id(id: &[u8]) -> Result<(), Refusal> {
    if id.len() == 16 { Ok(()) } else { Err(invalid("id", "must be 16 bytes")) }
}

fn check_replacement(start: &StartCertificateReplacement) -> Result<(), Refusal> {
    replacement_id(&start.id)?;
    if start.nodes.len() > limits::NODES_MAX {
        return Err(too_many("nodes", limits::NODES_MAX));
    }
    let mut seen = BTreeSet::new();
    for (place, node) in start.nodes.iter().enumerate() {
        let field = |name: &str| format!("nodes[{place}].{name}");
        if !seen.insert(node.node_id) {
            return Err(invalid(field("node_id"), "this node is named twice"));
        }
        if node.chain.is_empty() || node.chain.len() > limits::CERTIFICATE_CHAIN_MAX {
            return Err(invalid(field("chain"), "must have 1 to 3 certificates"));
        }
        for der in &node.chain {
            certificate(field("chain"), der)?;
        }
        if node.sealed_key.is_empty() || node.sealed_key.len() > limits::SEALED_KEY_BYTES_MAX {
            return Err(invalid(field("sealed_key"), "is no sealed private key"));
        }
        let fresh = ReplacementNode {
            node_id: node.node_id,
            chain: node.chain.clone(),
            sealed_key: node.sealed_key.clone(),
            ..ReplacementNode::default()
        };
        if *node != fresh {
            return Err(invalid(field("thumbprint"), "is not for the author to say"));
        }
    }
    Ok(())
}

fn check_report(report: &ReportCertificateReplacement) -> Result<(), Refusal> {
    replacement_id(&report.id)?;
    match &report.report {
        Some(Report::Error(why)) if why.chars().count() > limits::NODE_ERROR_CHARS_MAX => {
            Err(too_many("error", limits::NODE_ERROR_CHARS_MAX))
        }
        Some(Report::Error(_) | Report::Installed(_) | Report::Swapped(_)) => Ok(()),
        None => Err(invalid("report", "there is none")),
    }
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
    let collection = check_put(administrator, path)?;
    if !collection.secondaries.is_empty() {
        let why = "the first certificates stand each for itself";
        return Err(invalid(format!("{path}secondaries"), why));
    }
    if clearance("clearance", administrator.clearance)? != Clearance::ClusterAdmin {
        return Err(invalid(
            format!("{path}clearance"),
            "the first certificates are Cluster Admins",
        ));
    }
    if !administrator.grants.is_empty() {
        return Err(invalid(format!("{path}grants"), "there are no databases yet"));
    }
    if !taken.insert(("certificate", collection.primary.thumbprint.as_bytes().to_vec())) {
        return Err(invalid(format!("{path}der"), "is given twice"));
    }
    Ok(())
}
