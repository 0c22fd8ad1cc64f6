//! Entries of several certificates, and what may be done to them: part A24 of the specification, line by line.

use rookery_proto::log::v1::SetCertificateState;

use super::*;

/// An upload of several certificates under the name of the first.
pub(super) fn put_all(names: &[&str], clearance: u32, grants: &[(&str, u32)]) -> PutCertificate {
    let secondaries = names[1..].iter().map(|name| der(name)).collect();
    PutCertificate { secondaries, ..put_inner(names[0], clearance, grants) }
}

pub(super) fn upload(put: PutCertificate) -> cluster_command::Command {
    cluster_command::Command::PutCertificate(put)
}

pub(super) fn switch(name: &str, disabled: bool) -> cluster_command::Command {
    let thumbprint = thumb(name).as_bytes().to_vec();
    let set = SetCertificateState { thumbprint, disabled, expected_revision: 0 };
    cluster_command::Command::SetCertificateState(set)
}

/// What the registry says of a certificate, in a few words.
fn shown(replica: &Replica, name: &str) -> String {
    let registry = replica.registry();
    let Some(it) = registry.certificate(&thumb(name)) else { return "unknown".to_owned() };
    assert_eq!((it.thumbprint, &*it.der), (thumb(name), der(name).as_slice()));
    let disabled = if it.disabled { " disabled" } else { "" };
    format!("{} {} {:?}{disabled}", it.name, it.clearance, replica.grants(name))
}

/// Three nodes and carol's entry: carol, x, n4.
fn with_an_entry() -> Replica {
    let mut replica = Replica::populated();
    let put = put_all(&["carol", "x", "n4"], USER, &[("sales", 1)]);
    replica.ok(Cert("op"), upload(put));
    replica
}

const ENTRY: [&str; 3] = ["carol", "x", "n4"];

