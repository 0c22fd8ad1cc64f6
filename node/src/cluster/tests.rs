//! Tests of the state machine: who may do what at a position of the log, and that replicas agree.
#![allow(clippy::unwrap_used, clippy::panic)]

mod own_node;
mod second_factor;
mod server_certificates;
mod trust;

use std::{collections::BTreeMap, ops::Deref, sync::LazyLock, time::Instant};

use proptest::prelude::*;
use prost::Message as _;
use rookery_proto::log::v1::{
    CreateDatabase, CreateJoinToken, DeleteCertificate, DeleteDatabase, EditCertificate,
    FormCluster, GrantByName, JoinNode, PutCertificate, RemoveNode, RevokeJoinToken,
    SetDatabaseState,
};

use super::*;
use crate::{
    authz::{Access, Clearance},
    limits,
    names::{DatabaseId, NodeId, Timestamp},
    results::testing::{Memory, refused, request_id, space},
    storage::StateHash,
};

const NOW: i64 = 1_750_000_000_000;
const CLUSTER_ID: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";
const USER: u32 = 1;
const OPERATOR: u32 = 2;
const ADMIN: u32 = 3;
const NODE: u32 = 4;

/// Certificates that all tests share; making keys is slow.
static DERS: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let make = |name: &str, from, to| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    };
    let long = [
        "new1", "new3", "n1", "n2", "n3", "n4", "root", "root2", "op", "op2", "alice", "bob",
        "carol", "x",
    ];
    let long = long.into_iter().map(|name| (name.to_owned(), make(name, 2020, 2090)));
    let expired = ["expired", "expired2", "expired3", "expired4"];
    let expired = expired.into_iter().map(|name| (name.to_owned(), make(name, 2020, 2024)));
    let future = [("future".to_owned(), make("future", 2080, 2090))];
    let early = [("early".to_owned(), make("early", 2020, 2030))];
    long.chain(expired).chain(future).chain(early).collect()
});

fn der(name: &str) -> Vec<u8> {
    DERS[name].clone()
}

fn thumb(name: &str) -> Thumbprint {
    Thumbprint::of(&DERS[name])
}

/// Who writes an entry: a certificate by its name, or the node.
#[derive(Debug, Clone, Copy)]
enum By {
    Cert(&'static str),
    Node,
}
use By::{Cert, Node};

mod entries;
mod lists;
mod overwrite;
mod purge;

/// Midnight (UTC) on the first of January, in milliseconds.
fn new_year(year: i32) -> i64 {
    rcgen::date_time_ymd(year, 1, 1).unix_timestamp() * 1000
}

fn envelope(request: u64, by: By, at: i64, inner: cluster_command::Command) -> Command {
    let (author, internal_reason) = match by {
        Cert(name) => (thumb(name).as_bytes().to_vec(), String::new()),
        Node => (Vec::new(), "test".to_owned()),
    };
    Command {
        version: 1,
        request_id: request_id(request),
        author,
        internal_reason,
        at_unix_ms: at,
        registry_revision: 0,
        origin_node_id: 0,
        command: Some(command::Command::Cluster(ClusterCommand { command: Some(inner) })),
    }
}

fn node(name: &str, port: u16) -> NodeRecord {
    NodeRecord {
        name: name.into(),
        client_address: format!("{name}.example:{port}"),
        peer_address: format!("{name}.example:{}", port + 1),
        incarnation: Thumbprint::of(name.as_bytes()).as_bytes()[..16].to_vec(),
        ..NodeRecord::default()
    }
}

fn put(name: &str, clearance: u32, grants: &[(&str, u32)]) -> cluster_command::Command {
    cluster_command::Command::PutCertificate(put_inner(name, clearance, grants))
}

fn put_inner(name: &str, clearance: u32, grants: &[(&str, u32)]) -> PutCertificate {
    let grants = grants_of(grants);
    let name_text = name.into();
    PutCertificate { der: der(name), name: name_text, clearance, grants, ..<_>::default() }
}

fn grants_of(grants: &[(&str, u32)]) -> Vec<GrantByName> {
    grants
        .iter()
        .map(|(database, access)| GrantByName { database: (*database).into(), access: *access })
        .collect()
}

fn generate(name: &str, clearance: u32) -> cluster_command::Command {
    let put = PutCertificate { generated: true, ..put_inner(name, clearance, &[]) };
    cluster_command::Command::PutCertificate(put)
}

fn edit(name: &str, change: EditCertificate) -> cluster_command::Command {
    let thumbprint = thumb(name).as_bytes().to_vec();
    cluster_command::Command::EditCertificate(EditCertificate { thumbprint, ..change })
}

fn clear(name: &str, clearance: u32) -> cluster_command::Command {
    edit(name, EditCertificate { clearance: Some(clearance), ..EditCertificate::default() })
}

fn grant(name: &str, grants: &[(&str, u32)]) -> cluster_command::Command {
    let grants = grants_of(grants);
    edit(name, EditCertificate { set_grants: true, grants, ..EditCertificate::default() })
}

fn rename(name: &str, to: &str) -> cluster_command::Command {
    edit(name, EditCertificate { name: Some(to.into()), ..EditCertificate::default() })
}

fn delete(name: &str) -> cluster_command::Command {
    let thumbprint = thumb(name).as_bytes().to_vec();
    cluster_command::Command::DeleteCertificate(DeleteCertificate { thumbprint })
}

fn create(name: &str, nodes: &[&str], replicas: u32) -> cluster_command::Command {
    let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
    cluster_command::Command::CreateDatabase(CreateDatabase { name: name.into(), nodes, replicas })
}

fn drop_database(name: &str) -> cluster_command::Command {
    cluster_command::Command::DeleteDatabase(DeleteDatabase { name: name.into() })
}

fn enable(name: &str, enabled: bool) -> cluster_command::Command {
    cluster_command::Command::SetDatabaseState(SetDatabaseState { name: name.into(), enabled })
}

fn token(id: &str, life_ms: i64) -> cluster_command::Command {
    cluster_command::Command::CreateJoinToken(CreateJoinToken {
        id: id.into(),
        secret_digest: vec![7; 32],
        expires_unix_ms: NOW + life_ms,
    })
}

fn revoke_token(id: &str) -> cluster_command::Command {
    cluster_command::Command::RevokeJoinToken(RevokeJoinToken { id: id.into() })
}

fn join_inner(token: &str, name: &str, certificate: &str) -> JoinNode {
    let node = node(name, 7443);
    JoinNode {
        token_id: token.into(),
        secret_digest: vec![7; 32],
        name: node.name,
        client_address: node.client_address,
        peer_address: node.peer_address,
        incarnation: node.incarnation,
        certificate: der(certificate),
    }
}

fn join(token: &str, name: &str) -> cluster_command::Command {
    cluster_command::Command::JoinNode(join_inner(token, name, name))
}

fn remove(node_id: u64) -> cluster_command::Command {
    cluster_command::Command::RemoveNode(RemoveNode { node_id })
}

fn form(nodes: &[&str], administrators: &[&str]) -> FormCluster {
    FormCluster {
        cluster_id: CLUSTER_ID.into(),
        nodes: nodes.iter().map(|name| node(name, 7443)).collect(),
        node_certificates: nodes.iter().map(|name| der(name)).collect(),
        administrators: administrators.iter().map(|name| put_inner(name, ADMIN, &[])).collect(),
    }
}

fn form_command(form: FormCluster) -> cluster_command::Command {
    cluster_command::Command::FormCluster(form)
}

/// One replica and its place in the log.
struct Replica {
    memory: Memory,
    cluster: Cluster,
    index: u64,
}

impl Replica {
    fn empty() -> Self {
        let memory = Memory::default();
        let cluster = Cluster::load(&memory, space(0)).unwrap();
        Self { memory, cluster, index: 0 }
    }

