//! Tests of the commands around certificates: policy, well-known admins, renewal, uses, the owner of a node.

use std::cell::RefCell;

use rookery_proto::log::v1::{
    DeclareWellKnownAdmins, ExpiryNotice, NoteExpiry, OwnerCommand, OwnerDelete, RecordUse,
    RenewCertificate, SecurityPolicyRecord, SetCertificateState, SetSecurityPolicy, Use,
    owner_command,
};

use super::{entries::switch, *};
use crate::{authz::decide_server, certificates::key_digest};

type Command = cluster_command::Command;

const DAY: i64 = 24 * 3600 * 1000;
const EXPLICIT: u32 = 1;
pub(super) const SAME_KEY: u32 = 2;

pub(super) fn declare(node_id: u64, names: &[&str]) -> Command {
    let mut thumbprints: Vec<Vec<u8>> =
        names.iter().map(|name| thumb(name).as_bytes().to_vec()).collect();
    thumbprints.sort();
    Command::DeclareWellKnownAdmins(DeclareWellKnownAdmins { node_id, thumbprints })
}

pub(super) fn policy(renewal: u32, admins: bool) -> SecurityPolicyRecord {
    SecurityPolicyRecord {
        renewal,
        renewal_for_cluster_admin: admins,
        ..SecurityPolicyRecord::default()
    }
}

pub(super) fn set(policy: SecurityPolicyRecord) -> Command {
    let policy = Some(policy);
    Command::SetSecurityPolicy(SetSecurityPolicy { policy, expected_revision: 0 })
}

pub(super) fn renew(der: &[u8]) -> Command {
    Command::RenewCertificate(RenewCertificate { der: der.to_vec() })
}

fn record(node_id: u64, uses: &[(&str, i64)]) -> Command {
    let used = |(name, at): &(&str, i64)| Use {
        thumbprint: thumb(name).as_bytes().to_vec(),
        at_unix_ms: *at,
    };
    Command::RecordUse(RecordUse { node_id, uses: uses.iter().map(used).collect() })
}

fn owner(command: owner_command::Command) -> Command {
    let reason = "admin socket".to_owned();
    Command::Owner(OwnerCommand { reason, command: Some(command) })
}

fn owner_put(name: &str, clearance: u32) -> Command {
    owner(owner_command::Command::Put(put_inner(name, clearance, &[])))
}

fn owner_delete(name: &str, force: bool) -> Command {
    let thumbprint = thumb(name).as_bytes().to_vec();
    owner(owner_command::Command::Delete(OwnerDelete { thumbprint, force }))
}

fn note(notices: &[(&str, u32)]) -> Command {
    let notice = |(name, days): &(&str, u32)| ExpiryNotice {
        thumbprint: thumb(name).as_bytes().to_vec(),
        days: *days,
    };
    Command::NoteExpiry(NoteExpiry { notices: notices.iter().map(notice).collect() })
}

/// Certificates of one key by one issuer, which differ in their last year.
pub(super) struct Lineage {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    key: rcgen::KeyPair,
    /// What was made: signatures differ from one making to the next.
    made: RefCell<BTreeMap<(i32, i32), Vec<u8>>>,
}

impl Lineage {
    pub(super) fn new(issuer: &str) -> Self {
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(rcgen::DnType::CommonName, issuer);
        let issuer = rcgen::Issuer::new(ca, rcgen::KeyPair::generate().unwrap());
        Self::of(issuer, rcgen::KeyPair::generate().unwrap())
    }

    fn of(issuer: rcgen::Issuer<'static, rcgen::KeyPair>, key: rcgen::KeyPair) -> Self {
        Self { issuer, key, made: RefCell::default() }
    }

    pub(super) fn until(&self, year: i32) -> Vec<u8> {
        self.between(2020, year)
    }

    fn between(&self, from: i32, to: i32) -> Vec<u8> {
        self.made.borrow_mut().entry((from, to)).or_insert_with(|| self.make(from, to)).clone()
    }

    fn make(&self, from: i32, to: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        params.signed_by(&self.key, &self.issuer).unwrap().der().to_vec()
    }
}

pub(super) fn put_der(der: &[u8], clearance: u32, grants: &[(&str, u32)]) -> Command {
    let put = PutCertificate { der: der.to_vec(), ..put_inner("alice", clearance, grants) };
    Command::PutCertificate(PutCertificate { name: "machine".into(), ..put })
}

