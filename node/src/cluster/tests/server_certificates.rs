//! The replacement of the nodes' certificates, at positions of the log.

use rookery_proto::log::v1::{
    AbortCertificateReplacement, ActivateCertificateReplacement, RenewNodeCertificate,
    ReplacementNode, ReportCertificateReplacement, RetireNodeCertificates,
    StartCertificateReplacement, certificate_replacement::Phase,
    report_certificate_replacement::Report,
};

use super::*;

fn id(number: u8) -> Vec<u8> {
    vec![number; 16]
}

/// One new certificate for each of the nodes 1 to 3: the DERs of these names.
fn start(number: u8, names: [&str; 3]) -> StartCertificateReplacement {
    let nodes = (1..).zip(names).map(|(node_id, name)| ReplacementNode {
        node_id,
        chain: vec![der(name)],
        sealed_key: vec![1],
        ..ReplacementNode::default()
    });
    StartCertificateReplacement { id: id(number), nodes: nodes.collect(), ..Default::default() }
}

fn begin(start: StartCertificateReplacement) -> cluster_command::Command {
    cluster_command::Command::StartCertificateReplacement(start)
}

fn report(number: u8, node_id: u64, report: Report) -> cluster_command::Command {
    let (id, report) = (id(number), Some(report));
    let report = ReportCertificateReplacement { id, node_id, report };
    cluster_command::Command::ReportCertificateReplacement(report)
}

fn installed(number: u8, node: u64) -> cluster_command::Command {
    report(number, node, Report::Installed(Done {}))
}

fn swapped(number: u8, node: u64) -> cluster_command::Command {
    report(number, node, Report::Swapped(Done {}))
}

fn abort(number: u8) -> cluster_command::Command {
    let abort = AbortCertificateReplacement { id: id(number) };
    cluster_command::Command::AbortCertificateReplacement(abort)
}

fn activate(number: u8) -> cluster_command::Command {
    let activate = ActivateCertificateReplacement { id: id(number) };
    cluster_command::Command::ActivateCertificateReplacement(activate)
}

fn retire(node_id: u64, keep: &str) -> cluster_command::Command {
    let keep = thumb(keep).as_bytes().to_vec();
    cluster_command::Command::RetireNodeCertificates(RetireNodeCertificates { node_id, keep })
}

fn phase(replica: &Replica) -> Phase {
    replica.registry().replacement().unwrap().phase()
}

/// By which certificates a node is known, the one in force first.
fn known(replica: &Replica, node: u64) -> Vec<Thumbprint> {
    let registry = replica.registry();
    let record = registry.node(NodeId(node)).unwrap();
    let all = std::iter::once(&record.thumbprint).chain(&record.other_thumbprints);
    all.map(|bytes| Thumbprint::from_bytes(bytes).unwrap()).collect()
}