    /// Three nodes; Cluster Admins root and root2, Operators op and op2; databases Sales and stock; alice may write
    /// Sales and read stock, bob may do nothing.
    fn populated() -> Self {
        let mut replica = Self::empty();
        replica.ok(Node, form_command(form(&["n1", "n2", "n3"], &["root", "root2"])));
        replica.ok(Cert("root"), put("op", OPERATOR, &[]));
        replica.ok(Cert("root"), put("op2", OPERATOR, &[]));
        replica.ok(Cert("op"), create("Sales", &[], 0));
        replica.ok(Cert("op"), create("stock", &["n2"], 0));
        replica.ok(Cert("op"), put("alice", USER, &[("sales", 2), ("STOCK", 1)]));
        replica.ok(Cert("op"), put("bob", USER, &[]));
        replica
    }

    fn apply(&mut self, command: &Command) -> Applied {
        self.index += 1;
        let index = self.index;
        let before = self.cluster.working.lock().clone();
        let cluster = &self.cluster;
        let applied = self.memory.batch(0, |state| cluster.apply(index, command, state)).unwrap();
        // What was applied is not visible before it is published.
        assert!(self.cluster.registry().revision <= before.revision);
        let registry = self.cluster.publish();
        assert_eq!(*registry, *self.cluster.registry());
        if refused(&applied).is_some() {
            assert_eq!(*registry, before, "a refusal changes nothing");
        }
        self.check_records();
        applied
    }

    /// The records make exactly the registry that applying made, and the state hash is that of the records.
    fn check_records(&self) {
        assert_eq!(self.memory.hash, self.memory.rehash());
        let loaded = Cluster::load(&self.memory, space(0)).unwrap();
        assert_eq!(*loaded.registry(), *self.cluster.registry());
    }

    fn run(&mut self, by: By, command: cluster_command::Command) -> Applied {
        self.run_at(by, NOW, command)
    }

    fn run_at(&mut self, by: By, at: i64, command: cluster_command::Command) -> Applied {
        let command = envelope(self.index, by, at, command);
        self.apply(&command)
    }

    fn ok(&mut self, by: By, command: cluster_command::Command) -> cluster_outcome::Outcome {
        self.ok_at(by, NOW, command)
    }

    fn ok_at(
        &mut self,
        by: By,
        at: i64,
        command: cluster_command::Command,
    ) -> cluster_outcome::Outcome {
        let shown = format!("{by:?} {:?}", command.encoded_kind());
        let applied = self.run_at(by, at, command);
        match applied.outcome.unwrap() {
            applied::Outcome::Cluster(outcome) => {
                assert_eq!(applied.registry_revision, self.registry().revision);
                outcome.outcome.unwrap()
            }
            other @ (applied::Outcome::Refusal(_) | applied::Outcome::Database(_)) => {
                panic!("{shown}: {other:?}")
            }
        }
    }

    fn no(&mut self, by: By, command: cluster_command::Command, reason: &str, field: &str) {
        let shown = format!("{by:?} {:?}", command.encoded_kind());
        let applied = self.run(by, command);
        assert_eq!(refused(&applied), Some((reason, field)), "{shown}");
    }

    fn registry(&self) -> impl Deref<Target = Registry> + use<> {
        self.cluster.registry()
    }

