//! Entries of the cluster's log, from the bytes to the state: replicas agree, and nobody reaches beyond their clearance
//! whatever stands in the log.

mod seeds;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::LazyLock};

use prost::Message as _;
use rookery_proto::log::v1::{
    Applied, AuditRecord, ClusterCommand, Command, CreateDatabase, CreateJoinToken,
    DeleteCertificate, DeleteDatabase, EditCertificate, EndSession, EnrolSecondFactor, FormCluster,
    GrantByName, JoinNode, NodeRecord, NoteWrongCode, OpenSession, OwnerCommand, OwnerDelete,
    PurgeCertificates, PutCertificate, PutClusterSecret, RegisterSealingKey, RemoveNode,
    RemoveSecondFactor, SealedFor, SetCertificateState, SetDatabaseState, SetSecurityPolicy,
    applied, cluster_command, command, open_session, owner_command,
};

use super::{
    database::stops,
    input::{Input, push_piece},
    store::{Records, Replica},
};
use crate::{
    authz::Clearance,
    cluster::{self, Cluster, Registry},
    names::{Thumbprint, Timestamp},
};
use cluster_command::Command as C;
pub(super) use seeds::seeds;

const NOW: i64 = 1_750_000_000_000;
/// The request ids of the entries that make the state that every run begins with are below this.
const FIRST_REQUEST: u64 = 1_000;
/// Holders of certificates, by what they are in the beginning; the last ones are not registered.
const HOLDERS: [&str; 10] =
    ["n1", "n2", "root", "root2", "op", "alice", "bob", "carol", "dave", "n3"];

/// Self-signed certificates by name, the same in every run: the key is the name's digest, and Ed25519 takes no nonce.
static DERS: LazyLock<BTreeMap<&str, Vec<u8>>> =
    LazyLock::new(|| HOLDERS.iter().map(|name| (*name, certificate(name))).collect());

pub(super) fn certificate(name: &str) -> Vec<u8> {
    let prefix = hex::decode("302e020100300506032b657004220420").unwrap();
    let pkcs8 = [prefix.as_slice(), Thumbprint::of(name.as_bytes()).as_bytes()].concat();
    let pkcs8 = rustls_pki_types::PrivatePkcs8KeyDer::from(pkcs8);
    let key = rcgen::KeyPair::try_from(&pkcs8).unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.serial_number = Some(rcgen::SerialNumber::from(1));
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    params.self_signed(&key).unwrap().der().to_vec()
}

fn thumb(name: &str) -> Thumbprint {
    Thumbprint::of(&DERS[name])
}

/// The name that a short field stands for, so that short input meets registered certificates.
fn holder(bytes: &[u8]) -> Option<&'static str> {
    let [one] = bytes else { return None };
    HOLDERS.get(usize::from(*one) % HOLDERS.len()).copied()
}

fn expand_der(field: &mut Vec<u8>) {
    if let Some(name) = holder(field) {
        *field = DERS[name].clone();
    }
}

fn expand_thumbprint(field: &mut Vec<u8>) {
    if let Some(name) = holder(field) {
        *field = thumb(name).as_bytes().to_vec();
    }
}

#[allow(clippy::wildcard_enum_match_arm)] // A command that is forgotten here is reached less, and that is all.
fn expand(command: &mut ClusterCommand) {
    match command.command.as_mut() {
        Some(C::PutCertificate(put)) => {
            expand_der(&mut put.der);
            put.secondaries.iter_mut().for_each(expand_der);
        }
        Some(C::JoinNode(join)) => expand_der(&mut join.certificate),
        Some(C::RenewCertificate(renew)) => expand_der(&mut renew.der),
        Some(C::RenewNodeCertificate(renew)) => expand_der(&mut renew.certificate),
        Some(C::EditCertificate(edit)) => expand_thumbprint(&mut edit.thumbprint),
        Some(C::DeleteCertificate(delete)) => expand_thumbprint(&mut delete.thumbprint),
        Some(C::SetCertificateState(set)) => expand_thumbprint(&mut set.thumbprint),
        Some(C::EnrolSecondFactor(enrol)) => expand_thumbprint(&mut enrol.thumbprint),
        Some(C::OpenSession(open)) => expand_thumbprint(&mut open.thumbprint),
        Some(C::NoteWrongCode(note)) => expand_thumbprint(&mut note.thumbprint),
        Some(C::RemoveSecondFactor(remove)) => expand_thumbprint(&mut remove.thumbprint),
        Some(C::Owner(OwnerCommand {
            command: Some(owner_command::Command::Put(put)), ..
        })) => {
            expand_der(&mut put.der);
        }
        Some(C::Owner(OwnerCommand {
            command: Some(owner_command::Command::Delete(it)), ..
        })) => {
            expand_thumbprint(&mut it.thumbprint);
        }
        // Their fields are short anyway, or few.
        _ => {}
    }
}