#[test]
fn a_replacement_goes_through_its_phases_as_a_set_of_nodes() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), begin(start(1, ["new1", "new1", "new3"])));
    assert_eq!(phase(&replica), Phase::Installing);
    assert_eq!(known(&replica, 2), [thumb("n2"), thumb("new1")]);
    assert!(replica.registry().certificate(&thumb("new1")).is_some());
    // A node that confirms twice is one node, and another one's report counts for nobody.
    replica.ok(Cert("n1"), installed(1, 1));
    replica.ok(Cert("n1"), installed(1, 1));
    replica.ok(Cert("n1"), installed(1, 1));
    replica.no(Cert("n1"), installed(1, 2), "NOT_A_MEMBER", "node_id");
    replica.no(Cert("root"), installed(1, 2), "NOT_A_MEMBER", "");
    replica.ok(Cert("n2"), installed(9, 2)); // Late, for another one.
    assert_eq!(phase(&replica), Phase::Installing);
    replica.ok(Cert("n2"), report(1, 2, Report::Error("disk full".into())));
    assert_eq!(replica.registry().replacement().unwrap().nodes[1].error, "disk full");
    replica.ok(Cert("n2"), installed(1, 2));
    replica.ok(Cert("n3"), installed(1, 3));
    assert_eq!(phase(&replica), Phase::Swapping);
    replica.no(Cert("root"), abort(1), "REPLACEMENT_SWAPPING", "");
    // A node may already write by its new certificate; both are its own until the last one swapped.
    replica.ok(Cert("new1"), swapped(1, 1));
    replica.ok(Cert("new3"), swapped(1, 3));
    assert_eq!(known(&replica, 1), [thumb("new1"), thumb("n1")]);
    replica.ok(Cert("n2"), swapped(1, 2));
    assert_eq!(phase(&replica), Phase::Finished);
    for (node, name) in [(1, "new1"), (2, "new1"), (3, "new3")] {
        assert_eq!(known(&replica, node), [thumb(name)]);
        assert!(replica.registry().is_certificate_of(NodeId(node), &thumb(name)));
    }
    for old in ["n1", "n2", "n3"] {
        assert!(replica.registry().certificate(&thumb(old)).is_none(), "{old} is revoked");
    }
    let last = replica.registry().replacement().unwrap().clone();
    assert!(last.nodes.iter().all(|node| node.sealed_key.is_empty()), "no key is left behind");
    replica.check_records();
}

#[test]
fn removed_nodes_are_not_waited_for_and_a_shared_certificate_stays_the_others() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), begin(start(1, ["new1", "new1", "new3"])));
    for (node, name) in [(1, "n1"), (2, "n2")] {
        replica.ok(Cert(name), installed(1, node));
    }
    assert_eq!(phase(&replica), Phase::Installing);
    replica.ok(Cert("root"), remove(3));
    assert_eq!(phase(&replica), Phase::Swapping);
    assert!(replica.registry().certificate(&thumb("n3")).is_none());
    assert!(replica.registry().certificate(&thumb("new1")).is_some());
    replica.ok(Cert("n1"), swapped(1, 1));
    replica.ok(Cert("n2"), swapped(1, 2));
    assert_eq!(phase(&replica), Phase::Finished);
    assert_eq!(known(&replica, 2), [thumb("new1")]);
    replica.check_records();
}

#[test]
fn a_node_with_a_shared_certificate_leaves_when_the_others_have_their_own() {
    const SHARED: &str = "NODE_CERTIFICATE_SHARED";
    let immediately =
        |number, names| StartCertificateReplacement { immediately: true, ..start(number, names) };
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), begin(start(1, ["new1", "new1", "new1"])));
    replica.no(Cert("root"), remove(3), SHARED, "node_id");
    for (node, name) in [(1, "n1"), (2, "n2"), (3, "n3")] {
        replica.ok(Cert(name), installed(1, node));
    }
    for node in 1..=3 {
        replica.ok(Cert("new1"), swapped(1, node));
    }
    replica.no(Cert("root"), remove(3), SHARED, "node_id");
    // Node 3 is down: the others do not wait for it, and its removal ends the replacement.
    replica.ok(Cert("root"), begin(immediately(2, ["n4", "x", "new3"])));
    replica.no(Cert("root"), remove(3), SHARED, "node_id");
    replica.ok(Cert("n4"), swapped(2, 1));
    replica.no(Cert("root"), remove(3), SHARED, "node_id");
    replica.ok(Cert("x"), swapped(2, 2));
    replica.ok(Cert("root"), remove(3));
    assert_eq!(phase(&replica), Phase::Finished);
    assert!(replica.registry().certificate(&thumb("new1")).is_none(), "the shared one is revoked");
    assert_eq!((known(&replica, 1), known(&replica, 2)), (vec![thumb("n4")], vec![thumb("x")]));
    replica.check_records();
}