    fn grants(&self, name: &str) -> Vec<(u64, Access)> {
        let registry = self.registry();
        let registration = registry.certificate(&thumb(name)).unwrap();
        registration.grants.iter().map(|(id, access)| (id.0, *access)).collect()
    }
}

/// The variant's name, without the bytes of certificates.
trait Kind {
    fn encoded_kind(&self) -> String;
}
impl Kind for cluster_command::Command {
    fn encoded_kind(&self) -> String {
        let shown = format!("{self:?}");
        shown.split('(').next().unwrap().to_owned()
    }
}

#[test]
fn a_cluster_is_formed_once_and_by_the_node_itself() {
    let mut replica = Replica::empty();
    assert!(!replica.registry().is_formed());
    replica.no(Cert("root"), put("op", OPERATOR, &[]), "NOT_FORMED", "");
    replica.no(Node, join("t", "n4"), "NOT_FORMED", "");
    let good = form(&["n1", "n2"], &["root"]);
    replica.no(Cert("root"), form_command(good.clone()), "CERTIFICATE_UNKNOWN", "");
    assert!(replica.memory.records.keys().all(|key| key[0] >= 0x70));

    replica.ok(Node, form_command(good.clone()));
    let registry = replica.registry();
    assert_eq!(registry.cluster_id, CLUSTER_ID);
    assert_eq!(registry.nodes().map(|node| node.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(registry.member(&thumb("n2")).unwrap().name, "n2");
    let n1 = registry.certificate(&thumb("n1")).unwrap();
    assert_eq!((n1.clearance, n1.node), (Clearance::ClusterNode, Some(NodeId(1))));
    assert_eq!(registry.certificate(&thumb("root")).unwrap().clearance, Clearance::ClusterAdmin);
    assert_eq!(&*registry.certificate(&thumb("root")).unwrap().der, der("root"));
    replica.no(Node, form_command(good.clone()), "ALREADY_FORMED", "");
    replica.no(Cert("root"), form_command(good), "ALREADY_FORMED", "");
}

#[test]
fn a_formation_that_is_not_sound_is_refused_with_the_field() {
    let good = || form(&["n1", "n2"], &["root"]);
    type Spoil = fn(&mut FormCluster);
    let cases: Vec<(&str, &str, Spoil)> = vec![
        ("INVALID_ARGUMENT", "cluster_id", |f| f.cluster_id = "x".into()),
        ("INVALID_ARGUMENT", "nodes", |f| f.nodes.clear()),
        ("LIMIT_EXCEEDED", "nodes", |f| f.nodes = vec![f.nodes[0].clone(); 65]),
        ("INVALID_ARGUMENT", "node_certificates", |f| drop(f.node_certificates.pop())),
        ("INVALID_ARGUMENT", "administrators", |f| f.administrators.clear()),
        ("INVALID_ARGUMENT", "nodes[0].name", |f| f.nodes[0].name = "a b".into()),
        ("INVALID_ARGUMENT", "nodes[1].name", |f| f.nodes[1].name = "n1".into()),
        ("INVALID_ARGUMENT", "nodes[0].certificate", |f| f.node_certificates[0] = vec![0x30]),
        ("INVALID_ARGUMENT", "nodes[1].certificate", |f| f.node_certificates[1] = der("n1")),
        ("INVALID_ARGUMENT", "nodes[0].thumbprint", |f| f.nodes[0].thumbprint = vec![1; 32]),
        ("INVALID_ARGUMENT", "nodes[0].incarnation", |f| f.nodes[0].incarnation = vec![1; 15]),
        ("INVALID_ARGUMENT", "nodes[1].incarnation", |f| {
            f.nodes[1].incarnation = f.nodes[0].incarnation.clone();
        }),
        ("INVALID_ARGUMENT", "nodes[1].peer_address", |f| {
            f.nodes[1].peer_address = f.nodes[0].client_address.clone();
        }),
        ("INVALID_ARGUMENT", "administrators[0].clearance", |f| f.administrators[0].clearance = 2),
        ("INVALID_ARGUMENT", "administrators[0].name", |f| f.administrators[0].name = " ".into()),
        ("INVALID_ARGUMENT", "administrators[0].der", |f| f.administrators[0].der = der("n1")),
        ("INVALID_ARGUMENT", "administrators[0].grants", |f| {
            f.administrators[0].grants = grants_of(&[("a", 1)]);
        }),
    ];
    for (reason, field, spoil) in cases {
        let mut bad = good();
        spoil(&mut bad);
        Replica::empty().no(Node, form_command(bad), reason, field);
    }
    for address in
        ["", "host", ":1", "host:", "host:0", "host:65536", "0.0.0.0:1", "[::]:1", "a b:1", "a\n:1"]
    {
        let mut bad = good();
        bad.nodes[0].client_address = address.into();
        Replica::empty().no(Node, form_command(bad), "INVALID_ARGUMENT", "nodes[0].client_address");
    }
    for address in ["127.0.0.1:1", "[::1]:65535", "n1.example:7443"] {
        let mut fine = good();
        fine.nodes[0].client_address = address.into();
        Replica::empty().ok(Node, form_command(fine));
    }
}

/// Part B.3 of the specification, held against `apply` itself.
#[test]
fn nobody_reaches_beyond_their_clearance_whatever_stands_in_the_log() {
    const LOW: &str = "CLEARANCE_TOO_LOW";
    const MANAGE: &str = "MANAGE_FORBIDDEN";
    let rows: Vec<(By, cluster_command::Command, Option<&str>)> = vec![
        // Operators: Users and Operators, and nothing above, by no road.
        (Cert("op"), put("carol", USER, &[]), None),
        (Cert("op"), put("carol", OPERATOR, &[]), None),
        (Cert("op"), put("carol", ADMIN, &[]), Some(MANAGE)),
        (Cert("op"), put("carol", NODE, &[]), Some(MANAGE)),
        (Cert("op"), generate("carol", OPERATOR), None),
        (Cert("op"), generate("carol", ADMIN), Some(MANAGE)),
        (Cert("op"), generate("carol", NODE), Some(MANAGE)),
        (Cert("op"), put("root", USER, &[]), Some("ALREADY_EXISTS")),
        (Cert("op"), put("n1", USER, &[]), Some(MANAGE)),
        (Cert("op"), clear("bob", ADMIN), Some(MANAGE)),
        (Cert("op"), clear("bob", NODE), Some(MANAGE)),
        (Cert("op"), clear("bob", OPERATOR), None),
        (Cert("op"), clear("root", USER), Some(MANAGE)),
        (Cert("op"), clear("n1", USER), Some(MANAGE)),
        (Cert("op"), rename("root", "x"), Some(MANAGE)),
        (Cert("op"), delete("root"), Some(MANAGE)),
        (Cert("op"), delete("n1"), Some(MANAGE)),
        (Cert("op"), delete("op2"), None),
        (Cert("op"), delete("bob"), None),
        (Cert("op"), rename("op", "new name"), None),
        (Cert("op"), clear("op", ADMIN), Some(MANAGE)),
        (Cert("op"), clear("op", USER), Some("OWN_CERTIFICATE")),
        (Cert("op"), delete("op"), Some("OWN_CERTIFICATE")),
        (Cert("op"), token("t", 1), Some(LOW)),
        (Cert("op"), revoke_token("t"), Some(LOW)),
        (Cert("op"), remove(3), Some(LOW)),
        // Users: nothing here.
        (Cert("alice"), put("carol", USER, &[]), Some(LOW)),
        (Cert("alice"), rename("alice", "x"), Some(LOW)),
        (Cert("alice"), delete("bob"), Some(LOW)),
        (Cert("alice"), create("mine", &[], 0), Some(LOW)),
        (Cert("alice"), enable("sales", false), Some(LOW)),
        (Cert("alice"), drop_database("sales"), Some(LOW)),
        (Cert("alice"), token("t", 1), Some(LOW)),
        // Cluster Admins and Cluster Nodes: all but what nobody may.
        (Cert("root"), put("carol", ADMIN, &[]), None),
        (Cert("root"), put("carol", NODE, &[]), None),
        (Cert("root"), generate("carol", ADMIN), None),
        (Cert("root"), generate("carol", NODE), Some(MANAGE)),
        (Cert("n1"), put("carol", ADMIN, &[]), None),
        (Cert("root"), clear("op", ADMIN), None),
        (Cert("root"), clear("root", USER), Some("CONFIRMATION_REQUIRED")),
        (Cert("root"), clear("n1", USER), Some(MANAGE)),
        (Cert("root"), delete("n1"), Some(MANAGE)),
        (Cert("root"), delete("root"), Some("OWN_CERTIFICATE")),
        (Cert("root"), delete("root2"), None),
        // Nobody: unknown certificates, and the node in its own name.
        (Cert("x"), put("carol", USER, &[]), Some("CERTIFICATE_UNKNOWN")),
        (Node, put("carol", USER, &[]), Some(LOW)),
        (Node, delete("bob"), Some(LOW)),
        (Node, create("mine", &[], 0), Some(LOW)),
        (Node, token("t", 1), Some(LOW)),
        (Node, remove(3), Some(LOW)),
    ];
    for (by, command, expected) in rows {
        let shown = format!("{by:?} {command:?}");
        let applied = Replica::populated().run(by, command);
        assert_eq!(refused(&applied).map(|(reason, _)| reason), expected, "{shown:.300}");
    }
}

#[test]
fn the_log_decides_between_administrators_who_revoke_each_other() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root2"), clear("root", USER));
    // Written when root was an administrator still, and too late.
    replica.no(Cert("root"), delete("root2"), "CLEARANCE_TOO_LOW", "");
    replica.no(Cert("root2"), clear("root2", OPERATOR), "LAST_CLUSTER_ADMIN", "");
    replica.no(Cert("n1"), delete("root2"), "LAST_CLUSTER_ADMIN", "");
    replica.no(Cert("root2"), clear("root2", NODE), "LAST_CLUSTER_ADMIN", "");
    replica.ok(Cert("n1"), delete("root"));
    replica.no(Cert("root"), create("a", &[], 0), "CERTIFICATE_UNKNOWN", "");
    // An expired Cluster Admin is no administrator who could help.
    replica.ok(Cert("root2"), put("expired", ADMIN, &[]));
    replica.no(Cert("n1"), delete("root2"), "LAST_CLUSTER_ADMIN", "");
    replica.no(Cert("expired"), create("a", &[], 0), "CERTIFICATE_EXPIRED", "");
    replica.ok(Cert("n1"), delete("expired"));
    replica.ok(Cert("root2"), put("expired", ADMIN, &[]));
    // The dates are held against the entry's time and no other.
    let then = 1_650_000_000_000;
    let applied = replica.run_at(Cert("expired"), then, create("a", &[], 0));
    assert_eq!(refused(&applied), None);
    let long_ago = replica.run_at(Cert("root2"), 0, create("b", &[], 0));
    assert_eq!(refused(&long_ago).unwrap().0, "CERTIFICATE_NOT_YET_VALID");
}

#[test]
fn certificates_are_registered_edited_and_deleted() {
    let mut replica = Replica::populated();
    assert_eq!(replica.grants("alice"), [(1, Access::ReadWrite), (2, Access::Read)]);
    let details = Arc::clone(replica.registry().certificate_details(&thumb("alice")).unwrap());
    assert_eq!((details.entry.created.0, details.entry.created_by), (NOW, Some(thumb("op"))));
    assert_eq!(details.registration.not_after, Timestamp(3_786_912_000_000));

    for (command, reason, field) in [
        (put("alice", USER, &[]), "ALREADY_EXISTS", "der"),
        (put("carol", 0, &[]), "INVALID_ARGUMENT", "clearance"),
        (put("carol", 5, &[]), "INVALID_ARGUMENT", "clearance"),
        (put("carol", USER, &[("../x", 1)]), "INVALID_ARGUMENT", "grants[0].database"),
        (
            put("carol", USER, &[("Sales", 1), ("sALES", 2)]),
            "INVALID_ARGUMENT",
            "grants[1].database",
        ),
        (put("carol", USER, &[("Sales", 0)]), "INVALID_ARGUMENT", "grants[0].access"),
        (put("carol", USER, &[("Sales", 4)]), "INVALID_ARGUMENT", "grants[0].access"),
        (put("carol", USER, &[("Sales", 1), ("none", 1)]), "NOT_FOUND", "grants[1].database"),
        (put("carol", USER, &vec![("a", 1); limits::GRANTS_MAX + 1]), "LIMIT_EXCEEDED", "grants"),
        (rename("carol", "x"), "NOT_FOUND", "thumbprint"),
        (delete("carol"), "NOT_FOUND", "thumbprint"),
        (rename("alice", "a\nb"), "INVALID_ARGUMENT", "name"),
        (clear("alice", 9), "INVALID_ARGUMENT", "clearance"),
        (grant("alice", &[("none", 1)]), "NOT_FOUND", "grants[0].database"),
        (
            edit("alice", EditCertificate { grants: grants_of(&[("sales", 1)]), ..<_>::default() }),
            "INVALID_ARGUMENT",
            "grants",
        ),
        (
            edit("alice", EditCertificate { expected_revision: 1, ..<_>::default() }),
            "CONCURRENCY",
            "expected_revision",
        ),
    ] {
        replica.no(Cert("op"), command, reason, field);
    }
    for bad in [vec![], vec![0x30, 0x03, 1, 2, 3], [der("carol"), vec![0]].concat()] {
        let put = PutCertificate { der: bad, ..put_inner("carol", USER, &[]) };
        let command = cluster_command::Command::PutCertificate(put);
        replica.no(Cert("op"), command, "INVALID_ARGUMENT", "der");
    }

    let revision = details.registration.revision;
    let change = EditCertificate {
        name: Some("Alice B.".into()),
        clearance: Some(OPERATOR),
        expected_revision: revision,
        ..EditCertificate::default()
    };
    replica.ok(Cert("op"), edit("alice", change.clone()));
    let registry = replica.registry();
    let alice = registry.certificate(&thumb("alice")).unwrap();
    assert_eq!((alice.name.as_str(), alice.clearance), ("Alice B.", Clearance::Operator));
    assert_eq!((alice.revision, registry.revision), (replica.index, replica.index));
    assert_eq!(alice.grants.len(), 2, "an edit that does not set the grants keeps them");
    // An edit that changes nothing is no change.
    let unchanged = EditCertificate { expected_revision: 0, ..change };
    replica.ok(Cert("op"), edit("alice", unchanged));
    assert_eq!(replica.registry().revision, registry.revision);
    let outcome = replica.ok(Cert("op"), grant("alice", &[("stock", 3), ("sales", 1)]));
    let cluster_outcome::Outcome::Certificate(record) = outcome else { panic!() };
    let ids: Vec<_> = record.grants.iter().map(|grant| grant.database_id).collect();
    assert_eq!(ids, [1, 2], "in the order of database ids, however they were given");
    replica.ok(Cert("op"), grant("alice", &[]));
    assert_eq!(replica.grants("alice"), []);
    replica.ok(Cert("op"), delete("alice"));
    assert!(replica.registry().certificate(&thumb("alice")).is_none());
}

#[test]
fn a_grant_never_opens_a_namesake_of_a_deleted_database() {
    let mut replica = Replica::populated();
    replica.ok(Cert("op"), drop_database("SALES"));
    assert_eq!(replica.grants("alice"), [(2, Access::Read)]);
    let outcome = replica.ok(Cert("op"), create("sales", &[], 0));
    let cluster_outcome::Outcome::Database(record) = outcome else { panic!() };
    assert_eq!((record.id, record.name.as_str()), (3, "sales"));
    assert_eq!(replica.grants("alice"), [(2, Access::Read)]);
}

#[test]
fn databases_are_placed_on_the_least_used_nodes() {
    let mut replica = Replica::populated();
    let placed = |replica: &Replica, name: &str| {
        let name = DatabaseName::parse(name).unwrap();
        replica.registry().database(&name).unwrap().node_ids.clone()
    };
    assert_eq!(placed(&replica, "sales"), [1, 2, 3]);
    assert_eq!(placed(&replica, "stock"), [2]);
    for (name, nodes, replicas, expected) in [
        ("a", vec![], 1, vec![1]),
        ("b", vec![], 1, vec![3]),
        ("c", vec![], 2, vec![1, 2]),
        ("d", vec!["n3", "n1"], 1, vec![1, 3]),
        ("e", vec![], 3, vec![1, 2, 3]),
    ] {
        replica.ok(Cert("op"), create(name, &nodes, replicas));
        assert_eq!(placed(&replica, name), expected, "{name}");
    }
    for (command, reason, field) in [
        (create("sALES", &[], 0), "ALREADY_EXISTS", "name"),
        (create("con", &[], 0), "INVALID_ARGUMENT", "name"),
        (create("ſales", &[], 0), "INVALID_ARGUMENT", "name"),
        (create("f", &[], 4), "INVALID_ARGUMENT", "replicas"),
        (create("f", &["n1", "n9"], 0), "NOT_FOUND", "nodes[1]"),
        (create("f", &["n1", "n1"], 0), "INVALID_ARGUMENT", "nodes[1]"),
        (enable("none", true), "NOT_FOUND", "name"),
        (drop_database("none"), "NOT_FOUND", "name"),
    ] {
        replica.no(Cert("op"), command, reason, field);
    }
    let enabled = |replica: &Replica| {
        let registry = replica.registry();
        registry.database_by_id(DatabaseId(1)).unwrap().enabled
    };
    replica.ok(Cert("op"), enable("sales", false));
    assert!(!enabled(&replica));
    let revision = replica.registry().revision;
    replica.ok(Cert("op"), enable("Sales", false));
    assert_eq!(replica.registry().revision, revision);
    replica.ok(Cert("op"), enable("Sales", true));
    assert!(enabled(&replica));
    let names: Vec<_> =
        replica.registry().databases_by_name(Some("b")).map(|d| d.name.clone()).collect();
    assert_eq!(names, ["c", "d", "e", "Sales", "stock"]);
}

#[test]
fn a_join_token_admits_one_node_once() {
    const REFUSED: &str = "JOIN_TOKEN_REFUSED";
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), token("t", 1_000));
    let joins = cluster_command::Command::JoinNode;
    let good = || join_inner("t", "n4", "n4");
    replica.no(Cert("root"), token("t", 1_000), "ALREADY_EXISTS", "id");
    replica.no(Cert("root"), token("late", 0), "INVALID_ARGUMENT", "expires_unix_ms");
    for (inner, reason, field) in [
        (JoinNode { token_id: "u".into(), ..good() }, REFUSED, ""),
        (JoinNode { secret_digest: vec![8; 32], ..good() }, REFUSED, ""),
        (JoinNode { secret_digest: vec![7; 31], ..good() }, "INVALID_ARGUMENT", "secret_digest"),
        (JoinNode { name: "n2".into(), ..good() }, "NAME_IN_USE", "name"),
        (
            JoinNode { client_address: node("n2", 7443).peer_address, ..good() },
            "NAME_IN_USE",
            "client_address",
        ),
        (
            JoinNode { incarnation: node("n1", 1).incarnation, ..good() },
            "NODE_ID_REUSED",
            "incarnation",
        ),
        (JoinNode { certificate: der("alice"), ..good() }, "ALREADY_EXISTS", "certificate"),
        (JoinNode { certificate: vec![1], ..good() }, "INVALID_ARGUMENT", "certificate"),
        (
            JoinNode { peer_address: "0.0.0.0:1".into(), ..good() },
            "INVALID_ARGUMENT",
            "peer_address",
        ),
        (
            JoinNode { peer_address: good().client_address, ..good() },
            "INVALID_ARGUMENT",
            "peer_address",
        ),
    ] {
        replica.no(Node, joins(inner), reason, field);
    }
    // Only the holder of the certificate that joins may bring the token.
    replica.no(Cert("alice"), joins(good()), REFUSED, "");
    let late = replica.run_at(Node, NOW + 1_001, joins(good()));
    assert_eq!(refused(&late).unwrap().0, REFUSED);