fn delete_der(der: &[u8]) -> Command {
    let thumbprint = Thumbprint::of(der).as_bytes().to_vec();
    Command::DeleteCertificate(DeleteCertificate { thumbprint })
}

#[test]
fn a_well_known_admin_is_one_while_a_member_declares_it() {
    let mut replica = Replica::populated();
    replica.no(Cert("x"), create("a", &[], 0), "CERTIFICATE_UNKNOWN", "");
    replica.ok(Cert("n1"), declare(1, &["x"]));
    replica.ok(Cert("x"), create("a", &[], 0));
    replica.ok(Cert("x"), put("carol", ADMIN, &[]));
    replica.ok(Cert("n2"), declare(2, &["x"]));
    let declared = replica.registry().well_known_admins();
    assert_eq!(declared.len(), 1);
    assert_eq!((declared[0].thumbprint, declared[0].in_force), (thumb("x"), true));
    assert_eq!(declared[0].nodes, [NodeId(1), NodeId(2)]);

    // One of two withdraws: nothing is lost. The other does: everything is.
    let before = replica.registry();
    replica.ok(Cert("n1"), declare(1, &[]));
    replica.ok(Cert("x"), create("b", &[], 0));
    let between = replica.registry();
    assert_eq!(lost_rights(&before, &between), []);
    replica.ok(Cert("n2"), declare(2, &[]));
    assert_eq!(lost_rights(&between, &replica.registry()), [thumb("x")]);
    replica.no(Cert("x"), create("c", &[], 0), "CERTIFICATE_UNKNOWN", "");
    assert!(replica.registry().well_known_admins().is_empty());
}

#[test]
fn a_removed_node_declares_nothing_any_more() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n3"), declare(3, &["x"]));
    replica.ok(Cert("x"), create("a", &["n1"], 0));
    let before = replica.registry();
    replica.ok(Cert("root"), remove(3));
    let mut lost = [thumb("n3"), thumb("x")];
    lost.sort();
    assert_eq!(lost_rights(&before, &replica.registry()), lost);
    replica.no(Cert("x"), create("b", &[], 0), "CERTIFICATE_UNKNOWN", "");
    assert!(replica.memory.records.keys().all(|key| key[0] != 0x18));
}

#[test]
fn a_registered_certificate_decides_over_a_declaration() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), declare(1, &["alice", "x"]));
    let registry = replica.registry();
    assert!(!registry.is_well_known(&thumb("alice")) && registry.is_well_known(&thumb("x")));
    replica.no(Cert("alice"), create("a", &[], 0), "CLEARANCE_TOO_LOW", "");
    // What a configuration decides cannot be managed: an Operator could otherwise take it away.
    for by in [Cert("op"), Cert("root")] {
        replica.no(by, put("x", USER, &[]), "WELL_KNOWN", "thumbprint");
        replica.no(by, delete("x"), "WELL_KNOWN", "thumbprint");
        replica.no(by, clear("x", USER), "WELL_KNOWN", "thumbprint");
    }
    replica.no(Cert("n1"), owner_put("x", USER), "WELL_KNOWN", "thumbprint");
}