#[test]
fn a_certificate_with_another_meaning_becomes_no_nodes() {
    let entry = |names: [&str; 2]| {
        let secondaries = vec![der(names[1])];
        let put = PutCertificate { secondaries, ..put_inner(names[0], NODE, &[]) };
        cluster_command::Command::PutCertificate(put)
    };
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), entry(["carol", "x"]));
    replica.ok(Cert("n1"), super::trust::declare(1, &["future"]));
    let check = |replica: &mut Replica, name: &'static str, reason: &str, field: &str| {
        let certificate = der(name);
        let renew = RenewNodeCertificate { node_id: 1, certificate };
        replica.no(
            Cert("n1"),
            cluster_command::Command::RenewNodeCertificate(renew),
            reason,
            field,
        );
        replica.no(Cert("root"), begin(start(1, ["new1", name, "new3"])), reason, field);
    };
    check(&mut replica, "carol", "ALREADY_EXISTS", "certificate");
    check(&mut replica, "x", "ALREADY_EXISTS", "certificate");
    check(&mut replica, "future", "WELL_KNOWN", "thumbprint");
    replica.ok(Cert("root"), token("t", 60_000));
    let join = cluster_command::Command::JoinNode(join_inner("t", "n5", "future"));
    replica.no(Node, join, "WELL_KNOWN", "thumbprint");
    replica.ok(Cert("root"), delete("carol"));
    replica.ok(Cert("root"), begin(start(1, ["new1", "x", "new3"])));
}

#[test]
fn starts_that_do_not_fit_are_refused_and_nodes_swap_when_it_is_time() {
    let mut replica = Replica::populated();
    let good = || start(1, ["new1", "new1", "new3"]);
    let mut two = good();
    two.nodes.pop();
    replica.no(Cert("root"), begin(two), "CONCURRENCY", "");
    replica.no(
        Cert("root"),
        begin(start(1, ["new1", "alice", "new3"])),
        "ALREADY_EXISTS",
        "certificate",
    );
    replica.no(Cert("op"), begin(good()), "CLEARANCE_TOO_LOW", "");
    // Nobody makes nodes swap before its time: the conditions are looked at again.
    replica.ok(Cert("root"), begin(good()));
    replica.ok(Cert("n1"), activate(1));
    assert_eq!(phase(&replica), Phase::Installing);
    let immediately = StartCertificateReplacement {
        immediately: true,
        supersede: true,
        ..start(2, ["new1", "new1", "new3"])
    };
    replica.ok(Cert("root"), begin(immediately));
    assert_eq!(phase(&replica), Phase::Swapping);
}

#[test]
fn nodes_swap_when_the_new_certificates_begin_and_not_before() {
    // The last of them begins in 2080; the others could be presented at once.
    let begins = new_year(2080);
    for immediately in [false, true] {
        let mut replica = Replica::populated();
        let start = start(1, ["new1", "future", "new3"]);
        replica.ok(Cert("root"), begin(StartCertificateReplacement { immediately, ..start }));
        for (node, name) in [(1, "n1"), (2, "n2"), (3, "n3")] {
            replica.ok(Cert(name), installed(1, node));
        }
        for at in [NOW, begins - 1] {
            replica.ok_at(Cert("n1"), at, activate(1));
            assert_eq!(phase(&replica), Phase::Installing, "immediately: {immediately}, at {at}");
        }
        assert_eq!(known(&replica, 2), [thumb("n2"), thumb("future")]);
        assert_eq!(replica.registry().replacement().unwrap().swap_reason, "");
        replica.ok_at(Cert("n1"), begins, activate(1));
        assert_eq!(phase(&replica), Phase::Swapping, "immediately: {immediately}");
        let registry = replica.registry();
        assert_eq!(registry.replacement().unwrap().swap_unix_ms, begins);
        replica.check_records();
    }
    // Until then it can be called off.
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), begin(start(1, ["future", "future", "future"])));
    for (node, name) in [(1, "n1"), (2, "n2"), (3, "n3")] {
        replica.ok(Cert(name), installed(1, node));
    }
    replica.ok(Cert("root"), abort(1));
    replica.ok_at(Cert("n1"), begins, activate(1));
    assert_eq!(phase(&replica), Phase::Aborted);
    assert!(replica.registry().certificate(&thumb("future")).is_none());
}