/// The author of an entry: a holder, somebody who is none, or the node itself.
fn author(number: u8) -> (Vec<u8>, String) {
    match number % 12 {
        10 => (vec![9; 32], String::new()),
        11 => (Vec::new(), "join".to_owned()),
        holder => (thumb(HOLDERS[usize::from(holder)]).as_bytes().to_vec(), String::new()),
    }
}

/// The audit log of the state that every run begins with: its cluster, its records.
pub(super) fn audit_log() -> (String, Vec<AuditRecord>) {
    let cluster = Cluster::load(&FORMED.memory, FORMED.space).unwrap();
    let chunk = cluster::audit_chunk(&FORMED.memory, FORMED.space, 0).unwrap();
    (cluster.registry().cluster_id.clone(), chunk.records)
}

/// Two nodes, two Cluster Admins, one Operator, a User who may write a database, one who may do nothing.
static FORMED: LazyLock<Replica> = LazyLock::new(|| {
    let put = |name: &str, clearance, database: &str| {
        let grants = (!database.is_empty()).then(|| grant(database)).into_iter().collect();
        PutCertificate {
            der: DERS[name].clone(),
            name: name.to_owned(),
            clearance,
            grants,
            ..PutCertificate::default()
        }
    };
    let form = FormCluster {
        cluster_id: "0f0e0d0c-0b0a-4908-8706-050403020100".to_owned(),
        nodes: ["n1", "n2"].map(node).to_vec(),
        node_certificates: ["n1", "n2"].map(|name| DERS[name].clone()).to_vec(),
        administrators: ["root", "root2"].map(|name| put(name, 3, "")).to_vec(),
    };
    let create = CreateDatabase { name: "Sales".to_owned(), ..CreateDatabase::default() };
    let mut replica = Replica::new(0);
    let cluster = Cluster::load(&replica.memory, replica.space).unwrap();
    for (index, (by, command)) in (1..).zip([
        (11, C::FormCluster(form)),
        (2, C::PutCertificate(put("op", 2, ""))),
        (4, C::CreateDatabase(create)),
        (4, C::PutCertificate(put("alice", 1, "Sales"))),
        (4, C::PutCertificate(put("bob", 1, ""))),
    ]) {
        let command = enveloped(index, by, 0, ClusterCommand { command: Some(command) });
        let applied = replica.batch(|state| cluster.apply(index, &command, state)).unwrap();
        assert!(matches!(applied.outcome, Some(applied::Outcome::Cluster(_))), "{applied:?}");
    }
    replica
});

fn grant(database: &str) -> GrantByName {
    GrantByName { database: database.to_owned(), access: 2 }
}

fn node(name: &str) -> NodeRecord {
    NodeRecord {
        name: name.to_owned(),
        client_address: format!("{name}.example:7443"),
        peer_address: format!("{name}.example:7444"),
        incarnation: Thumbprint::of(name.as_bytes()).as_bytes()[..16].to_vec(),
        ..NodeRecord::default()
    }
}

fn enveloped(request: u64, by: u8, later_ms: i64, inner: ClusterCommand) -> Command {
    let (author, internal_reason) = author(by);
    Command {
        version: 1,
        request_id: [[0; 8], request.to_be_bytes()].concat(),
        author,
        internal_reason,
        at_unix_ms: NOW + later_ms,
        command: Some(command::Command::Cluster(inner)),
        ..Command::default()
    }
}

/// One entry: who (255: the bytes of a log as they are), how much later (in seconds, squared), and the command.
fn entry(by: u8, later: u8, bytes: &[u8], place: u64) -> Option<Command> {
    if by == u8::MAX {
        return Command::decode(bytes).ok();
    }
    let mut inner = ClusterCommand::decode(bytes).ok()?;
    expand(&mut inner);
    let later_ms = i64::from(later) * i64::from(later) * 1_000;
    // An odd place may repeat the request id of the one before.
    let request = FIRST_REQUEST + (place & !u64::from(by >> 7));
    Some(enveloped(request, by & 0x7f, later_ms, inner))
}

/// The body.
pub(super) fn commands(bytes: &[u8]) -> bool {
    let entries = run(bytes);
    let mut outcomes = entries.iter().map(|(_, _, applied)| applied.outcome.as_ref());
    outcomes.any(|outcome| matches!(outcome, Some(applied::Outcome::Cluster(_))))
}

/// Applies the entries and judges each; gives them with their replies.
fn run(bytes: &[u8]) -> Vec<(u64, Command, Applied)> {
    let mut input = Input::new(bytes);
    let mut replica = FORMED.clone();
    let cluster = Cluster::load(&replica.memory, replica.space).unwrap();
    let mut entries = Vec::new();
    while !input.is_empty() && entries.len() < 16 {
        let (by, later) = (input.byte(), input.byte());
        let Some(command) = entry(by, later, input.piece(), entries.len() as u64) else {
            continue;
        };
        assert_eq!(Command::decode(command.encode_to_vec().as_slice()).as_ref(), Ok(&command));
        let index = FIRST_REQUEST + entries.len() as u64;
        let (before, known) = (registered(&replica), cluster.registry());
        match replica.batch(|state| cluster.apply(index, &command, state)) {
            Ok(applied) => {
                assert_eq!(cluster.registry(), known, "what is not written yet is shown");
                let registry = cluster.publish();
                judge(&command, &applied, (&known, &before), (&registry, &registered(&replica)));
                entries.push((index, command, applied));
            }
            Err(error) => {
                assert!(stops(&error), "a command stops the node: {error}");
                break;
            }
        }
    }
    replica.check();
    let loaded = Cluster::load(&replica.memory, replica.space).unwrap();
    assert_eq!(
        *loaded.registry(),
        *cluster.publish(),
        "a node that starts anew knows another state"
    );
    agree(&replica, &entries);
    entries
}