    let outcome = replica.ok(Cert("n4"), joins(good()));
    let cluster_outcome::Outcome::Node(joined) = outcome else { panic!() };
    assert_eq!(joined.id, 4);
    let registry = replica.registry();
    assert_eq!(registry.member(&thumb("n4")).unwrap().id, 4);
    assert_eq!(registry.certificate(&thumb("n4")).unwrap().node, Some(NodeId(4)));
    assert!(join_tokens(&replica.memory, space(0)).unwrap().is_empty());
    replica.no(Node, joins(join_inner("t", "n5", "x")), REFUSED, "");
}

#[test]
fn a_token_ends_with_its_time_its_revocation_or_its_makers_rights() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root2"), token("made-by-root2", 1_000));
    replica.ok(Cert("root"), clear("root2", OPERATOR));
    replica.no(Node, join("made-by-root2", "n4"), "JOIN_TOKEN_REFUSED", "");
    replica.ok(Cert("root"), token("t", 1_000));
    replica.ok(Cert("root"), revoke_token("t"));
    replica.no(Node, join("t", "n4"), "JOIN_TOKEN_REFUSED", "");
    replica.no(Cert("root"), revoke_token("t"), "NOT_FOUND", "id");
    let revision = replica.registry().revision;
    replica.ok(Cert("root"), token("year", 365 * 24 * 3600 * 1000));
    assert_eq!(replica.registry().revision, revision, "tokens are no part of the registry");
    let tokens = join_tokens(&replica.memory, space(0)).unwrap();
    assert_eq!(tokens[1].expires_unix_ms, NOW + 7 * 24 * 3600 * 1000);

    for n in 2..limits::JOIN_TOKENS_MAX {
        replica.ok(Cert("root"), token(&format!("n{n}"), 1_000));
    }
    replica.no(Cert("root"), token("more", 1_000), "LIMIT_EXCEEDED", "");
    let later = replica.run_at(Cert("root"), NOW + 1_001, token("more", 2_000));
    assert_eq!(refused(&later), None);
    assert_eq!(join_tokens(&replica.memory, space(0)).unwrap().len(), 2);
}