#[test]
fn in_the_last_three_days_nobody_is_waited_for() {
    const THREE_DAYS: i64 = 3 * 24 * 3600 * 1000;
    let mut replica = Replica::populated();
    let last_days = new_year(2090) - THREE_DAYS;
    replica.ok(Cert("root"), begin(start(1, ["new1", "new1", "new3"])));
    replica.ok(Cert("n1"), installed(1, 1));
    replica.ok_at(Cert("n1"), last_days - 1, activate(1));
    assert_eq!(phase(&replica), Phase::Installing);
    replica.ok_at(Cert("n2"), last_days - 1, installed(1, 2));
    assert_eq!(phase(&replica), Phase::Installing, "node 3 has not confirmed");
    // The time of the entry decides, not who writes it; a late activation of another one is none.
    replica.ok_at(Cert("n1"), last_days, activate(7));
    assert_eq!(phase(&replica), Phase::Installing);
    replica.ok_at(Cert("n2"), last_days, activate(1));
    assert_eq!(phase(&replica), Phase::Swapping);
    let reason = replica.registry().replacement().unwrap().swap_reason.clone();
    assert_eq!(reason, "a certificate in force ends within 3 days");
    replica.no(Cert("root"), abort(1), "REPLACEMENT_SWAPPING", "");
    // The node that was not waited for joins in when it returns; until then its old certificate is its own.
    for (node, name) in [(1, "n1"), (2, "n2")] {
        replica.ok_at(Cert(name), last_days, swapped(1, node));
    }
    assert_eq!(phase(&replica), Phase::Swapping);
    assert_eq!(known(&replica, 3), [thumb("n3"), thumb("new3")]);
    replica.ok_at(Cert("n3"), last_days + 1, swapped(1, 3));
    assert_eq!(phase(&replica), Phase::Finished);
    assert!(replica.registry().certificate(&thumb("n3")).is_none());
    replica.check_records();
}

#[test]
fn the_last_days_are_those_of_members_and_of_the_certificates_they_present() {
    let at = new_year(2030) - 24 * 3600 * 1000;
    let rows = [
        ("a member's certificate ends tomorrow", None, Phase::Swapping),
        ("it is removed", Some((Cert("root"), remove(4))), Phase::Installing),
        (
            "it presents another one by now",
            Some((Cert("early"), retire(4, "x"))),
            Phase::Installing,
        ),
    ];
    for (what, step, expected) in rows {
        let mut replica = Replica::populated();
        replica.ok(Cert("root"), token("t", 60_000));
        let join = join_inner("t", "n4", "early");
        replica.ok(Node, cluster_command::Command::JoinNode(join));
        let mut start = start(1, ["new1", "new1", "new3"]);
        start.nodes.push(ReplacementNode {
            node_id: 4,
            chain: vec![der("x")],
            sealed_key: vec![1],
            ..ReplacementNode::default()
        });
        replica.ok(Cert("root"), begin(start));
        replica.ok(Cert("n1"), installed(1, 1));
        if let Some((by, step)) = step {
            replica.ok(by, step);
        }
        replica.ok_at(Cert("n1"), at, activate(1));
        assert_eq!(phase(&replica), expected, "{what}");
    }
}