#[test]
fn a_record_in_the_registry_stands_before_a_declaration_whatever_it_says() {
    let disable = |name| (Cert("root"), switch(name, true));
    type Steps<'a> = Vec<(By, Command)>;
    let rows: [(&str, &str, Steps<'_>, Option<&str>); 6] = [
        ("not registered", "x", vec![], None),
        ("a User", "alice", vec![], Some("CLEARANCE_TOO_LOW")),
        ("a Cluster Admin", "root2", vec![], None),
        ("a disabled User", "alice", vec![disable("alice")], Some("CERTIFICATE_DISABLED")),
        ("a disabled Cluster Admin", "root2", vec![disable("root2")], Some("CERTIFICATE_DISABLED")),
        (
            "expired",
            "expired",
            vec![(Cert("root"), put("expired", ADMIN, &[]))],
            Some("CERTIFICATE_EXPIRED"),
        ),
    ];
    for (what, name, steps, expected) in rows {
        // The order does not matter: the record comes first, or the declaration does.
        for declared_first in [true, false] {
            let mut replica = Replica::populated();
            let registers =
                steps.iter().any(|(_, step)| matches!(step, Command::PutCertificate(_)));
            if declared_first && !registers {
                replica.ok(Cert("n1"), declare(1, &[name]));
            }
            for (by, step) in &steps {
                replica.ok(*by, step.clone());
            }
            if !declared_first || registers {
                replica.ok(Cert("n1"), declare(1, &[name]));
            }
            let by = By::Cert(name);
            let applied = replica.run(by, token("t", 60_000));
            assert_eq!(refused(&applied).map(|(reason, _)| reason), expected, "{what}");
            let registry = replica.registry();
            let registered = registry.certificate(&thumb(name)).is_some();
            assert_eq!(registry.is_well_known(&thumb(name)), !registered, "{what}");
        }
    }
}

/// To delete such a record would make its holder a Cluster Admin, and to take over the thumbprint would end one.
#[test]
fn a_declared_thumbprint_is_neither_deleted_nor_taken_over() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), declare(1, &["alice", "x"]));
    replica.no(Cert("op"), delete("alice"), "WELL_KNOWN", "");
    replica.no(Cert("root"), delete("alice"), "WELL_KNOWN", "");
    let Command::PutCertificate(bob) = put("bob", USER, &[]) else { unreachable!() };
    let secondaries = vec![der("x")];
    let over = PutCertificate { overwrite: true, secondaries: secondaries.clone(), ..bob.clone() };
    replica.no(Cert("op"), Command::PutCertificate(over), "WELL_KNOWN", "thumbprint");
    let new = PutCertificate { der: der("carol"), secondaries, ..bob };
    replica.no(Cert("op"), Command::PutCertificate(new), "WELL_KNOWN", "thumbprint");
    assert!(replica.registry().is_well_known(&thumb("x")));
    // Disabled it stays, and is nobody; once no node declares it, it may go.
    replica.ok(Cert("root"), switch("alice", true));
    replica.ok(Cert("n1"), declare(1, &["x"]));
    replica.ok(Cert("op"), delete("alice"));
    assert_eq!(replica.registry().identity(&thumb("alice")), None);
}

#[test]
fn only_a_member_declares_and_only_for_itself() {
    let mut replica = Replica::populated();
    replica.no(Cert("n1"), declare(2, &["x"]), "NOT_A_MEMBER", "");
    for by in ["root", "op", "alice"] {
        replica.no(Cert(by), declare(1, &["x"]), "NOT_A_MEMBER", "");
    }
    replica.no(Cert("x"), declare(1, &["x"]), "CERTIFICATE_UNKNOWN", "");
    replica.no(Node, declare(1, &["x"]), "CLEARANCE_TOO_LOW", "");
    let bad = |thumbprints| {
        Command::DeclareWellKnownAdmins(DeclareWellKnownAdmins { node_id: 1, thumbprints })
    };
    let many = (0..17_u8).map(|n| vec![n; 32]).collect();
    replica.no(Cert("n1"), bad(many), "LIMIT_EXCEEDED", "thumbprints");
    replica.no(Cert("n1"), bad(vec![vec![2; 32], vec![1; 32]]), "INVALID_ARGUMENT", "thumbprints");
    replica.no(Cert("n1"), bad(vec![vec![1; 20]]), "INVALID_ARGUMENT", "thumbprint");
}

#[test]
fn the_policy_is_for_cluster_admins_and_refuses_nonsense() {
    let mut replica = Replica::populated();
    assert_eq!(*replica.registry().policy(), SecurityPolicy::default());
    for by in ["op", "alice"] {
        replica.no(Cert(by), set(policy(SAME_KEY, false)), "CLEARANCE_TOO_LOW", "");
    }
    let second = |numbers: &[u32]| SecurityPolicyRecord {
        second_factor_required_for: numbers.to_vec(),
        ..policy(EXPLICIT, false)
    };
    let field = "policy.second_factor_required_for";
    for (bad, at) in [
        (policy(0, false), "policy.renewal".to_owned()),
        (policy(3, false), "policy.renewal".to_owned()),
        (second(&[0]), format!("{field}[0]")),
        (second(&[NODE]), format!("{field}[0]")),
        (second(&[ADMIN, OPERATOR]), format!("{field}[1]")),
        (second(&[OPERATOR, OPERATOR]), format!("{field}[1]")),
    ] {
        replica.no(Cert("root"), set(bad), "INVALID_ARGUMENT", &at);
    }
    let missing = Command::SetSecurityPolicy(SetSecurityPolicy::default());
    replica.no(Cert("root"), missing, "INVALID_ARGUMENT", "policy");

    replica.ok(Cert("root"), set(second(&[USER, OPERATOR])));
    let registry = replica.registry();
    let set_to = registry.policy();
    assert_eq!(set_to.second_factor_required_for, [Clearance::User, Clearance::Operator]);
    let stale = SetSecurityPolicy {
        policy: Some(policy(EXPLICIT, false)),
        expected_revision: set_to.revision - 1,
    };
    let stale = Command::SetSecurityPolicy(stale);
    replica.no(Cert("root"), stale, "CONCURRENCY", "expected_revision");
}