#[test]
fn secondaries_are_what_their_primary_is_whatever_is_done_to_it() {
    let mut replica = with_an_entry();
    type Step = (cluster_command::Command, &'static str, bool);
    let steps: Vec<Step> = vec![
        (rename("carol", "Carol"), "Carol User [(1, Read)]", false),
        (grant("carol", &[("stock", 2)]), "Carol User [(2, ReadWrite)]", true),
        (clear("carol", OPERATOR), "Carol Operator [(2, ReadWrite)]", false),
        (switch("carol", true), "Carol Operator [(2, ReadWrite)] disabled", true),
        (rename("carol", "C"), "C Operator [(2, ReadWrite)] disabled", false),
        (switch("carol", false), "C Operator [(2, ReadWrite)]", false),
        (clear("carol", USER), "C User [(2, ReadWrite)]", true),
        (drop_database("stock"), "C User []", true),
        (delete("carol"), "unknown", true),
    ];
    for (command, expected, narrower) in steps {
        let before = replica.cluster.registry();
        replica.ok(Cert("op"), command);
        for name in ENTRY {
            assert_eq!(shown(&replica, name), expected, "{name}");
        }
        let lost = lost_rights(&before, &replica.cluster.registry());
        let ours = lost.iter().filter(|it| ENTRY.iter().any(|name| thumb(name) == **it)).count();
        assert_eq!(ours, if narrower { 3 } else { 0 }, "{expected}");
    }
    assert_eq!(replica.registry().certificate_count(), 9);
    // Nothing of the entry is left behind: its certificates can be registered again, each alone.
    for name in ENTRY {
        replica.ok(Cert("op"), put(name, USER, &[]));
    }
}

#[test]
fn a_secondary_is_managed_through_its_primary_alone() {
    let secondary = "SECONDARY_CERTIFICATE";
    for command in [
        rename("x", "new"),
        clear("n4", OPERATOR),
        grant("x", &[]),
        switch("x", true),
        switch("n4", false),
        delete("x"),
    ] {
        let applied = with_an_entry().run(Cert("op"), command);
        let Some(applied::Outcome::Refusal(refusal)) = applied.outcome else { panic!() };
        assert_eq!((refusal.reason.as_str(), refusal.field.as_str()), (secondary, "thumbprint"));
        assert_eq!(refusal.metadata["primary"], thumb("carol").to_string());
    }
    // Who may not manage the primary hears that, and no more.
    let mut replica = with_an_entry();
    replica.ok(Cert("root"), clear("carol", ADMIN));
    for command in [rename("x", "new"), switch("x", true), switch("x", false), delete("n4")] {
        replica.no(Cert("op"), command, "MANAGE_FORBIDDEN", "");
    }
    // Each of them authenticates by itself.
    replica.ok(Cert("n4"), put("expired", ADMIN, &[]));
    replica.ok(Cert("x"), delete("expired"));
}

#[test]
fn an_upload_registers_all_or_nothing() {
    let many: Vec<&str> = std::iter::repeat_n("x", limits::ENTRY_CERTIFICATES_MAX + 1).collect();
    let spoiled = |spoil: fn(&mut PutCertificate)| {
        let mut put = put_all(&["carol", "x"], USER, &[]);
        spoil(&mut put);
        put
    };
    for (put, reason, field) in [
        (put_all(&["carol", "x", "alice"], USER, &[]), "ALREADY_EXISTS", "secondaries[1]"),
        (put_all(&["alice", "x"], USER, &[]), "ALREADY_EXISTS", "der"),
        (put_all(&["carol", "x", "x"], USER, &[]), "INVALID_ARGUMENT", "secondaries[1]"),
        (put_all(&["carol", "carol"], USER, &[]), "INVALID_ARGUMENT", "secondaries[0]"),
        (put_all(&many, USER, &[]), "LIMIT_EXCEEDED", "secondaries"),
        (put_all(&["carol", "n2"], USER, &[]), "MANAGE_FORBIDDEN", ""),
        (put_all(&["n1", "x"], USER, &[]), "MANAGE_FORBIDDEN", ""),
        (put_all(&["carol", "x"], USER, &[("none", 1)]), "NOT_FOUND", "grants[0].database"),
        (spoiled(|put| put.secondaries[0].push(0)), "INVALID_ARGUMENT", "secondaries[0]"),
        (spoiled(|put| put.secondaries[0].clear()), "INVALID_ARGUMENT", "secondaries[0]"),
        (spoiled(|put| put.generated = true), "INVALID_ARGUMENT", "generated"),
        (spoiled(|put| put.note = "a\u{1b}[31m".into()), "INVALID_ARGUMENT", "note"),
        (spoiled(|put| put.owner = "a\nb".into()), "INVALID_ARGUMENT", "owner"),
        (
            spoiled(|put| put.note = "x".repeat(limits::NOTE_CHARS_MAX + 1)),
            "INVALID_ARGUMENT",
            "note",
        ),
        (
            spoiled(|put| put.owner = "x".repeat(limits::OWNER_CHARS_MAX + 1)),
            "INVALID_ARGUMENT",
            "owner",
        ),
    ] {
        let mut replica = Replica::populated();
        replica.no(Cert("root"), upload(put), reason, field);
        assert_eq!(shown(&replica, "x"), "unknown");
    }
    // A secondary that is registered names the entry that it belongs to.
    let applied = with_an_entry().run(Cert("op"), put("x", USER, &[]));
    let Some(applied::Outcome::Refusal(refusal)) = applied.outcome else { panic!() };
    assert_eq!(refusal.reason, "ALREADY_EXISTS");
    assert_eq!(refusal.metadata["primary"], thumb("carol").to_string());
    assert_eq!(refusal.metadata["thumbprint"], thumb("x").to_string());
    assert!(refusal.message.contains("\"carol\""), "{}", refusal.message);
    // A certificate that stands in an entry joins no cluster as a node.
    let mut replica = with_an_entry();
    replica.ok(Cert("root"), token("t", 1));
    replica.no(Cert("n4"), join("t", "n4"), "ALREADY_EXISTS", "certificate");
}

#[test]
fn ones_own_entry_is_ones_own_by_each_of_its_certificates() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), upload(put_all(&["carol", "x"], OPERATOR, &[])));
    replica.ok(Cert("root"), upload(put_all(&["n4", "expired"], ADMIN, &[])));
    let own = "OWN_CERTIFICATE";
    for command in [
        delete("carol"),
        switch("carol", true),
        switch("carol", false),
        clear("carol", USER),
        grant("carol", &[]),
        edit("carol", EditCertificate { note: Some("n".into()), ..<_>::default() }),
        edit("carol", EditCertificate { owner: Some("o".into()), ..<_>::default() }),
    ] {
        for author in ["carol", "x"] {
            replica.no(Cert(author), command.clone(), own, "");
        }
    }
    replica.ok(Cert("x"), rename("carol", "renamed by its secondary"));
    replica.no(Cert("n4"), delete("n4"), own, "");
    replica.no(Cert("n4"), switch("n4", true), own, "");
}

