//! Uploads over entries that are there: the rules of an edit on the target, whoever uploads what.

use super::{entries::*, *};

fn over(names: &[&str], clearance: u32) -> cluster_command::Command {
    upload(PutCertificate { overwrite: true, ..put_all(names, clearance, &[]) })
}

#[test]
fn an_overwrite_is_held_to_the_rules_of_an_edit() {
    let (manage, own, last) = ("MANAGE_FORBIDDEN", "OWN_CERTIFICATE", "LAST_CLUSTER_ADMIN");
    let rows: Vec<(By, cluster_command::Command, Option<&str>)> = vec![
        (Cert("op"), over(&["alice"], USER), None),
        (Cert("op"), over(&["alice"], OPERATOR), None),
        (Cert("op"), over(&["alice"], ADMIN), Some(manage)),
        (Cert("op"), over(&["alice"], NODE), Some(manage)),
        (Cert("op"), over(&["op2"], USER), None),
        // The certificate of an administrator does not become a User's by uploading it again.
        (Cert("op"), over(&["root"], USER), Some(manage)),
        (Cert("op"), over(&["root"], OPERATOR), Some(manage)),
        (Cert("op"), over(&["n1"], USER), Some(manage)),
        (Cert("op"), over(&["op"], OPERATOR), Some(own)),
        (Cert("op"), over(&["op"], USER), Some(own)),
        (Cert("root"), over(&["root2"], USER), None),
        (Cert("root"), over(&["n1"], USER), Some(manage)),
        (Cert("root"), over(&["n1"], NODE), Some(manage)),
        (Cert("root"), over(&["root"], ADMIN), None),
        (Cert("root"), over(&["root"], USER), Some("CONFIRMATION_REQUIRED")),
        (Cert("alice"), over(&["alice"], USER), Some("CLEARANCE_TOO_LOW")),
        // One that is not registered is an upload like any other.
        (Cert("op"), over(&["carol"], USER), None),
        (Cert("op"), over(&["carol"], ADMIN), Some(manage)),
        // The others of an upload may be new, or of the same entry, and of no other.
        (Cert("op"), over(&["alice", "x"], USER), None),
        (Cert("op"), over(&["alice", "bob"], USER), Some("ALREADY_EXISTS")),
        (Cert("op"), over(&["carol", "alice"], USER), Some("ALREADY_EXISTS")),
        (Cert("op"), over(&["alice", "n2"], USER), Some("ALREADY_EXISTS")),
        (Cert("op"), over(&["alice", "root"], USER), Some("ALREADY_EXISTS")),
    ];
    for (by, command, expected) in rows {
        let shown = format!("{by:?} {command:?}");
        let mut replica = Replica::populated();
        let applied = replica.run(by, command);
        let reason = refused(&applied).map(|(reason, _)| reason);
        assert_eq!(reason, expected, "{shown:.2000}");
    }
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), delete("root2"));
    replica.no(Cert("n1"), over(&["root"], USER), last, "");
    replica.no(Cert("root"), over(&["root"], USER), last, "");
}

#[test]
fn an_overwrite_makes_the_entry_what_was_uploaded_and_keeps_its_history() {
    let mut replica = Replica::populated();
    let put =
        PutCertificate { note: "old".into(), ..put_all(&["carol", "x"], USER, &[("sales", 2)]) };
    replica.ok(Cert("op"), upload(put));
    replica.ok(Cert("op"), switch("carol", true));
    let before = replica.cluster.registry();
    let command = over(&["carol", "n4"], OPERATOR);
    let asked = ClusterCommand { command: Some(command.clone()) };
    assert!(takes_rights_away(&before, &asked));
    let applied = replica.run_at(Cert("root"), NOW + 7, command);
    assert_eq!(refused(&applied), None);
    let registry = replica.registry();
    let carol = registry.certificate_details(&thumb("carol")).unwrap();
    let registration = &carol.registration;
    assert_eq!((registration.clearance, registration.grants.len()), (Clearance::Operator, 0));
    assert_eq!((carol.entry.created.0, carol.entry.created_by), (NOW, Some(thumb("op"))));
    assert!(registration.disabled, "an upload does not enable");
    assert_eq!((carol.entry.note.as_str(), registration.revision), ("", replica.index));
    assert_eq!(carol.entry.secondaries, [thumb("n4")]);
    // x is gone, and its connections with it.
    assert!(registry.certificate(&thumb("x")).is_none());
    assert!(lost_rights(&before, &registry).contains(&thumb("x")));
    // The primary of the entry is the primary still.
    replica.no(Cert("op"), over(&["n4"], USER), "SECONDARY_CERTIFICATE", "thumbprint");
    replica.no(Cert("op"), over(&["n4", "carol"], USER), "SECONDARY_CERTIFICATE", "thumbprint");
}

#[test]
fn an_overwrite_of_a_version_meets_that_version_or_nothing() {
    let mut replica = Replica::populated();
    replica.ok(Cert("op"), upload(put_all(&["carol", "x"], USER, &[])));
    let seen = replica.registry().certificate(&thumb("carol")).unwrap().revision;
    let over = |names: &[&str], expected_revision| {
        let put = put_all(names, USER, &[]);
        upload(PutCertificate { overwrite: true, expected_revision, ..put })
    };
    replica.no(Cert("op"), over(&["carol"], seen + 1), "CONCURRENCY", "expected_revision");
    assert!(replica.registry().certificate(&thumb("x")).is_some(), "nothing was changed");
    replica.ok(Cert("op"), over(&["carol"], seen));
    assert!(replica.registry().certificate(&thumb("x")).is_none());
    // Somebody was there meanwhile: first with another overwrite, then with a deletion.
    replica.no(Cert("op"), over(&["carol", "x"], seen), "CONCURRENCY", "expected_revision");
    let seen = replica.registry().certificate(&thumb("carol")).unwrap().revision;
    replica.ok(Cert("op"), delete("carol"));
    replica.no(Cert("op"), over(&["carol"], seen), "CONCURRENCY", "expected_revision");
    replica.ok(Cert("op"), over(&["carol"], 0));
}

#[test]
fn nobody_overwrites_themselves_or_the_last_administrator_away() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), upload(put_all(&["carol", "x"], ADMIN, &[])));
    replica.no(Cert("x"), over(&["carol"], ADMIN), "OWN_CERTIFICATE", "secondaries");
    replica.ok(Cert("carol"), over(&["carol", "n4"], ADMIN));
    replica.ok(Cert("carol"), delete("root2"));
    replica.ok(Cert("carol"), delete("root"));
    // carol is the last: her certificate may not be exchanged for one that is not in force, even under its name.
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), upload(put_all(&["future", "x"], ADMIN, &[])));
    replica.ok(Cert("x"), delete("root2"));
    replica.ok(Cert("x"), delete("root"));
    replica.no(Cert("n1"), over(&["future"], ADMIN), "LAST_CLUSTER_ADMIN", "der");
    replica.ok(Cert("n1"), over(&["future", "x", "n4"], ADMIN));
}
