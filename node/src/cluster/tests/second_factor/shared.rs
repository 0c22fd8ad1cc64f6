//! Second factors beyond one certificate: entries of several, renewals, and the policy that demands them.

use super::*;
use crate::cluster::tests::{
    entries::{put_all, upload},
    trust::{Lineage, SAME_KEY, declare, policy, put_der, renew, set},
};
use rookery_proto::log::v1::SecurityPolicyRecord;

const ENTRY: [&str; 3] = ["carol", "x", "n4"];

/// With carol's entry in a session that was opened at `NOW` for one of its certificates.
fn with_an_entry(opened_by: &str) -> Replica {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), secret(0, &[1, 2, 3]));
    let key = replica.index;
    replica.ok(Cert("op"), upload(put_all(&ENTRY, USER, &[("sales", 1)])));
    replica.ok(Cert("x"), enrol("x", key));
    let confirm = OpenSession { confirms: true, ..replica.session(opened_by, step(NOW)) };
    replica.ok(Cert("n2"), open(confirm));
    replica
}

fn live(replica: &Replica, name: &str, at: i64) -> bool {
    let registry = replica.registry();
    let factor = registry.certificate(&thumb(name)).unwrap().second_factor.unwrap();
    factor.live(Timestamp(at)).is_some()
}

fn lost(before: &Registry, replica: &Replica) -> Vec<Thumbprint> {
    lost_rights(before, &replica.registry())
}

#[test]
fn all_certificates_of_an_entry_share_a_second_factor_and_its_session() {
    for opened_by in ENTRY {
        let mut replica = with_an_entry(opened_by);
        assert_eq!(replica.factor("x").thumbprint, bytes("carol"));
        for name in ENTRY {
            assert!(live(&replica, name, NOW + 2 * HOUR - 1), "{opened_by} {name}");
            assert!(!live(&replica, name, NOW + 2 * HOUR), "{opened_by} {name}");
        }
        let ended: Vec<_> =
            replica.registry().sessions_ended(Timestamp(NOW), Timestamp(NOW + 2 * HOUR)).collect();
        assert_eq!(ended, ENTRY.map(thumb));
        // What one used up no other may use, and wrong codes of all add up.
        let again = open(replica.session("n4", step(NOW)));
        replica.no(Cert("n3"), again, "SECOND_FACTOR_CODE_USED", "");
        for name in ["carol", "x", "n4", "x", "carol"] {
            replica.ok(Cert("n1"), wrong(name));
        }
        replica.no(Cert("n1"), wrong("n4"), "SECOND_FACTOR_LOCKED", "");

        let before = replica.registry();
        replica.ok(Cert("x"), end());
        let lost = lost(&before, &replica);
        for name in ENTRY {
            assert!(!live(&replica, name, NOW), "{opened_by} {name}");
            assert!(lost.contains(&thumb(name)), "{opened_by} {name}");
        }
        replica.ok(Cert("op"), take("n4"));
        for name in ENTRY {
            assert!(replica.registry().second_factor(&thumb(name)).is_none());
            let registry = replica.registry();
            assert_eq!(registry.certificate(&thumb(name)).unwrap().second_factor, None);
        }
    }
}

#[test]
fn an_upload_over_an_entry_leaves_its_second_factor_alone() {
    let mut replica = with_an_entry("carol");
    let put = PutCertificate { overwrite: true, ..put_all(&["carol", "n4"], USER, &[]) };
    replica.ok(Cert("op"), upload(put));
    assert!(live(&replica, "carol", NOW) && live(&replica, "n4", NOW));
    assert!(replica.registry().second_factor(&thumb("x")).is_none());
}