#[test]
fn renewal_is_off_until_the_policy_says_otherwise() {
    let mut replica = Replica::populated();
    let line = Lineage::new("CA");
    replica.ok(Cert("op"), put_der(&line.until(2040), USER, &[("sales", 2)]));
    let new = line.until(2050);
    replica.no(Cert("n1"), renew(&new), "RENEWAL_REFUSED", "");
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    // Who renews is the node that saw the key; nobody else says so.
    replica.no(Cert("root"), renew(&new), "NOT_A_MEMBER", "");
    replica.no(Node, renew(&new), "CLEARANCE_TOO_LOW", "");
    replica.ok(Cert("n1"), renew(&new));

    let registry = replica.registry();
    let renewed = registry.certificate_details(&Thumbprint::of(&new)).unwrap();
    let sibling = registry.certificate(&Thumbprint::of(&line.until(2040))).unwrap();
    assert_eq!(renewed.registration.grants, sibling.grants);
    assert_eq!((renewed.registration.name.as_str(), sibling.name.as_str()), ("machine", "machine"));
    assert_eq!(renewed.primary, sibling.thumbprint, "it belongs to the entry it follows");
    assert_eq!(&*renewed.registration.der, new.as_slice());
    assert!(renewed.registration.not_after > sibling.not_after);
    replica.no(Cert("n2"), renew(&new), "RENEWAL_REFUSED", "");
    replica.ok(Cert("root"), set(policy(EXPLICIT, false)));
    replica.no(Cert("n1"), renew(&line.until(2060)), "RENEWAL_REFUSED", "");
}

#[test]
fn renewal_takes_the_same_key_and_the_same_issuer_in_force_and_nothing_less() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    let line = Lineage::new("CA one");
    replica.ok(Cert("op"), put_der(&line.until(2040), USER, &[]));
    let stranger = Lineage::new("CA one");
    let elsewhere = Lineage::of(Lineage::new("CA two").issuer, line.key);
    replica.no(Cert("n1"), renew(&stranger.until(2050)), "RENEWAL_REFUSED", "");
    replica.no(Cert("n1"), renew(&elsewhere.until(2050)), "RENEWAL_REFUSED", "");
    let line = Lineage::of(Lineage::new("CA one").issuer, elsewhere.key);
    // NOW lies in 2025.
    replica.no(Cert("n1"), renew(&line.until(2025)), "RENEWAL_REFUSED", "");
    replica.no(Cert("n1"), renew(&line.between(2030, 2050)), "RENEWAL_REFUSED", "");
    replica.no(Cert("n1"), renew(b"nothing"), "INVALID_ARGUMENT", "der");
    // The issuer is a name: its key is not looked at, because the holder's key is the proof.
    replica.ok(Cert("n1"), renew(&line.until(2050)));

    // An expired certificate has no rights left to hand on.
    let old = Lineage::new("CA one");
    replica.ok(Cert("op"), put_der(&old.until(2024), USER, &[]));
    replica.no(Cert("n1"), renew(&old.until(2050)), "RENEWAL_REFUSED", "");
}

#[test]
fn cluster_admins_renew_only_where_the_policy_says_so_and_nodes_never() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    let (admin, node) = (Lineage::new("CA"), Lineage::new("CA"));
    replica.ok(Cert("root"), put_der(&admin.until(2040), ADMIN, &[]));
    replica.ok(Cert("root"), put_der(&node.until(2040), NODE, &[]));
    replica.no(Cert("n1"), renew(&admin.until(2050)), "RENEWAL_REFUSED", "");
    replica.ok(Cert("root"), set(policy(SAME_KEY, true)));
    replica.ok(Cert("n1"), renew(&admin.until(2050)));
    replica.no(Cert("n1"), renew(&node.until(2050)), "RENEWAL_REFUSED", "");
}