#[test]
fn a_removed_node_is_revoked_and_never_comes_back_under_its_id() {
    let mut replica = Replica::populated();
    replica.no(Cert("root"), remove(9), "NOT_FOUND", "node_id");
    replica.no(Cert("root"), remove(2), "NODE_IN_USE", "node_id");
    replica.ok(Cert("root"), remove(3));
    let registry = replica.registry();
    assert!(registry.node(NodeId(3)).is_none() && registry.is_removed(NodeId(3)));
    assert!(registry.member(&thumb("n3")).is_none());
    assert!(registry.certificate(&thumb("n3")).is_none());
    assert_eq!(registry.database_by_id(DatabaseId(1)).unwrap().node_ids, [1, 2]);
    replica.no(Cert("root"), remove(3), "NOT_FOUND", "node_id");
    replica.no(Cert("n3"), token("t", 1), "CERTIFICATE_UNKNOWN", "");

    replica.ok(Cert("root"), token("t", 1_000));
    replica.no(Node, join("t", "n3"), "NODE_ID_REUSED", "incarnation");
    let fresh = JoinNode { incarnation: vec![9; 16], ..join_inner("t", "n3", "n3") };
    let outcome = replica.ok(Node, cluster_command::Command::JoinNode(fresh));
    let cluster_outcome::Outcome::Node(joined) = outcome else { panic!() };
    assert_eq!(joined.id, 4);
    assert_eq!(replica.registry().member(&thumb("n3")).unwrap().id, 4);

    replica.ok(Cert("root"), drop_database("stock"));
    replica.ok(Cert("root"), drop_database("sales"));
    replica.ok(Cert("root"), remove(1));
    replica.ok(Cert("root"), remove(2));
    replica.no(Cert("root"), remove(4), "LAST_NODE", "node_id");
}