#[test]
fn clearance_is_taken_from_oneself_only_where_that_is_confirmed() {
    let demote = |confirm| {
        edit(
            "root",
            EditCertificate {
                clearance: Some(USER),
                confirm_self_demotion: confirm,
                ..<_>::default()
            },
        )
    };
    let mut replica = Replica::populated();
    let field = "confirm_self_demotion";
    replica.no(Cert("root"), demote(false), "CONFIRMATION_REQUIRED", field);
    replica.ok(Cert("root"), clear("root", ADMIN));
    replica.ok(Cert("root"), demote(true));
    replica.no(Cert("root"), clear("root", ADMIN), "CLEARANCE_TOO_LOW", "");
    // The last one is not asked: it cannot.
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), switch("root2", true));
    replica.no(Cert("root"), demote(true), "LAST_CLUSTER_ADMIN", "");
    // Others are demoted without.
    replica.ok(Cert("root"), clear("root2", OPERATOR));
}

#[test]
fn certificates_are_disabled_and_enabled_by_the_rules() {
    let (manage, own, last) = ("MANAGE_FORBIDDEN", "OWN_CERTIFICATE", "LAST_CLUSTER_ADMIN");
    type Row = (By, &'static str, Option<&'static str>);
    let rows: [Row; 14] = [
        (Cert("op"), "alice", None),
        (Cert("op"), "op2", None),
        (Cert("op"), "op", Some(own)),
        (Cert("op"), "root", Some(manage)),
        (Cert("op"), "n1", Some(manage)),
        (Cert("root"), "alice", None),
        (Cert("root"), "op", None),
        (Cert("root"), "root2", None),
        (Cert("root"), "root", Some(own)),
        (Cert("root"), "n1", Some(manage)),
        (Cert("alice"), "bob", Some("CLEARANCE_TOO_LOW")),
        (Cert("root"), "carol", Some("NOT_FOUND")),
        (Cert("x"), "alice", Some("CERTIFICATE_UNKNOWN")),
        (Node, "alice", Some("CLEARANCE_TOO_LOW")),
    ];
    for (by, name, expected) in rows {
        let mut replica = Replica::populated();
        let applied = replica.run(by, switch(name, true));
        let reason = refused(&applied).map(|(reason, _)| reason);
        assert_eq!(reason, expected, "{by:?} disables {name}");
        if expected.is_some() {
            continue;
        }
        let disabled = replica.registry().certificate(&thumb(name)).unwrap().disabled;
        assert!(disabled);
        // A disabled certificate opens nothing, and does not enable itself.
        let author = By::Cert(name);
        replica.no(author, create("a", &[], 0), "CERTIFICATE_DISABLED", "");
        replica.no(author, switch(name, false), "CERTIFICATE_DISABLED", "");
        let revision = replica.registry().revision;
        replica.ok(by, switch(name, true));
        assert_eq!(replica.registry().revision, revision, "disabled twice is no change");
        replica.ok(by, switch(name, false));
        assert!(!replica.registry().certificate(&thumb(name)).unwrap().disabled);
    }
    // A disabled Cluster Admin is none who could help, and can always be enabled.
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), switch("root2", true));
    replica.no(Cert("n1"), switch("root", true), last, "");
    replica.no(Cert("n1"), delete("root"), last, "");
    replica.no(Cert("op"), switch("root2", false), manage, "");
    replica.ok(Cert("n1"), switch("root2", false));
    replica.ok(Cert("n1"), switch("root", true));
    let set = SetCertificateState {
        thumbprint: thumb("alice").as_bytes().to_vec(),
        disabled: true,
        expected_revision: 1,
    };
    let stale = cluster_command::Command::SetCertificateState(set);
    replica.no(Cert("root2"), stale, "CONCURRENCY", "expected_revision");
}

#[test]
fn an_administrator_is_there_as_long_as_one_of_its_certificates_is_in_force() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), upload(put_all(&["expired", "x"], ADMIN, &[])));
    replica.ok(Cert("root"), delete("root2"));
    // x stands for the expired primary, so root is not the last one.
    replica.ok(Cert("x"), delete("root"));
    replica.no(Cert("n1"), delete("expired"), "LAST_CLUSTER_ADMIN", "");
    replica.no(Cert("n1"), clear("expired", USER), "LAST_CLUSTER_ADMIN", "");
    replica.no(Cert("n1"), switch("expired", true), "LAST_CLUSTER_ADMIN", "");
    replica.no(Cert("x"), delete("expired"), "OWN_CERTIFICATE", "");
}