#[test]
fn a_deleted_certificates_key_never_comes_back_by_itself() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    let line = Lineage::new("CA");
    let (first, second) = (line.until(2040), line.until(2050));
    replica.ok(Cert("op"), put_der(&first, USER, &[]));
    replica.ok(Cert("n1"), renew(&second));
    replica.ok(Cert("op"), delete_der(&first));
    // The sibling is still registered and in force, and the key is dead all the same.
    replica.no(Cert("n1"), renew(&line.until(2060)), "RENEWAL_REFUSED", "");
    replica.no(Cert("n1"), renew(&first), "RENEWAL_REFUSED", "");
    // An administrator may register it; renewal stays off for the key.
    replica.ok(Cert("op"), put_der(&first, USER, &[]));
    replica.no(Cert("n1"), renew(&line.until(2060)), "RENEWAL_REFUSED", "");
    let digest = key_digest(&first).unwrap();
    assert!(replica.memory.records.contains_key(&[&[0x17], digest.as_bytes().as_slice()].concat()));
}

/// Whatever takes a certificate away ends its key: by which road, and of which certificate of the entry.
#[test]
fn a_key_ends_with_each_certificate_that_is_taken_away() {
    let set_state = |der: &[u8], disabled| {
        let thumbprint = Thumbprint::of(der).as_bytes().to_vec();
        Command::SetCertificateState(SetCertificateState {
            thumbprint,
            disabled,
            expected_revision: 0,
        })
    };
    let entry = |secondaries: &[Vec<u8>], overwrite| {
        let secondaries = secondaries.to_vec();
        let put = put_inner("carol", USER, &[("sales", 1)]);
        Command::PutCertificate(PutCertificate { secondaries, overwrite, ..put })
    };
    type Ends = fn(&mut Replica, &dyn Fn(&[u8], bool) -> Command, &[u8]);
    let alone: [(&str, Ends); 4] = [
        ("disabled", |replica, set_state, der| drop(replica.ok(Cert("op"), set_state(der, true)))),
        ("disabled, and enabled again", |replica, set_state, der| {
            replica.ok(Cert("op"), set_state(der, true));
            replica.ok(Cert("op"), set_state(der, false));
        }),
        ("deleted", |replica, _, der| drop(replica.ok(Cert("op"), delete_der(der)))),
        ("deleted by the owner of a node", |replica, _, der| {
            let thumbprint = Thumbprint::of(der).as_bytes().to_vec();
            let delete = OwnerDelete { thumbprint, force: false };
            replica.ok(Cert("n1"), owner(owner_command::Command::Delete(delete)));
        }),
    ];
    let refused_for_good = |replica: &mut Replica, line: &Lineage, what: &str| {
        let key = key_digest(&line.until(2040)).unwrap();
        let tombstone = [&[0x17], key.as_bytes().as_slice()].concat();
        assert!(replica.memory.records.contains_key(&tombstone), "{what}: no tombstone");
        replica.no(Cert("n1"), renew(&line.until(2060)), "RENEWAL_REFUSED", "");
    };
    for (what, ends) in alone {
        let mut replica = Replica::populated();
        replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
        let line = Lineage::new("CA");
        replica.ok(Cert("op"), put_der(&line.until(2040), USER, &[]));
        replica.ok(Cert("n1"), renew(&line.until(2050))); // Stays, and is in force.
        ends(&mut replica, &set_state, &line.until(2040));
        refused_for_good(&mut replica, &line, what);
    }
    // A secondary goes with its entry, and by an upload that leaves it out.
    let primary = der("carol");
    let roads = [
        ("its primary is deleted", delete_der(&primary)),
        ("its primary is disabled", set_state(&primary, true)),
        ("an upload leaves it out", entry(&[], true)),
    ];
    for (what, command) in roads {
        let mut replica = Replica::populated();
        replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
        let line = Lineage::new("CA");
        replica.ok(Cert("op"), entry(&[line.until(2040)], false));
        replica.ok(Cert("op"), put_der(&line.until(2050), USER, &[])); // Another entry, of the same key.
        replica.ok(Cert("op"), command);
        refused_for_good(&mut replica, &line, what);
    }
    // An upload that keeps it takes nothing away.
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    let line = Lineage::new("CA");
    replica.ok(Cert("op"), entry(&[line.until(2040)], false));
    replica.ok(Cert("op"), entry(&[line.until(2040), der("x")], true));
    replica.ok(Cert("n1"), renew(&line.until(2060)));
}