#[test]
fn a_repeated_request_id_has_one_outcome() {
    let mut replica = Replica::populated();
    let command = envelope(900, Cert("op"), NOW, create("a", &[], 0));
    let first = replica.apply(&command);
    assert_eq!(refused(&first), None);
    assert_eq!(replica.apply(&Command { at_unix_ms: NOW + 5, ..command.clone() }), first);
    let other = envelope(900, Cert("op"), NOW, create("b", &[], 0));
    let reused = replica.apply(&other);
    assert_eq!(refused(&reused), Some(("REQUEST_ID_REUSED", "request_id")));
    let by_other = envelope(900, Cert("root"), NOW, create("a", &[], 0));
    assert_eq!(refused(&replica.apply(&by_other)).unwrap().0, "REQUEST_ID_REUSED");
    // The answer stays the one that the author got when they had the rights for it.
    replica.ok(Cert("root"), delete("op"));
    assert_eq!(replica.apply(&command), first);
}

#[test]
fn commands_that_this_build_does_not_know_stop_the_node() {
    let replica = Replica::populated();
    let good = envelope(900, Cert("root"), NOW, create("a", &[], 0));
    let empty = Some(command::Command::Cluster(ClusterCommand { command: None }));
    let database = Some(command::Command::Database(<_>::default()));
    for bad in [
        Command { version: 2, ..good.clone() },
        Command { version: 0, ..good.clone() },
        Command { command: None, ..good.clone() },
        Command { command: empty, ..good.clone() },
        Command { command: database, ..good.clone() },
    ] {
        let mut memory = replica.memory.clone();
        let error = memory.batch(0, |state| replica.cluster.apply(99, &bad, state)).unwrap_err();
        assert!(error.to_string().contains("log entry 99"), "{error}");
        assert_eq!(memory, replica.memory);
    }
    assert!(check(&ClusterCommand { command: None }).is_err());
}

#[test]
fn a_record_that_is_not_what_its_key_promises_is_an_error() {
    let replica = Replica::populated();
    for prefix in 0x10..=0x13u8 {
        let mut memory = replica.memory.clone();
        let (key, value) =
            memory.records.range_mut(vec![prefix]..).next().map(|(k, v)| (k.clone(), v)).unwrap();
        assert_eq!(key[0], prefix);
        *value = vec![0xff];
        let error = Cluster::load(&memory, space(0)).err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(replica.cluster.reload(&memory, space(0)).is_err());
    }
    let mut memory = replica.memory.clone();
    let mut keys = memory.records.keys().filter(|key| key[0] == 0x11).cloned();
    let (one, two) = (keys.next().unwrap(), keys.next().unwrap());
    drop(keys);
    let moved = memory.records[&one].clone();
    memory.records.insert(two, moved);
    assert!(Cluster::load(&memory, space(0)).is_err());
    assert_eq!(*replica.cluster.registry(), *replica.registry());
}