#[test]
fn a_renewed_certificate_has_the_second_factor_of_its_entry() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), secret(0, &[1, 2, 3]));
    let key_id = replica.index;
    replica.ok(Cert("root"), set(policy(SAME_KEY, false)));
    let line = Lineage::new("CA one");
    let [old, new] = [line.until(2040), line.until(2050)];
    let [old_id, new_id] = [&old, &new].map(|der| Thumbprint::of(der));
    replica.ok(Cert("op"), put_der(&old, USER, &[]));
    let thumbprint = old_id.as_bytes().to_vec();
    let sealed = vec![9; 100];
    let enrol = EnrolSecondFactor { thumbprint: thumbprint.clone(), key_id, sealed };
    replica.ok(Cert("op"), cluster_command::Command::EnrolSecondFactor(enrol));
    let enrolled_revision = replica.index;
    let login = OpenSession { thumbprint, enrolled_revision, ..replica.session("x", step(NOW)) };
    replica.ok(Cert("n2"), open(OpenSession { confirms: true, ..login.clone() }));
    replica.ok(Cert("n1"), renew(&new));

    let registry = replica.registry();
    let [followed, taken] = [old_id, new_id].map(|id| registry.certificate(&id).unwrap().clone());
    assert!(taken.second_factor.is_some());
    assert_eq!(taken.second_factor, followed.second_factor);
    // What was used before the renewal opens nothing after it.
    let again = OpenSession { thumbprint: new_id.as_bytes().to_vec(), ..login };
    replica.no(Cert("n2"), open(again), "SECOND_FACTOR_CODE_USED", "");
}

fn demanded_of(numbers: &[u32]) -> cluster_command::Command {
    set(SecurityPolicyRecord { second_factor_required_for: numbers.to_vec(), ..policy(1, false) })
}

#[test]
fn the_policy_demands_a_second_factor_of_the_clearances_it_names() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), secret(0, &[1, 2, 3]));
    let key = replica.index;
    let before = replica.registry();
    replica.ok(Cert("root"), demanded_of(&[OPERATOR]));
    let mut operators = [thumb("op"), thumb("op2")];
    operators.sort();
    assert_eq!(lost(&before, &replica), operators);
    let none = "SECOND_FACTOR_NOT_ENROLLED";
    // It opens the way to one's own second factor and nothing else; others go on as before.
    replica.no(Cert("op"), create("more", &[], 1), none, "");
    replica.no(Cert("op"), enrol("alice", key), none, "");
    replica.ok(Cert("root"), create("more", &[], 1));
    replica.ok(Cert("op"), enrol("op", key));
    replica.no(Cert("op"), create("most", &[], 1), none, "");
    let confirm = OpenSession { confirms: true, ..replica.session("op", step(NOW)) };
    replica.ok(Cert("n2"), open(confirm));
    replica.ok(Cert("op"), create("most", &[], 1));

    // Taken off, it is missing again; no longer demanded, it is not.
    let before = replica.registry();
    replica.ok(Cert("root"), take("op"));
    assert_eq!(lost(&before, &replica), [thumb("op")]);
    replica.no(Cert("op"), create("last", &[], 1), none, "");
    replica.ok(Cert("root"), demanded_of(&[]));
    replica.ok(Cert("op"), create("last", &[], 1));
}

#[test]
fn the_policy_leaves_open_the_ways_back_in() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), secret(0, &[1, 2, 3]));
    let key = replica.index;
    replica.ok(Cert("n1"), declare(1, &["x"]));
    replica.ok(Cert("root"), demanded_of(&[ADMIN]));
    replica.no(Cert("root"), demanded_of(&[]), "SECOND_FACTOR_NOT_ENROLLED", "");
    // A well-known admin stands in no registry that could keep a second factor; a member writes what it must.
    replica.ok(Cert("x"), create("more", &[], 1));
    replica.ok(Cert("n2"), declare(2, &[]));
    replica.ok(Cert("root"), enrol("root", key));
    let confirm = OpenSession { confirms: true, ..replica.session("root", step(NOW)) };
    replica.ok(Cert("n2"), open(confirm));
    replica.ok(Cert("root"), demanded_of(&[]));
}