#[test]
fn to_clear_away_an_expired_certificate_that_was_followed_leaves_its_key_alone() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    let line = Lineage::new("CA");
    let (expired, current) = (line.until(2024), line.until(2050));
    replica.ok(Cert("op"), put_der(&expired, USER, &[]));
    replica.ok(Cert("op"), put_der(&current, USER, &[]));
    replica.ok(Cert("op"), delete_der(&expired));
    replica.ok(Cert("n1"), renew(&line.until(2060)));
}

#[test]
fn a_renewed_certificate_shares_whatever_is_done_to_its_entry() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    let line = Lineage::new("CA");
    let [old, new] = [line.until(2040), line.until(2050)];
    replica.ok(Cert("op"), put_der(&old, USER, &[("sales", 2)]));
    replica.ok(Cert("n1"), renew(&new));
    let at = |replica: &Replica, der: &[u8]| {
        replica.registry().certificate(&Thumbprint::of(der)).map(|it| it.grants.len())
    };
    assert_eq!((at(&replica, &old), at(&replica, &new)), (Some(1), Some(1)));
    let narrow = EditCertificate {
        thumbprint: Thumbprint::of(&old).as_bytes().to_vec(),
        set_grants: true,
        ..EditCertificate::default()
    };
    replica.ok(Cert("op"), Command::EditCertificate(narrow));
    assert_eq!((at(&replica, &old), at(&replica, &new)), (Some(0), Some(0)));
    replica.ok(Cert("op"), delete_der(&old));
    assert_eq!((at(&replica, &old), at(&replica, &new)), (None, None));
}

/// Anybody may upload anybody's public key: that must take nothing from its holder.
#[test]
fn an_upload_with_somebody_elses_key_neither_deletes_nor_lowers_their_certificates() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), set(policy(SAME_KEY, true)));
    let line = Lineage::new("CA");
    let admin = line.until(2040);
    replica.ok(Cert("root"), put_der(&admin, ADMIN, &[]));
    for year in 2090..=2095 {
        replica.ok(Cert("op"), put_der(&line.until(year), USER, &[]));
    }
    replica.no(Cert("n1"), renew(&line.until(2050)), "RENEWAL_REFUSED", "");
    let registry = replica.registry();
    let kept = registry.certificate(&Thumbprint::of(&admin)).unwrap();
    assert_eq!(kept.clearance, crate::authz::Clearance::ClusterAdmin);
}

#[test]
fn five_certificates_of_a_key_are_kept_those_that_expire_last() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    let line = Lineage::new("CA");
    replica.ok(Cert("op"), put_der(&line.until(2040), USER, &[]));
    for year in 2041..=2045 {
        replica.ok(Cert("n1"), renew(&line.until(year)));
    }
    let registered = |replica: &Replica, year| {
        replica.registry().certificate(&Thumbprint::of(&line.until(year))).is_some()
    };
    assert!((2040..=2045).all(|year| registered(&replica, year)));
    replica.no(Cert("n1"), renew(&line.until(2039)), "RENEWAL_REFUSED", "");
    let before = replica.registry();
    replica.ok(Cert("n1"), renew(&line.until(2046)));
    // What an administrator registered stays, however early it expires.
    assert!(registered(&replica, 2040) && !registered(&replica, 2041));
    assert!((2042..=2046).all(|year| registered(&replica, year)));
    assert_eq!(lost_rights(&before, &replica.registry()), [Thumbprint::of(&line.until(2041))]);
    // To make room is no deletion by an administrator.
    replica.ok(Cert("n1"), renew(&line.until(2047)));
}