#[test]
fn commands_that_may_take_rights_away_are_told_apart() {
    let replica = Replica::populated();
    let registry = replica.registry();
    let revision = registry.certificate(&thumb("alice")).unwrap().revision;
    let at = |change: EditCertificate| {
        edit("alice", EditCertificate { expected_revision: revision, ..change })
    };
    let grants = |grants: &[(&str, u32)]| EditCertificate {
        set_grants: true,
        grants: grants_of(grants),
        ..EditCertificate::default()
    };
    let clearance =
        |number| EditCertificate { clearance: Some(number), ..EditCertificate::default() };
    for (command, expected) in [
        (form_command(form(&["n1"], &["root"])), false),
        (put("carol", USER, &[]), false),
        (delete("bob"), true),
        (create("a", &[], 0), false),
        (enable("sales", true), false),
        (enable("sales", false), true),
        (drop_database("sales"), true),
        (token("t", 1), false),
        (revoke_token("t"), false),
        (join("t", "n4"), false),
        (remove(1), true),
        (rename("alice", "x"), false),
        // Without the revision the comparison could be with an older record.
        (clear("alice", ADMIN), true),
        (grant("alice", &[("sales", 3), ("stock", 3)]), true),
        (clear("carol", ADMIN), true),
        (at(clearance(USER)), false),
        (at(clearance(ADMIN)), false),
        (at(clearance(0)), true),
        (at(grants(&[("SALES", 2), ("stock", 1)])), false),
        (at(grants(&[("sales", 3), ("stock", 2)])), false),
        (at(grants(&[("sales", 1), ("stock", 1)])), true),
        (at(grants(&[("sales", 2)])), true),
        (at(grants(&[])), true),
        (at(EditCertificate { clearance: Some(OPERATOR), ..grants(&[("sales", 1)]) }), true),
    ] {
        let shown = format!("{command:?}");
        let command = ClusterCommand { command: Some(command) };
        assert_eq!(takes_rights_away(&registry, &command), expected, "{shown:.200}");
        assert!(authz::ServerOperation::ALL.contains(&operation(&command)));
    }
    assert!(takes_rights_away(&registry, &ClusterCommand { command: None }));
}

#[test]
fn those_who_lost_rights_are_found_by_comparing_two_registries() {
    let rows: Vec<(cluster_command::Command, &[&str])> = vec![
        (put("carol", USER, &[]), &[]),
        (rename("alice", "x"), &[]),
        (clear("alice", ADMIN), &[]),
        (clear("op", USER), &["op"]),
        (clear("root2", NODE), &[]),
        (clear("root2", OPERATOR), &["root2"]),
        (grant("alice", &[("sales", 3), ("stock", 1)]), &[]),
        (grant("alice", &[("sales", 1), ("stock", 1)]), &["alice"]),
        (grant("alice", &[]), &["alice"]),
        (delete("bob"), &["bob"]),
        (drop_database("sales"), &["alice"]),
        (enable("sales", false), &[]),
        (remove(3), &["n3"]),
    ];
    for (command, expected) in rows {
        let shown = format!("{command:?}");
        let mut replica = Replica::populated();
        let before = replica.cluster.registry();
        replica.ok(Cert("root"), command);
        let lost = lost_rights(&before, &replica.cluster.registry());
        let mut expected: Vec<_> = expected.iter().map(|name| thumb(name)).collect();
        expected.sort();
        assert_eq!(lost, expected, "{shown:.200}");
    }
}

#[test]
fn a_change_of_one_of_100_000_certificates_shares_all_others() {
    let mut registry = Registry::default();
    let record = |n: u64, name: &str| CertificateRecord {
        thumbprint: Thumbprint::of(&n.to_be_bytes()).as_bytes().to_vec(),
        name: name.into(),
        clearance: USER,
        grants: Vec::new(),
        key_digest: Thumbprint::of(&n.to_be_bytes()).as_bytes().to_vec(),
        ..CertificateRecord::default()
    };
    for n in 0..100_000 {
        registry.set_certificate(record(n, "a")).unwrap();
    }
    let began = Instant::now();
    let mut next = registry.clone();
    next.set_certificate(record(5, "b")).unwrap();
    next.remove_certificate(&Thumbprint::of(&6u64.to_be_bytes()));
    let lost = lost_rights(&registry, &next);
    let took = began.elapsed();
    assert_eq!(lost, [Thumbprint::of(&6u64.to_be_bytes())]);
    let shared = registry
        .certificates(None)
        .filter(|old| {
            next.certificate_details(&old.registration.thumbprint)
                .is_some_and(|new| Arc::ptr_eq(old, new))
        })
        .count();
    assert_eq!(shared, 99_998);
    assert!(took.as_millis() < 100, "copying everything takes longer: {took:?}");
    let third = registry.certificates(None).nth(2).unwrap().registration.thumbprint;
    assert_eq!(registry.certificates(Some(third)).count(), 99_997);
}

/// A change of these bytes is a change of the log and disk format: it needs a new version of `Command`.
#[test]
fn the_bytes_of_commands_and_records_are_as_they_were() {
    let hex = |command: cluster_command::Command| {
        hex::encode(ClusterCommand { command: Some(command) }.encode_to_vec())
    };
    let put = PutCertificate {
        der: vec![1, 2],
        name: "a".into(),
        clearance: USER,
        grants: grants_of(&[("b", 2)]),
        generated: true,
        ..PutCertificate::default()
    };
    let edit = EditCertificate {
        thumbprint: vec![1],
        name: Some("a".into()),
        clearance: Some(3),
        set_grants: true,
        grants: grants_of(&[("b", 1)]),
        expected_revision: 4,
        ..EditCertificate::default()
    };
    let node = NodeRecord {
        id: 1,
        name: "n".into(),
        client_address: "c".into(),
        peer_address: "p".into(),
        thumbprint: vec![2],
        incarnation: vec![3],
        removed: true,
        revision: 5,
        ..NodeRecord::default()
    };
    let form = FormCluster {
        cluster_id: "i".into(),
        nodes: vec![node.clone()],
        node_certificates: vec![vec![9]],
        administrators: vec![put.clone()],
    };
    let join = JoinNode {
        token_id: "t".into(),
        secret_digest: vec![1],
        name: "n".into(),
        client_address: "c".into(),
        peer_address: "p".into(),
        incarnation: vec![2],
        certificate: vec![3],
    };
    let token = CreateJoinToken { id: "t".into(), secret_digest: vec![1], expires_unix_ms: 300 };
    use cluster_command::Command as C;
    let commands = [
        hex(C::FormCluster(form)),
        hex(C::PutCertificate(put)),
        hex(C::EditCertificate(edit)),
        hex(C::DeleteCertificate(DeleteCertificate { thumbprint: vec![1] })),
        hex(create("a", &["n"], 2)),
        hex(enable("a", true)),
        hex(drop_database("a")),
        hex(C::CreateJoinToken(token)),
        hex(revoke_token("t")),
        hex(C::JoinNode(join)),
        hex(remove(3)),
    ];
    assert_eq!(commands, GOLDEN_COMMANDS);

    let certificate = CertificateRecord {
        thumbprint: vec![1],
        der: vec![2],
        name: "a".into(),
        clearance: 1,
        grants: vec![rookery_proto::log::v1::GrantRecord { database_id: 1, access: 2 }],
        not_before_unix_ms: 3,
        not_after_unix_ms: 4,
        disabled: true,
        created_unix_ms: 5,
        created_by: vec![6],
        revision: 7,
        generated: true,
        node_id: 8,
        ..CertificateRecord::default()
    };
    let database = DatabaseRecord {
        id: 1,
        name: "d".into(),
        enabled: true,
        node_ids: vec![1, 300],
        created_unix_ms: 2,
        created_by: vec![3],
        revision: 4,
        founding_node_ids: vec![2],
    };
    let token = JoinTokenRecord {
        id: "t".into(),
        secret_digest: vec![1],
        created_unix_ms: 2,
        expires_unix_ms: 3,
        created_by: vec![4],
    };
    let settings = ClusterSettings {
        cluster_id: "i".into(),
        next_node_id: 2,
        next_database_id: 3,
        registry_revision: 4,
    };
    let mut memory = Memory::default();
    memory.batch(0, |state| {
        records::put(state, &settings).unwrap();
        records::put(state, &certificate).unwrap();
        records::put(state, &database).unwrap();
        records::put(state, &node).unwrap();
        records::put(state, &token).unwrap();
    });
    let stored: Vec<_> = memory
        .records
        .iter()
        .map(|(key, value)| format!("{} = {}", hex::encode(key), hex::encode(value)))
        .collect();
    assert_eq!(stored, GOLDEN_RECORDS);
}

