//! What a purge takes and what it leaves.

use rookery_proto::log::v1::{PurgeCertificates, PurgedCertificates};

use super::{entries::*, *};

fn purge(limit: u32) -> cluster_command::Command {
    cluster_command::Command::PurgeCertificates(PurgeCertificates { limit })
}

/// Purges; what is gone by name, whether more is left, and how many were kept.
fn purged(replica: &mut Replica, by: By, limit: u32) -> (Vec<&'static str>, bool, u64) {
    let outcome = replica.ok(by, purge(limit));
    let cluster_outcome::Outcome::PurgedCertificates(PurgedCertificates {
        thumbprints,
        more,
        kept,
    }) = outcome
    else {
        panic!()
    };
    assert!(thumbprints.is_sorted());
    let mut names: Vec<_> = DERS
        .keys()
        .filter(|name| thumbprints.contains(&thumb(name).as_bytes().to_vec()))
        .map(String::as_str)
        .collect();
    assert_eq!(names.len(), thumbprints.len());
    names.sort_unstable();
    (names, more, kept)
}

#[test]
fn a_purge_takes_what_has_expired_and_is_the_callers_to_delete() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), put("expired", USER, &[]));
    replica.ok(Cert("root"), put("expired2", OPERATOR, &[]));
    replica.ok(Cert("root"), put("expired3", ADMIN, &[]));
    replica.ok(Cert("root"), put("expired4", NODE, &[]));
    replica.ok(Cert("root"), switch("expired", true));
    replica.no(Cert("alice"), purge(10), "CLEARANCE_TOO_LOW", "");
    replica.no(Node, purge(10), "CLEARANCE_TOO_LOW", "");
    replica.no(Cert("op"), purge(0), "INVALID_ARGUMENT", "limit");
    replica.no(Cert("op"), purge(1_001), "INVALID_ARGUMENT", "limit");
    // An Operator leaves what is above Operator.
    assert_eq!(purged(&mut replica, Cert("op"), 1_000), (vec!["expired", "expired2"], false, 2));
    assert_eq!(purged(&mut replica, Cert("op"), 1_000), (vec![], false, 2));
    assert_eq!(purged(&mut replica, Cert("root"), 1_000), (vec!["expired3", "expired4"], false, 0));
    let revision = replica.registry().revision;
    assert_eq!(purged(&mut replica, Cert("root"), 1_000), (vec![], false, 0));
    assert_eq!(replica.registry().revision, revision, "nothing to do is no change");
    assert_eq!(replica.registry().entries().count(), 9);
}

#[test]
fn a_purge_is_bounded_and_says_whether_more_is_left() {
    let mut replica = Replica::populated();
    for name in ["expired", "expired2", "expired3"] {
        replica.ok(Cert("root"), put(name, USER, &[]));
    }
    replica.ok(Cert("root"), put("expired4", ADMIN, &[]));
    let (first, more, kept) = purged(&mut replica, Cert("op"), 2);
    assert_eq!((first.len(), more, kept), (2, true, 1));
    let (second, more, kept) = purged(&mut replica, Cert("op"), 2);
    assert_eq!((second.len(), more, kept), (1, false, 1));
}

#[test]
fn a_purge_goes_by_the_time_of_its_entry() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), put("expired", USER, &[]));
    let not_after = replica.registry().certificate(&thumb("expired")).unwrap().not_after.0;
    for (at, expected) in [(not_after, 0), (not_after + 1, 1)] {
        let applied = replica.run_at(Cert("root"), at, purge(10));
        let Some(applied::Outcome::Cluster(outcome)) = applied.outcome else { panic!() };
        let Some(cluster_outcome::Outcome::PurgedCertificates(purged)) = outcome.outcome else {
            panic!()
        };
        assert_eq!(purged.thumbprints.len(), expected);
    }
}

#[test]
fn of_an_entry_the_expired_secondaries_go_and_the_whole_when_all_have() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), upload(put_all(&["carol", "expired", "x"], USER, &[("sales", 1)])));
    replica.ok(Cert("root"), upload(put_all(&["expired2", "n4"], USER, &[])));
    replica.ok(Cert("root"), upload(put_all(&["expired3", "expired4"], USER, &[])));
    let (names, more, kept) = purged(&mut replica, Cert("op"), 10);
    assert_eq!((names, more, kept), (vec!["expired", "expired3", "expired4"], false, 0));
    let registry = replica.registry();
    let entry = |name: &str| {
        let found = Arc::clone(registry.certificate_details(&thumb(name)).unwrap());
        (found.primary, found.entry.secondaries.clone())
    };
    assert_eq!(entry("x"), (thumb("carol"), vec![thumb("x")]));
    // The expired primary names its entry as long as a secondary is in force.
    assert_eq!(entry("n4"), (thumb("expired2"), vec![thumb("n4")]));
    assert_eq!(replica.grants("x"), [(1, Access::Read)]);
}

#[test]
fn a_purge_leaves_ones_own_entry_members_and_the_last_administrators() {
    // Their own entry.
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), upload(put_all(&["carol", "expired"], OPERATOR, &[])));
    assert_eq!(purged(&mut replica, Cert("carol"), 10), (vec![], false, 1));
    assert_eq!(purged(&mut replica, Cert("op"), 10), (vec!["expired"], false, 0));
    // The certificate of a member, though it has expired.
    let mut replica = Replica::empty();
    replica.ok(Node, form_command(form(&["n1", "expired"], &["root"])));
    assert_eq!(purged(&mut replica, Cert("root"), 10), (vec![], false, 1));
    // All Cluster Admins, where none is in force.
    let mut replica = Replica::empty();
    replica.ok(Node, form_command(form(&["n1"], &["expired", "expired2"])));
    replica.ok(Cert("n1"), put("expired3", USER, &[]));
    assert_eq!(purged(&mut replica, Cert("n1"), 10), (vec!["expired3"], false, 2));
    replica.ok(Cert("n1"), put("root", ADMIN, &[]));
    let all = vec!["expired", "expired2"];
    assert_eq!(purged(&mut replica, Cert("n1"), 10), (all, false, 0));
}