#[test]
fn uses_are_recorded_outside_the_revision() {
    let mut replica = Replica::populated();
    let before = replica.registry();
    replica.ok(Cert("n2"), record(2, &[("alice", NOW - 60_000), ("root", NOW + DAY), ("x", NOW)]));
    let registry = replica.registry();
    assert_eq!(registry.revision, before.revision, "etags stay");
    let alice = registry.last_use(&thumb("alice")).unwrap();
    assert_eq!((alice.at, alice.node), (Timestamp(NOW - 60_000), NodeId(2)));
    // A clock that runs ahead says no more than the log's own time; who is not registered has no use.
    assert_eq!(registry.last_use(&thumb("root")).unwrap().at, Timestamp(NOW));
    assert_eq!(registry.last_use(&thumb("x")), None);
    // An older use of another node changes nothing, a later one does.
    replica.ok(Cert("n1"), record(1, &[("alice", NOW - 120_000)]));
    assert_eq!(replica.registry().last_use(&thumb("alice")), Some(alice));
    replica.ok(Cert("n1"), record(1, &[("alice", NOW)]));
    assert_eq!(replica.registry().last_use(&thumb("alice")).unwrap().node, NodeId(1));
    // A certificate that is registered again starts anew.
    replica.ok(Cert("op"), delete("alice"));
    replica.ok(Cert("op"), put("alice", USER, &[]));
    assert_eq!(replica.registry().last_use(&thumb("alice")), None);
    // Nodes speak for themselves.
    replica.no(Cert("n1"), record(2, &[("bob", NOW)]), "NOT_A_MEMBER", "");
    replica.no(Cert("root"), record(1, &[("bob", NOW)]), "NOT_A_MEMBER", "");
    let many: Vec<_> = (0..=limits::USES_PER_COMMAND_MAX).map(|_| ("bob", NOW)).collect();
    replica.no(Cert("n1"), record(1, &many), "LIMIT_EXCEEDED", "uses");
}

#[test]
fn notices_of_expiry_are_noted_once_and_keep_the_last_use() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), record(1, &[("alice", NOW)]));
    let revision = replica.registry().revision;
    let told = |replica: &Replica| replica.registry().last_use(&thumb("alice")).unwrap().told;
    for (days, expected) in [(30, 30), (14, 14), (30, 14), (3, 3), (0, 0), (3, 0)] {
        replica.ok(Cert("n3"), note(&[("alice", days), ("x", days)]));
        assert_eq!(told(&replica), Some(expected), "after {days}");
    }
    assert_eq!(replica.registry().revision, revision);
    assert_eq!(replica.registry().last_use(&thumb("alice")).unwrap().at, Timestamp(NOW));
    replica.no(Cert("n1"), note(&[("alice", 7)]), "INVALID_ARGUMENT", "notices.days");
    replica.no(Cert("root"), note(&[("alice", 3)]), "NOT_A_MEMBER", "");
}

#[test]
fn the_owner_of_a_node_gets_back_in_when_no_administrator_is_left() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), delete("root2"));
    replica.no(Cert("n2"), owner_delete("root", false), "LAST_CLUSTER_ADMIN", "");
    replica.ok(Cert("n2"), owner_delete("root", true));
    replica.no(Cert("root"), create("a", &[], 0), "CERTIFICATE_UNKNOWN", "");
    replica.no(Cert("op"), put("carol", ADMIN, &[]), "MANAGE_FORBIDDEN", "");
    replica.ok(Cert("n3"), owner_put("carol", ADMIN));
    replica.ok(Cert("carol"), put("root2", ADMIN, &[]));
    let registry = replica.registry();
    let carol = registry.certificate_details(&thumb("carol")).unwrap();
    assert_eq!(carol.entry.created_by, Some(thumb("n3")));
}

#[test]
fn the_owner_of_a_node_cannot_touch_members_nor_be_played_by_others() {
    let mut replica = Replica::populated();
    replica.no(Cert("n1"), owner_put("carol", NODE), "INVALID_ARGUMENT", "put.clearance");
    replica.no(Cert("n1"), owner_delete("n2", true), "MANAGE_FORBIDDEN", "");
    replica.no(Cert("n1"), owner_delete("n1", true), "OWN_CERTIFICATE", "");
    replica.no(Cert("n1"), owner_put("alice", ADMIN), "ALREADY_EXISTS", "der");
    for by in ["root", "op", "alice"] {
        replica.no(Cert(by), owner_put("carol", ADMIN), "NOT_A_MEMBER", "");
        replica.no(Cert(by), owner_delete("root2", true), "NOT_A_MEMBER", "");
    }
    replica.no(Node, owner_put("carol", ADMIN), "CLEARANCE_TOO_LOW", "");
    replica.ok(Cert("root"), remove(3));
    replica.no(Cert("n3"), owner_put("carol", ADMIN), "CERTIFICATE_UNKNOWN", "");
    let reason = |reason: &str| {
        let put = put_inner("carol", ADMIN, &[]);
        Command::Owner(OwnerCommand {
            reason: reason.to_owned(),
            command: Some(owner_command::Command::Put(put)),
        })
    };
    for bad in ["", "a\nb", &"x".repeat(65)] {
        replica.no(Cert("n1"), reason(bad), "INVALID_ARGUMENT", "reason");
    }
    let empty = Command::Owner(OwnerCommand { reason: "x".into(), command: None });
    replica.no(Cert("n1"), empty, "INVALID_ARGUMENT", "command");
}