const GOLDEN_COMMANDS: [&str; 11] = [
    "0a310a01691215080112016e1a01632201702a0102320103380140051a010922120a020102120161180122050a016210022801",
    "12120a020102120161180122050a016210022801",
    "1a130a0101120161180320012a050a016210013004",
    "22030a0101",
    "2a080a016112016e1802",
    "32050a01611001",
    "3a030a0161",
    "42090a017412010118ac02",
    "4a030a0174",
    "52150a01741201011a016e2201632a01703201023a0103",
    "5a020803",
];
const GOLDEN_RECORDS: [&str; 5] = [
    "10 = 0a0169100218032004",
    "1101 = 0a01011201021a016120012a04080110023003380440014805520106580760016808",
    "120000000000000001 = 08011201641801220301ac0228023201033804420102",
    "130000000000000001 = 080112016e1a01632201702a010232010338014005",
    "1474 = 0a0174120101180220032a0104",
];

/// A random command; most are refused for some reason, and enough are not.
fn random_command() -> impl Strategy<Value = (usize, usize, usize, usize, usize)> {
    (0..11usize, 0..9usize, 0..6usize, 0..5usize, 0..4usize)
}

fn command_of(
    index: u64,
    (kind, by, who, what, access): (usize, usize, usize, usize, usize),
) -> Command {
    let by = [
        Cert("root"),
        Cert("root"),
        Cert("root2"),
        Cert("op"),
        Cert("n1"),
        Cert("alice"),
        Cert("carol"),
        Cert("n4"),
        Node,
    ][by];
    let who = ["root", "root2", "op", "alice", "carol", "n4"][who];
    let database = ["Sales", "sales", "a", "b", "c"][what];
    let access = u32::try_from(access).unwrap();
    let inner = match kind {
        0 => put(who, access + 1, &[(database, access)]),
        1 => clear(who, access + 1),
        2 => grant(who, &[(database, access)]),
        3 => delete(who),
        4 => create(database, &[], access),
        5 => enable(database, access.is_multiple_of(2)),
        6 => drop_database(database),
        7 => token(["t", "u"][what % 2], 1_000),
        8 => join(["t", "u"][what % 2], ["n4", "n3"][usize::from(access == 0)]),
        9 => remove(u64::from(access) + 1),
        _ => revoke_token("t"),
    };
    // Some request ids come twice.
    envelope(index % 50, by, NOW + i64::try_from(index).unwrap() * 30, inner)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Two replicas that cut the log differently, and one that is loaded from the records half-way, agree in all.
    #[test]
    fn replicas_agree_however_the_log_is_cut(
        log in prop::collection::vec(random_command(), 1..120),
        cut in 2..20usize,
    ) {
        let formed = envelope(1_000, Node, NOW, form_command(form(&["n1", "n2"], &["root", "root2"])));
        let log: Vec<(u64, Command)> = [(1, formed)]
            .into_iter()
            .chain((2..).zip(log).map(|(index, random)| (index, command_of(index, random))))
            .collect();
        let run = |size: usize, reload: bool| -> (Memory, Cluster, Vec<Applied>) {
            let mut memory = Memory::default();
            let mut cluster = Cluster::load(&memory, space(0)).unwrap();
            let mut all = Vec::new();
            for entries in log.chunks(size) {
                memory.batch(0, |state| {
                    for (index, command) in entries {
                        all.push(cluster.apply(*index, command, state).unwrap());
                    }
                });
                cluster.publish();
                if reload {
                    cluster = Cluster::load(&memory, space(0)).unwrap();
                }
            }
            (memory, cluster, all)
        };
        let (memory, cluster, applied) = run(1, false);
        for (other_memory, other_cluster, other_applied) in [run(cut, false), run(cut, true)] {
            prop_assert_eq!(&applied, &other_applied);
            prop_assert_eq!(&memory, &other_memory);
            prop_assert_eq!(&*cluster.registry(), &*other_cluster.registry());
        }
        prop_assert_eq!(memory.hash, memory.rehash());
        prop_assert_ne!(memory.hash, StateHash::default());
        let other = Cluster::load(&Memory::default(), space(0)).unwrap();
        other.reload(&memory, space(0)).unwrap();
        prop_assert_eq!(&*cluster.registry(), &*other.registry());
        check_invariants(&cluster.registry())?;
    }
}

/// What must hold of every registry, whatever was in the log.
fn check_invariants(registry: &Registry) -> Result<(), TestCaseError> {
    let mut admins = 0;
    for certificate in registry.certificates(None) {
        let registration = &certificate.registration;
        admins += usize::from(registration.clearance == Clearance::ClusterAdmin);
        for id in registration.grants.keys() {
            prop_assert!(registry.database_by_id(*id).is_some(), "a grant on a deleted database");
        }
        let member = registry.member(&registration.thumbprint).map(|node| NodeId(node.id));
        prop_assert_eq!(member, registration.node);
        if member.is_some() {
            prop_assert_eq!(registration.clearance, Clearance::ClusterNode);
        }
    }
    prop_assert!(admins >= 1, "the last Cluster Admin is gone");
    prop_assert!(registry.nodes().count() >= 1);
    for database in registry.databases() {
        prop_assert!(!database.node_ids.is_empty());
        let members = database.node_ids.iter().all(|id| registry.node(NodeId(*id)).is_some());
        prop_assert!(members, "a database on a removed node");
    }
    Ok(())
}