/// The records that the registry is made of: without audit log, uses and kept results.
fn registered(replica: &Replica) -> Records {
    let mut records = replica.memory.records(replica.space);
    records.retain(|key, _| {
        key.first().is_some_and(|kind| !matches!(kind, 0x16 | 0x1c..=0x1e | 0x70..))
    });
    records
}

/// All entries in one batch, and each by a node that has just started.
fn agree(replica: &Replica, entries: &[(u64, Command, Applied)]) {
    let mut at_once = FORMED.clone();
    let cluster = Cluster::load(&at_once.memory, at_once.space).unwrap();
    let replies = at_once.batch(|state| {
        let entries = entries.iter();
        entries.map(|(index, command, _)| cluster.apply(*index, command, state)).collect()
    });
    let replies: Vec<Applied> = replies.map_err(|error: cluster::Error| error.to_string()).unwrap();
    assert!(replies.iter().eq(entries.iter().map(|(_, _, applied)| applied)), "other replies");
    assert_eq!(at_once.hash, replica.hash, "replicas differ");
    let mut restarted = FORMED.clone();
    for (index, command, applied) in entries {
        let cluster = Cluster::load(&restarted.memory, restarted.space).unwrap();
        let reply = restarted.batch(|state| cluster.apply(*index, command, state));
        assert_eq!(reply.map_err(|error| error.to_string()).as_ref(), Ok(applied));
    }
    assert_eq!(restarted.hash, replica.hash, "a node that started anew differs");
}

type Known<'a> = (&'a Registry, &'a Records);

/// What must hold of a command that was applied or refused, told by the states around it alone.
fn judge(command: &Command, applied: &Applied, before: Known<'_>, after: Known<'_>) {
    let Some(command::Command::Cluster(cluster)) = &command.command else {
        panic!("a command of another group was applied")
    };
    let changed = before.1 != after.1;
    match applied.outcome.as_ref().expect("an answer") {
        applied::Outcome::Refusal(refusal) => {
            assert!(!changed, "a refusal changed something: {refusal:?}");
            assert_eq!(before.0, after.0, "a refusal changed the registry");
            assert!(!refusal.reason.is_empty() && refusal.message.len() < 64 * 1024);
            return;
        }
        applied::Outcome::Cluster(_) => {}
        applied::Outcome::Database(_) => panic!("an outcome of another group"),
    }
    let (was, is) = (before.0, after.0);
    let lost = cluster::lost_rights(was, is);
    let waited_for = cluster::takes_rights_away(was, cluster);
    assert!(lost.is_empty() || waited_for, "nobody waits for {:?}", kind(cluster));
    let author = Thumbprint::from_bytes(&command.author).ok();
    let at = Timestamp(command.at_unix_ms);
    let Some(author) = author else {
        let own = matches!(cluster.command, Some(C::FormCluster(_) | C::JoinNode(_)));
        assert!(own || !changed, "the node did {:?} by itself", kind(cluster));
        return;
    };
    if !changed {
        return;
    }
    let clearance = was.certificate(&author).filter(|it| it.thumbprint == author && !it.disabled);
    let clearance = clearance.map(|registration| registration.clearance);
    match clearance {
        None => panic!("somebody who is not registered did {:?}", kind(cluster)),
        Some(Clearance::User) => {
            let own = matches!(cluster.command, Some(C::EndSession(_) | C::EnrolSecondFactor(_)));
            assert!(own, "a User did {:?}", kind(cluster));
        }
        Some(Clearance::Operator) => {
            assert_eq!(above_operator(was), above_operator(is), "by {:?}", kind(cluster));
        }
        Some(Clearance::ClusterAdmin | Clearance::ClusterNode) => {}
    }
    let by_force = matches!(cluster.command, Some(C::Owner(_)));
    assert!(by_force || !was.has_cluster_admin(at) || is.has_cluster_admin(at), "locked out");
}

fn above_operator(registry: &Registry) -> Vec<(Thumbprint, Clearance, bool)> {
    let all = registry.certificates(None);
    all.filter(|it| !Clearance::Operator.covers(it.registration.clearance))
        .map(|it| (it.registration.thumbprint, it.registration.clearance, it.registration.disabled))
        .collect()
}

/// The command's name, without its content.
fn kind(command: &ClusterCommand) -> String {
    let shown = format!("{:?}", command.command);
    shown.split('(').take(2).collect::<Vec<_>>().join("(")
}