#[test]
fn what_may_take_rights_away_is_acknowledged_by_every_node() {
    let registry = Replica::populated().registry();
    let takes =
        |command: Command| takes_rights_away(&registry, &ClusterCommand { command: Some(command) });
    assert!(takes(declare(1, &[])) && takes(declare(1, &["x"])));
    assert!(takes(set(policy(EXPLICIT, false))));
    assert!(takes(renew(&der("x"))));
    assert!(takes(owner_delete("alice", false)) && !takes(owner_put("carol", USER)));
    assert!(!takes(record(1, &[])) && !takes(note(&[])));
}

#[test]
fn the_guard_of_the_last_administrator_does_not_count_well_known_ones() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), declare(1, &["x"]));
    replica.ok(Cert("root"), delete("root2"));
    replica.no(Cert("x"), delete("root"), "LAST_CLUSTER_ADMIN", "");
    let registry = replica.registry();
    let caller = registry.caller(Some(thumb("x")));
    assert!(decide_server(caller, ServerOperation::RemoveNode, Timestamp(NOW), 1).is_ok());
}

/// Golden bytes: what these commands and records are on disk and on the wire.
#[test]
fn commands_and_records_keep_their_bytes() {
    let hex =
        |command: Command| hex::encode(ClusterCommand { command: Some(command) }.encode_to_vec());
    let short = vec![9];
    let use_of = Use { thumbprint: short.clone(), at_unix_ms: 5 };
    let second = SecurityPolicyRecord {
        second_factor_required_for: vec![2, 3],
        revision: 7,
        ..policy(SAME_KEY, true)
    };
    let declared = DeclareWellKnownAdmins { node_id: 1, thumbprints: vec![short.clone(), vec![8]] };
    let delete = OwnerDelete { thumbprint: short.clone(), force: true };
    let notice = ExpiryNotice { thumbprint: short.clone(), days: 14 };
    let commands = [
        hex(Command::SetSecurityPolicy(SetSecurityPolicy {
            policy: Some(second.clone()),
            expected_revision: 3,
        })),
        hex(Command::DeclareWellKnownAdmins(declared)),
        hex(renew(&[1, 2])),
        hex(Command::RecordUse(RecordUse { node_id: 2, uses: vec![use_of] })),
        hex(owner(owner_command::Command::Delete(delete))),
        hex(Command::NoteExpiry(NoteExpiry { notices: vec![notice] })),
    ];
    assert_eq!(commands, GOLDEN_COMMANDS);

    let trust = |record| rookery_proto::log::v1::TrustRecord { record: Some(record) };
    let used = rookery_proto::log::v1::UseRecord {
        thumbprint: short.clone(),
        at_unix_ms: 5,
        node_id: 2,
        told: 15,
    };
    let tombstone =
        rookery_proto::log::v1::TombstoneRecord { key_digest: short.clone(), at_unix_ms: 6 };
    let admins = rookery_proto::log::v1::WellKnownAdmins { node_id: 258, thumbprints: vec![short] };
    let mut memory = Memory::default();
    memory.batch(0, |state| {
        use rookery_proto::log::v1::trust_record::Record;
        records::put(state, &used).unwrap();
        records::put(state, &tombstone).unwrap();
        records::put(state, &trust(Record::Policy(second))).unwrap();
        records::put(state, &trust(Record::WellKnownAdmins(admins))).unwrap();
    });
    let stored: Vec<_> = memory
        .records
        .iter()
        .map(|(key, value)| format!("{} = {}", hex::encode(key), hex::encode(value)))
        .collect();
    assert_eq!(stored, GOLDEN_RECORDS);
}

const GOLDEN_COMMANDS: [&str; 6] = [
    "a2010e0a0a080210011a02020320071003",
    "aa01080801120109120108",
    "b201040a020102",
    "ba0109080212050a01091005",
    "c201150a0c61646d696e20736f636b65741a050a01091001",
    "ca01070a050a0109100e",
];

const GOLDEN_RECORDS: [&str; 4] = [
    "1609 = 0a010910051802200f",
    "1709 = 0a01091006",
    "1800 = 0a0a080210011a0202032007",
    "18010000000000000102 = 1206088202120109",
];
