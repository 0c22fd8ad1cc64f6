//! Planted decisions: each that breaks a promise is found, on each way and node, and no other.

use std::time::Duration;

use rookery_proto::security::v1::Access;

use super::{Asked, Changed, Decisions, Gate, Moment, Rights, Told, Verdict, Way, ways};

const NOBODY: Rights = Rights::NONE;
const USER: Rights = Rights { registered: true, ..NOBODY };
const READS: Rights = Rights { access: Some(Access::Read), ..USER };
const WRITES: Rights = Rights { access: Some(Access::ReadWrite), ..USER };
const OFF: Rights = Rights { disabled: true, ..WRITES };
const OPERATOR: Rights = Rights { operator: true, ..USER };
const GONE: Rights = Rights { database: false, ..USER };

fn ms(moment: u64) -> Moment {
    Duration::from_millis(moment)
}

/// Rights that stand from the beginning, and others that were asked for at 10 s and acknowledged at 10.1 s.
fn told(before: Rights, after: Rights, asked: &[Asked]) -> Decisions {
    let changed = |rights, invoked, acknowledged| Changed {
        rights,
        invoked: ms(invoked),
        acknowledged: Some(ms(acknowledged)),
    };
    let changes = vec![changed(before, 0, 0), changed(after, 10_000, 10_100)];
    let told = Told { changes, asked: asked.to_vec(), ..Told::default() };
    Decisions { told: vec![told], holders: vec![0, 1], nodes: 3 }
}

fn asked(way: Way, node: usize, start: u64, allowed: bool) -> Asked {
    Asked { way, node, start: ms(start), end: ms(start + 5), allowed }
}

fn holds(decisions: &Decisions) -> bool {
    match decisions.judge(&[], &Gate::default()) {
        Verdict::Passed(_) => true,
        Verdict::Violated { .. } => false,
        Verdict::Rejected { reasons, .. } => panic!("{reasons:?}"),
    }
}

#[test]
fn each_way_is_denied_on_each_node_once_its_right_is_gone() {
    use Way::{Http1, New, Read, StaleRead, Write};
    let reads = [Read, StaleRead, New, Http1];
    let data = [Read, StaleRead, New, Http1, Write];
    let table: [(&str, Rights, Rights, &[Way]); 9] = [
        ("deleted", WRITES, NOBODY, &ways()),
        ("disabled", WRITES, OFF, &ways()),
        ("an Operator is deleted", OPERATOR, NOBODY, &ways()),
        ("an Operator becomes a User", OPERATOR, USER, &data),
        ("the grant is taken", WRITES, USER, &data),
        ("the grant to read is taken", READS, USER, &reads),
        ("the grant is narrowed", WRITES, READS, &[Write]),
        ("the database is deleted", WRITES, GONE, &data),
        ("the database was made anew", WRITES, USER, &data),
    ];
    for (what, before, after, lost) in table {
        for way in ways() {
            for node in 0..3 {
                let late = told(before, after, &[asked(way, node, 10_101, true)]);
                let is_lost = lost.contains(&way);
                let stays = before.allow(way) && !is_lost;
                assert_eq!(holds(&late), stays, "{what}, {way:?} on n{node}: allowed after");
                let early = told(before, after, &[asked(way, node, 9_000, false)]);
                let expected = !before.allow(way);
                assert_eq!(holds(&early), expected, "{what}, {way:?} on n{node}: denied before");
                let both = [asked(way, node, 9_000, is_lost), asked(way, node, 10_101, false)];
                assert!(!is_lost || holds(&told(before, after, &both)), "{what}, {way:?}");
            }
        }
        assert!(after.is_less_than(before) && !before.is_less_than(before), "{what}");
    }
}

#[test]
fn a_grant_may_be_known_late_but_not_for_ever() {
    for (start, expected) in [(10_200, true), (11_500, true), (11_700, false)] {
        let late = told(USER, WRITES, &[asked(Way::Read, 0, start, false)]);
        assert_eq!(holds(&late), expected, "denied at {start}");
    }
    let early = told(USER, WRITES, &[asked(Way::Read, 0, 9_000, true)]);
    assert!(!holds(&early), "allowed before anybody asked for it");
}

#[test]
fn a_write_that_became_visible_counts_from_its_call() {
    for (start, expected) in [(9_000, true), (10_050, true), (10_101, false)] {
        let write = Asked { end: Moment::MAX, ..asked(Way::Write, 2, start, true) };
        assert_eq!(holds(&told(WRITES, USER, &[write])), expected, "sent at {start}");
    }
}

#[test]
fn a_registry_never_goes_back_where_one_node_decides() {
    let back = |way, node| [asked(way, node, 10_010, false), asked(way, node, 10_030, true)];
    for (way, node, expected) in [
        (Way::Read, 0, false),
        (Way::StaleRead, 1, false),
        (Way::Stream, 2, false),
        // Forwarded to whoever holds the database, or decided again by the leader.
        (Way::Read, 2, true),
        (Way::Write, 0, true),
    ] {
        let rights = if way == Way::Stream { NOBODY } else { USER };
        let decisions = told(WRITES, rights, &back(way, node));
        assert_eq!(holds(&decisions), expected, "{way:?} on n{node}");
    }
}

#[test]
fn a_run_that_saw_too_little_is_rejected() {
    let near = [0, 1, 2].map(|node| asked(Way::Read, node, 10_150, false));
    let gate = |revocations_min, near_min_by_node| Gate { revocations_min, near_min_by_node };
    for (what, gate, nodes, expected) in [
        ("enough", gate(1, 1), 3, true),
        ("too few revocations", gate(2, 1), 3, false),
        ("a node without requests near a revocation", gate(1, 1), 2, false),
    ] {
        let decisions = told(WRITES, NOBODY, &near[..nodes]);
        let verdict = decisions.judge(&[], &gate);
        assert_eq!(matches!(verdict, Verdict::Passed(_)), expected, "{what}: {verdict}");
        assert_eq!(matches!(verdict, Verdict::Rejected { .. }), !expected, "{what}");
    }
}

#[test]
fn a_denial_that_came_too_late_hides_nothing() {
    let wrong = [asked(Way::Read, 0, 9_000, false), asked(Way::Read, 0, 10_101, true)];
    let Verdict::Violated { violations, .. } =
        told(WRITES, NOBODY, &wrong).judge(&[], &Gate::default())
    else {
        panic!("nothing was found");
    };
    assert!(violations.iter().any(|it| !it.allowed), "{violations:?}");
    assert!(violations[0].allowed, "what is graver stands first: {violations:?}");
}