#[test]
fn remarks_are_edited_and_take_nothing_away() {
    let mut replica = Replica::populated();
    let remark = EditCertificate {
        note: Some("for the night shift".into()),
        owner: Some("ops@example".into()),
        ..<_>::default()
    };
    let command = edit("alice", remark.clone());
    let asked = ClusterCommand { command: Some(command.clone()) };
    assert!(!takes_rights_away(&replica.registry(), &asked));
    replica.ok(Cert("op"), command);
    let details = Arc::clone(replica.registry().certificate_details(&thumb("alice")).unwrap());
    let entry = &details.entry;
    assert_eq!((entry.note.as_str(), entry.owner.as_str()), ("for the night shift", "ops@example"));
    replica.ok(Cert("op"), rename("alice", "Alice"));
    let cleared = EditCertificate { note: Some(String::new()), ..<_>::default() };
    replica.ok(Cert("op"), edit("alice", cleared));
    let details = Arc::clone(replica.registry().certificate_details(&thumb("alice")).unwrap());
    assert_eq!((details.entry.note.as_str(), details.entry.owner.as_str()), ("", "ops@example"));
    for (change, field) in [
        (EditCertificate { note: Some("a\rb".into()), ..<_>::default() }, "note"),
        (EditCertificate { owner: Some("\u{9b}31m".into()), ..<_>::default() }, "owner"),
    ] {
        replica.no(Cert("op"), edit("alice", change), "INVALID_ARGUMENT", field);
    }
}

#[test]
fn the_same_name_twice_is_two_entries() {
    let mut replica = Replica::populated();
    for name in ["carol", "x"] {
        let put = PutCertificate { name: "alice".into(), ..put_inner(name, USER, &[]) };
        replica.ok(Cert("op"), upload(put));
    }
    let query = list::Query { name_contains: "alice".into(), ..<_>::default() };
    let registry = replica.registry();
    assert_eq!(registry.list(&query, None, 10).certificates.len(), 3);
}

/// As [`super::the_bytes_of_commands_and_records_are_as_they_were`], for what came with entries of several certificates.
#[test]
fn the_bytes_of_entries_are_as_they_were() {
    use rookery_proto::log::v1::{PurgeCertificates, PurgedCertificates, SecondaryRecord};
    let put = PutCertificate {
        der: vec![1],
        secondaries: vec![vec![2], vec![3]],
        note: "n".into(),
        owner: "o".into(),
        overwrite: true,
        confirm_self_demotion: true,
        ..PutCertificate::default()
    };
    let change = EditCertificate {
        thumbprint: vec![1],
        note: Some("n".into()),
        owner: Some(String::new()),
        confirm_self_demotion: true,
        ..EditCertificate::default()
    };
    let set = SetCertificateState { thumbprint: vec![1], disabled: true, expected_revision: 2 };
    let record = CertificateRecord {
        thumbprint: vec![1],
        secondaries: vec![SecondaryRecord {
            thumbprint: vec![2],
            der: vec![3],
            not_before_unix_ms: 4,
            not_after_unix_ms: 5,
            key_digest: vec![6],
        }],
        note: "n".into(),
        owner: "o".into(),
        ..CertificateRecord::default()
    };
    let purged = PurgedCertificates { thumbprints: vec![vec![1]], more: true, kept: 2 };
    use cluster_command::Command as C;
    let command = |command| ClusterCommand { command: Some(command) }.encode_to_vec();
    let bytes = [
        command(C::PutCertificate(put)),
        command(C::EditCertificate(change)),
        command(C::SetCertificateState(set)),
        command(C::PurgeCertificates(PurgeCertificates { limit: 7 })),
        record.encode_to_vec(),
        ClusterOutcome { outcome: Some(cluster_outcome::Outcome::PurgedCertificates(purged)) }
            .encode_to_vec(),
    ];
    assert_eq!(bytes.map(hex::encode), GOLDEN_ENTRIES);
}

const GOLDEN_ENTRIES: [&str; 6] = [
    "12130a01013201023201033a016e42016f48015001",
    "1a0a0a01013a016e42004801",
    "62070a010110011802",
    "6a020807",
    "0a0101720d0a0102120103180420052a01067a016e8201016f",
    "32070a010110011802",
];
