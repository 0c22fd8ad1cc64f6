//! The seeds reach what they are for, and the judge finds what must not be.

use std::{collections::BTreeSet, panic::catch_unwind};

use super::*;

#[test]
fn seeds_reach_what_administrators_do() {
    let mut applied = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for (_, command, reply) in seeds().iter().flat_map(|seed| run(seed)) {
        let Some(command::Command::Cluster(cluster)) = &command.command else { continue };
        let kind = kind(cluster).split('(').nth(1).unwrap_or_default().to_owned();
        match reply.outcome {
            Some(applied::Outcome::Refusal(refusal)) => refused.insert((kind, refusal.reason)),
            _ => applied.insert(kind),
        };
    }
    println!("applied: {applied:?}\nrefused: {refused:?}");
    for kind in [
        "CreateDatabase",
        "CreateJoinToken",
        "DeleteCertificate",
        "DeleteDatabase",
        "EditCertificate",
        "EnrolSecondFactor",
        "JoinNode",
        "OpenSession",
        "PurgeCertificates",
        "PutCertificate",
        "PutClusterSecret",
        "RegisterSealingKey",
        "RemoveNode",
        "RemoveSecondFactor",
        "SetCertificateState",
        "SetDatabaseState",
    ] {
        assert!(applied.contains(kind), "no seed applies {kind}: {applied:?} {refused:?}");
    }
    assert!(refused.iter().any(|(_, reason)| reason == "MANAGE_FORBIDDEN"));
}

/// What was rightly done by one author, told of another.
#[test]
fn the_judge_finds_what_must_not_be() {
    let put = |clearance| {
        let put = PutCertificate {
            der: vec![7],
            name: "new".to_owned(),
            clearance,
            ..PutCertificate::default()
        };
        ClusterCommand { command: Some(C::PutCertificate(put)) }.encode_to_vec()
    };
    let found = |by: u8, told: u8, clearance: u32, as_refused: bool| {
        let mut replica = FORMED.clone();
        let cluster = Cluster::load(&replica.memory, replica.space).unwrap();
        let (before, known) = (registered(&replica), cluster.registry());
        let mut command = entry(by, 1, &put(clearance), 0).unwrap();
        let mut applied =
            replica.batch(|state| cluster.apply(FIRST_REQUEST, &command, state)).unwrap();
        let registry = cluster.publish();
        (command.author, command.internal_reason) = author(told);
        if as_refused {
            let refusal = crate::results::refusal("X", "x");
            applied.outcome = Some(applied::Outcome::Refusal(refusal));
        }
        let after = registered(&replica);
        catch_unwind(|| judge(&command, &applied, (&known, &before), (&registry, &after))).is_err()
    };
    for (by, told, clearance, as_refused, expected) in [
        (2, 2, 3, false, false), // A Cluster Admin makes another one.
        (2, 4, 3, false, true),  // Told of an Operator,
        (2, 4, 1, false, false), // who may make a User.
        (2, 5, 1, false, true),  // Told of a User,
        (2, 8, 1, false, true),  // of somebody unknown,
        (2, 11, 1, false, true), // of the node itself,
        (2, 2, 1, true, true),   // and as if it had been refused.
    ] {
        let told = (by, told, clearance, as_refused);
        assert_eq!(found(told.0, told.1, told.2, told.3), expected, "{told:?}");
    }
}