#[test]
fn an_abort_takes_only_what_its_start_added() {
    let mut replica = Replica::populated();
    let renew = RenewNodeCertificate { node_id: 1, certificate: der("new1") };
    replica.ok(Cert("n1"), cluster_command::Command::RenewNodeCertificate(renew));
    replica.ok(Cert("root"), begin(start(1, ["new1", "new1", "n3"])));
    // Node 1 presents it by now, before anybody was told to.
    replica.ok(Cert("new1"), installed(1, 1));
    replica.ok(Cert("root"), abort(1));
    assert_eq!(known(&replica, 1), [thumb("n1"), thumb("new1")]);
    assert_eq!(known(&replica, 2), [thumb("n2")]);
    assert_eq!(known(&replica, 3), [thumb("n3")]);
    // One that supersedes another and names the same certificate did not add it either.
    replica.ok(Cert("root"), begin(start(2, ["n1", "n2", "new3"])));
    let again = StartCertificateReplacement { supersede: true, ..start(3, ["n1", "n2", "new3"]) };
    replica.ok(Cert("root"), begin(again));
    replica.ok(Cert("root"), abort(3));
    assert_eq!(known(&replica, 3), [thumb("n3"), thumb("new3")]);
    replica.ok(Cert("n3"), retire(3, "n3"));
    assert_eq!(known(&replica, 3), [thumb("n3")]);
    replica.check_records();
}

#[test]
fn an_abort_leaves_what_was_there_and_a_superseding_one_takes_over() {
    let mut replica = Replica::populated();
    replica.ok(Cert("root"), begin(start(1, ["new1", "new1", "new3"])));
    replica.ok(Cert("root"), begin(start(1, ["new1", "new1", "new3"]))); // The same, asked again.
    replica.no(Cert("root"), begin(start(2, ["new3", "new3", "new3"])), "REPLACEMENT_RUNNING", "");
    replica.ok(Cert("root"), abort(1));
    assert_eq!(phase(&replica), Phase::Aborted);
    replica.no(Cert("root"), abort(1), "NOT_FOUND", "");
    for (node, name) in [(1, "n1"), (2, "n2"), (3, "n3")] {
        assert_eq!(known(&replica, node), [thumb(name)]);
    }
    assert!(replica.registry().certificate(&thumb("new1")).is_none());

    replica.ok(Cert("root"), begin(start(3, ["new1", "new1", "new1"])));
    let second = StartCertificateReplacement {
        supersede: true,
        immediately: true,
        ..start(4, ["new3", "new3", "new3"])
    };
    replica.ok(Cert("root"), begin(second));
    assert_eq!(phase(&replica), Phase::Swapping);
    replica.ok(Cert("n1"), swapped(3, 1)); // Late, for the one before.
    assert_eq!(known(&replica, 1)[0], thumb("n1"));
    for (node, name) in [(1, "n1"), (2, "n2"), (3, "n3")] {
        replica.ok(Cert(name), swapped(4, node));
    }
    assert_eq!(phase(&replica), Phase::Finished);
    assert!(replica.registry().certificate(&thumb("new1")).is_none(), "the superseded one is gone");
    assert_eq!(known(&replica, 3), [thumb("new3")]);
    replica.check_records();
}

#[test]
fn a_node_renews_and_retires_its_own_certificates_and_nobody_elses() {
    let mut replica = Replica::populated();
    let renew = |node_id, name: &str| {
        let certificate = der(name);
        let renew = RenewNodeCertificate { node_id, certificate };
        cluster_command::Command::RenewNodeCertificate(renew)
    };
    replica.no(Cert("n1"), renew(2, "new1"), "NOT_A_MEMBER", "node_id");
    replica.no(Cert("n1"), renew(1, "alice"), "ALREADY_EXISTS", "certificate");
    replica.no(Cert("n1"), retire(1, "new1"), "NOT_FOUND", "keep");
    replica.ok(Cert("n1"), renew(1, "new1"));
    assert_eq!(known(&replica, 1), [thumb("n1"), thumb("new1")]);
    replica.ok(Cert("new1"), retire(1, "new1"));
    assert_eq!(known(&replica, 1), [thumb("new1")]);
    assert!(replica.registry().certificate(&thumb("n1")).is_none());
    replica.no(Cert("n1"), retire(1, "n1"), "CERTIFICATE_UNKNOWN", "");
    replica.check_records();
}
