//! Second factors and their cluster secret, as the log decides them.

mod shared;

use rookery_proto::log::v1::{
    ClusterSecretRecord, EndSession, EnrolSecondFactor, ForgetClusterSecret, NoteWrongCode,
    NotedWrongCode, OpenSession, OpenedSession, PutClusterSecret, RemoveSecondFactor,
    ResealSecondFactor, SealClusterSecret, SealedFor, SecondFactorRecord, open_session,
};

use super::*;
use crate::authz::{DatabaseOperation, DeniedReason, decide_database};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn sealed_for(nodes: &[u64]) -> Vec<SealedFor> {
    nodes.iter().map(|node_id| SealedFor { node_id: *node_id, sealed: vec![1; 81] }).collect()
}

fn secret(replaces: u64, nodes: &[u64]) -> cluster_command::Command {
    let sealed = sealed_for(nodes);
    cluster_command::Command::PutClusterSecret(PutClusterSecret { replaces, sealed })
}

fn bytes(name: &str) -> Vec<u8> {
    thumb(name).as_bytes().to_vec()
}

fn enrol(name: &str, key_id: u64) -> cluster_command::Command {
    cluster_command::Command::EnrolSecondFactor(EnrolSecondFactor {
        thumbprint: bytes(name),
        key_id,
        sealed: vec![9; 100],
    })
}

fn take(name: &str) -> cluster_command::Command {
    cluster_command::Command::RemoveSecondFactor(RemoveSecondFactor { thumbprint: bytes(name) })
}

fn wrong(name: &str) -> cluster_command::Command {
    cluster_command::Command::NoteWrongCode(NoteWrongCode { thumbprint: bytes(name) })
}

fn end() -> cluster_command::Command {
    cluster_command::Command::EndSession(EndSession {})
}

fn step_at(at: i64) -> u64 {
    u64::try_from(at / 30_000).unwrap()
}

impl Replica {
    /// With a cluster secret, and a pending second factor of alice.
    fn with_pending() -> Self {
        let mut replica = Self::populated();
        replica.ok(Cert("n1"), secret(0, &[1, 2, 3]));
        let key = replica.index;
        replica.ok(Cert("alice"), enrol("alice", key));
        replica
    }

    /// With a second factor of alice that was confirmed at `NOW`, in a session of two hours that needs a token.
    fn with_session() -> Self {
        let mut replica = Self::with_pending();
        let confirm = OpenSession { confirms: true, ..replica.session("alice", step(NOW)) };
        replica.ok(Cert("n2"), open(confirm));
        replica
    }

    fn session(&self, name: &str, proof: open_session::Proof) -> OpenSession {
        let registry = self.registry();
        let record = registry.second_factor(&thumb(name));
        OpenSession {
            thumbprint: bytes(name),
            enrolled_revision: record.map_or(0, |record| record.enrolled_revision),
            confirms: false,
            proof: Some(proof),
            duration_ms: 2 * HOUR as u64,
            token_digest: vec![5; 32],
        }
    }

    fn factor(&self, name: &str) -> SecondFactorRecord {
        (**self.registry().second_factor(&thumb(name)).unwrap()).clone()
    }

    fn reason_at(&mut self, by: By, at: i64, command: cluster_command::Command) -> String {
        let applied = self.run_at(by, at, command);
        refused(&applied).map_or_else(String::new, |(reason, _)| reason.to_owned())
    }

    /// What alice hears when she reads a database at a moment; empty: she may.
    fn read_at(&self, at: i64) -> &'static str {
        let registry = self.registry();
        let caller = registry.caller(Some(thumb("alice")));
        let decided = decide_database(
            caller,
            DatabaseOperation::ReadDocument,
            DatabaseId(1),
            Timestamp(at),
            registry.revision,
        );
        decided.err().map_or("", |denied: authz::Denied| denied.reason.code())
    }

    fn secrets(&self) -> Vec<(u64, Vec<u64>, bool)> {
        let nodes = |record: &ClusterSecretRecord| {
            record.sealed.iter().map(|one| one.node_id).collect::<Vec<_>>()
        };
        let registry = self.registry();
        registry
            .cluster_secrets()
            .map(|record| (record.key_id, nodes(record), record.leaver_knew))
            .collect()
    }
}

fn step(at: i64) -> open_session::Proof {
    open_session::Proof::Step(step_at(at))
}

fn open(session: OpenSession) -> cluster_command::Command {
    cluster_command::Command::OpenSession(session)
}

#[test]
fn a_second_factor_counts_from_its_first_code_on() {
    let mut replica = Replica::with_pending();
    assert_eq!(replica.read_at(NOW), "");
    let login = replica.session("alice", step(NOW));
    replica.no(Cert("n1"), open(login.clone()), "SECOND_FACTOR_NOT_ENROLLED", "");
    let confirm = OpenSession { confirms: true, ..login };
    let opened = replica.ok(Cert("n1"), open(confirm.clone()));
    let expected = OpenedSession { expires_unix_ms: NOW + 2 * HOUR, recovery_codes_left: 10 };
    assert_eq!(opened, cluster_outcome::Outcome::OpenedSession(expected));
    replica.no(Cert("n1"), open(confirm), "ALREADY_EXISTS", "");
    // Open until the session is over, to the millisecond.
    assert_eq!(replica.read_at(NOW + 2 * HOUR - 1), "");
    assert_eq!(replica.read_at(NOW + 2 * HOUR), "SECOND_FACTOR_REQUIRED");
    replica.no(Cert("alice"), enrol("alice", 1), "ALREADY_EXISTS", "");
}

#[test]
fn a_code_opens_one_session_and_none_after_a_later_one() {
    let mut replica = Replica::with_session();
    let used = "SECOND_FACTOR_CODE_USED";
    for (at, shown, reason) in [
        (NOW, NOW, used),
        (NOW + 30_000, NOW, used),
        (NOW + 30_000, NOW + 30_000, ""),
        (NOW + 30_000, NOW + 30_000, used),
        (NOW + 60_000, NOW, used),
        (NOW + 90_000, NOW + 120_000, ""),
        (NOW + 120_000, NOW + 90_000, used),
        // Of no time that a member would take: neither long ago nor far ahead, which would shut the holder out.
        (NOW + HOUR, NOW + 150_000, "CONCURRENCY"),
        (NOW + 150_000, NOW + HOUR, "CONCURRENCY"),
    ] {
        let login = open(replica.session("alice", step(shown)));
        assert_eq!(
            replica.reason_at(Cert("n3"), at, login),
            reason,
            "{} {}",
            at - NOW,
            shown - NOW
        );
    }
}

#[test]
fn a_recovery_code_opens_one_session() {
    let mut replica = Replica::with_session();
    let recovery = |place| open_session::Proof::Recovery(place);
    for (place, reason) in [
        (3, ""),
        (3, "SECOND_FACTOR_CODE_USED"),
        (0, ""),
        (9, ""),
        (10, "INVALID_ARGUMENT"),
        (0, "SECOND_FACTOR_CODE_USED"),
    ] {
        let login = open(replica.session("alice", recovery(place)));
        assert_eq!(replica.reason_at(Cert("n1"), NOW, login), reason, "{place}");
    }
    assert_eq!(replica.factor("alice").recovery_used, [0, 3, 9]);
    assert_eq!(recovery_codes_left(&replica.factor("alice")), 7);
}

#[test]
fn five_wrong_codes_in_five_minutes_lock_it_for_five() {
    let mut replica = Replica::with_session();
    let left = |outcome: cluster_outcome::Outcome| {
        let cluster_outcome::Outcome::NotedWrongCode(noted) = outcome else {
            panic!("{outcome:?}")
        };
        let NotedWrongCode { attempts_left, .. } = noted;
        attempts_left
    };
    let noted = |replica: &mut Replica, at| match replica.run_at(Cert("n1"), at, wrong("alice")) {
        Applied { outcome: Some(applied::Outcome::Cluster(outcome)), .. } => {
            left(outcome.outcome.unwrap())
        }
        other => panic!("{other:?}"),
    };
    // Four, and a fifth when the first does not count any more.
    for (minute, expected) in [(0, 4), (1, 3), (2, 2), (3, 1), (5, 1)] {
        assert_eq!(noted(&mut replica, NOW + minute * MINUTE), expected, "{minute}");
    }
    assert_eq!(noted(&mut replica, NOW + 5 * MINUTE + 1), 0);
    let locked_at = NOW + 5 * MINUTE + 1;
    let mut login_at = |at| {
        let login = open(replica.session("alice", step(at)));
        replica.reason_at(Cert("n2"), at, login)
    };
    assert_eq!(login_at(locked_at), "SECOND_FACTOR_LOCKED");
    assert_eq!(login_at(locked_at + 5 * MINUTE - 1), "SECOND_FACTOR_LOCKED");
    assert_eq!(login_at(locked_at + 5 * MINUTE), "");
    // What is locked counts nothing, and a session that lives goes on.
    let mut replica = Replica::with_session();
    for _ in 0..5 {
        noted(&mut replica, NOW);
    }
    let refusal = replica.run_at(Cert("n1"), NOW + MINUTE, wrong("alice")).outcome.unwrap();
    let applied::Outcome::Refusal(refusal) = refusal else { panic!("{refusal:?}") };
    assert_eq!(refusal.reason, "SECOND_FACTOR_LOCKED");
    assert_eq!(refusal.metadata["retry_after_ms"], (4 * MINUTE).to_string());
    assert_eq!(replica.read_at(NOW + MINUTE), "");
}

#[test]
fn a_session_replaces_the_one_before_and_ends_when_its_holder_says() {
    let mut replica = Replica::with_session();
    let before = replica.registry();
    let expires = |replica: &Replica| replica.factor("alice").session.unwrap().expires_unix_ms;
    let longer = OpenSession {
        duration_ms: 24 * HOUR as u64,
        token_digest: vec![6; 32],
        ..replica.session("alice", open_session::Proof::Recovery(0))
    };
    replica.ok(Cert("n1"), open(longer));
    assert_eq!(expires(&replica), NOW + 24 * HOUR);
    assert_eq!(lost_rights(&before, &replica.registry()), [thumb("alice")], "the old token");
    let ended = |replica: &Replica, from: i64, to: i64| {
        let registry = replica.registry();
        registry.sessions_ended(Timestamp(from), Timestamp(to)).collect::<Vec<_>>()
    };
    assert_eq!(ended(&replica, NOW, NOW + 24 * HOUR - 1), []);
    assert_eq!(ended(&replica, NOW, NOW + 24 * HOUR), [thumb("alice")]);

    let before = replica.registry();
    assert!(takes_rights_away(&before, &ClusterCommand { command: Some(end()) }));
    replica.ok(Cert("alice"), end());
    assert_eq!(replica.read_at(NOW), "SECOND_FACTOR_REQUIRED");
    assert_eq!(lost_rights(&before, &replica.registry()), [thumb("alice")]);
    assert_eq!(ended(&replica, NOW, i64::MAX), []);
    let revision = replica.registry().revision;
    replica.ok(Cert("alice"), end());
    assert_eq!(replica.registry().revision, revision, "there was none any more");
    replica.no(Cert("bob"), end(), "SECOND_FACTOR_NOT_ENROLLED", "");
}

#[test]
fn sessions_have_bounds() {
    let mut replica = Replica::with_session();
    let proof = open_session::Proof::Recovery(1);
    let good = replica.session("alice", proof);
    for (spoilt, reason, field) in [
        (OpenSession { duration_ms: 0, ..good.clone() }, "INVALID_ARGUMENT", "session_seconds"),
        (
            OpenSession { duration_ms: 24 * HOUR as u64 + 1, ..good.clone() },
            "INVALID_ARGUMENT",
            "session_seconds",
        ),
        (
            OpenSession { token_digest: vec![1; 31], ..good.clone() },
            "INVALID_ARGUMENT",
            "token_digest",
        ),
        (OpenSession { proof: None, ..good.clone() }, "INVALID_ARGUMENT", "proof"),
        (OpenSession { thumbprint: vec![1], ..good.clone() }, "INVALID_ARGUMENT", "thumbprint"),
        (OpenSession { thumbprint: bytes("x"), ..good.clone() }, "NOT_FOUND", ""),
        (
            OpenSession { thumbprint: bytes("bob"), ..good.clone() },
            "SECOND_FACTOR_NOT_ENROLLED",
            "",
        ),
        (OpenSession { enrolled_revision: 1, ..good.clone() }, "CONCURRENCY", ""),
    ] {
        replica.no(Cert("n1"), open(spoilt), reason, field);
    }
    replica.ok(Cert("n1"), open(good));
}

#[test]
fn only_members_vouch_for_codes_and_hold_the_secret() {
    let mut replica = Replica::with_session();
    let low = "NOT_A_MEMBER";
    let commands = |replica: &Replica| {
        [
            open(replica.session("bob", step(NOW))),
            wrong("alice"),
            secret(0, &[1]),
            cluster_command::Command::SealClusterSecret(SealClusterSecret {
                key_id: 1,
                sealed: sealed_for(&[1]),
            }),
            cluster_command::Command::ForgetClusterSecret(ForgetClusterSecret { key_id: 1 }),
            cluster_command::Command::ResealSecondFactor(ResealSecondFactor {
                thumbprint: bytes("alice"),
                sealed: vec![1],
                ..ResealSecondFactor::default()
            }),
        ]
    };
    for by in [Cert("root"), Cert("op"), Cert("alice")] {
        for command in commands(&replica) {
            replica.no(by, command, low, "");
        }
    }
}

/// Who may make and take whose second factor: one's own, and by the rules about edits.
#[test]
fn second_factors_of_others_follow_the_rules_about_edits() {
    for (by, whose, reason) in [
        ("alice", "alice", ""),
        ("alice", "bob", "CLEARANCE_TOO_LOW"),
        ("alice", "x", "NOT_FOUND"),
        ("op", "op", ""),
        ("op", "alice", ""),
        ("op", "op2", ""),
        ("op", "root", "MANAGE_FORBIDDEN"),
        ("op", "n1", "MANAGE_FORBIDDEN"),
        ("root", "root", ""),
        ("root", "root2", ""),
        ("root", "op", ""),
        ("root", "n1", "MANAGE_FORBIDDEN"),
        ("n1", "n1", "INVALID_ARGUMENT"),
        ("x", "alice", "CERTIFICATE_UNKNOWN"),
    ] {
        let mut replica = Replica::populated();
        replica.ok(Cert("n1"), secret(0, &[1]));
        let key = replica.index;
        assert_eq!(replica.reason_at(Cert(by), NOW, enrol(whose, key)), reason, "{by} {whose}");
        let there = reason.is_empty();
        let taken = if there { "" } else { reason };
        assert_eq!(replica.reason_at(Cert(by), NOW, take(whose)), taken, "{by} takes {whose}");
        assert!(replica.registry().second_factors().next().is_none());
    }
}

#[test]
fn without_a_session_the_log_hears_only_what_ends_one() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), secret(0, &[1]));
    let key = replica.index;
    replica.ok(Cert("op"), enrol("op", key));
    let confirm = OpenSession { confirms: true, ..replica.session("op", step(NOW)) };
    replica.ok(Cert("n1"), open(confirm));
    let over = NOW + 2 * HOUR;
    let required = DeniedReason::SecondFactorRequired.code();
    for (at, reason) in [(over - 1, ""), (over, required)] {
        let name = format!("d{at}");
        assert_eq!(replica.reason_at(Cert("op"), at, create(&name, &[], 0)), reason);
        let renamed = rename("bob", &name);
        assert_eq!(replica.reason_at(Cert("op"), at, renamed), reason);
    }
    assert_eq!(replica.reason_at(Cert("op"), over, take("op")), required);
    assert_eq!(replica.reason_at(Cert("op"), over, enrol("bob", key)), required);
    assert_eq!(replica.reason_at(Cert("op"), over, end()), "");
    // An administrator helps out; then the certificate alone is enough again.
    assert_eq!(replica.reason_at(Cert("root"), over, take("op")), "");
    assert_eq!(replica.reason_at(Cert("op"), over, create("again", &[], 0)), "");
}

#[test]
fn a_join_token_outlives_the_session_it_was_made_in() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), secret(0, &[1]));
    let key = replica.index;
    replica.ok(Cert("root"), enrol("root", key));
    let session = replica.session("root", step(NOW));
    let confirm = OpenSession { confirms: true, duration_ms: MINUTE as u64, ..session };
    replica.ok(Cert("n1"), open(confirm));
    replica.ok(Cert("root"), token("t", HOUR));
    let late = NOW + 2 * MINUTE;
    assert_ne!(replica.reason_at(Cert("root"), late, token("u", HOUR)), "");
    assert_eq!(replica.reason_at(Cert("n4"), late, join("t", "n4")), "");
}

#[test]
fn a_second_factor_survives_edits_and_goes_with_its_certificate() {
    let mut replica = Replica::with_session();
    let factor = replica.factor("alice");
    replica.ok(Cert("op"), rename("alice", "alice the second"));
    replica.ok(Cert("op"), grant("alice", &[("stock", 3)]));
    assert_eq!(replica.factor("alice"), factor);
    let registry = replica.registry();
    let registration = registry.certificate(&thumb("alice")).unwrap();
    assert!(registration.second_factor.unwrap().live(Timestamp(NOW)).is_some());
    replica.ok(Cert("op"), delete("alice"));
    assert!(replica.registry().second_factor(&thumb("alice")).is_none());
    replica.ok(Cert("op"), put("alice", USER, &[]));
    assert_eq!(replica.registry().certificate(&thumb("alice")).unwrap().second_factor, None);
    let ended = replica.registry().sessions_ended(Timestamp(0), Timestamp(i64::MAX)).count();
    assert_eq!(ended, 0);
}

#[test]
fn the_cluster_secret_goes_to_members_and_is_replaced_when_one_leaves() {
    let mut replica = Replica::populated();
    replica.ok(Cert("n1"), secret(0, &[1, 3, 9]));
    let first = replica.index;
    assert_eq!(replica.secrets(), [(first, vec![1, 3], false)], "9 is no member");
    replica.no(Cert("n2"), secret(0, &[1, 2, 3]), "CONCURRENCY", "");
    replica.ok(Cert("alice"), enrol("alice", first));
    let seal = |key_id, nodes: &[u64]| {
        let sealed = sealed_for(nodes);
        cluster_command::Command::SealClusterSecret(SealClusterSecret { key_id, sealed })
    };
    replica.ok(Cert("n1"), seal(first, &[2, 3]));
    assert_eq!(replica.secrets(), [(first, vec![1, 2, 3], false)]);
    replica.no(Cert("n1"), seal(77, &[2]), "NOT_FOUND", "key_id");
    for (nodes, field) in [(vec![], "sealed"), (vec![2, 1], "sealed"), (vec![1, 1], "sealed")] {
        replica.no(Cert("n1"), seal(first, &nodes), "INVALID_ARGUMENT", field);
    }

    replica.ok(Cert("op"), drop_database("stock"));
    replica.ok(Cert("root"), remove(2));
    assert_eq!(replica.secrets(), [(first, vec![1, 3], true)]);
    replica.ok(Cert("n1"), secret(first, &[1, 3]));
    let second = replica.index;
    let forget =
        |key_id| cluster_command::Command::ForgetClusterSecret(ForgetClusterSecret { key_id });
    replica.no(Cert("n1"), forget(first), "CONCURRENCY", "");
    replica.no(Cert("n1"), forget(second), "CONCURRENCY", "");
    replica.no(Cert("alice"), enrol("alice", first), "CONCURRENCY", "");
    let reseal = |from_key_id, key_id| {
        cluster_command::Command::ResealSecondFactor(ResealSecondFactor {
            thumbprint: bytes("alice"),
            from_key_id,
            key_id,
            sealed: vec![4; 99],
        })
    };
    replica.no(Cert("n1"), reseal(second, second), "CONCURRENCY", "");
    replica.ok(Cert("n1"), reseal(first, second));
    assert_eq!(
        (replica.factor("alice").key_id, replica.factor("alice").sealed.len()),
        (second, 99)
    );
    replica.ok(Cert("n3"), forget(first));
    assert_eq!(replica.secrets(), [(second, vec![1, 3], false)]);
}

#[test]
fn a_node_that_lost_its_sealing_key_is_served_anew() {
    let mut replica = Replica::populated();
    let register = |key: u8| {
        let key = vec![key; 32];
        let register = rookery_proto::log::v1::RegisterSealingKey { node_id: 2, key };
        cluster_command::Command::RegisterSealingKey(register)
    };
    replica.ok(Cert("n2"), register(1));
    replica.ok(Cert("n1"), secret(0, &[1, 2]));
    let key = replica.index;
    replica.ok(Cert("n2"), register(1));
    assert_eq!(replica.secrets(), [(key, vec![1, 2], false)]);
    replica.ok(Cert("n2"), register(2));
    assert_eq!(replica.secrets(), [(key, vec![1], false)]);
}

/// What stands in a log or a state must be read by later builds as well.
#[test]
fn the_bytes_of_second_factors_are_as_they_were() {
    let check = |message: Vec<u8>, expected: &str| assert_eq!(hex::encode(message), expected);
    let command = |inner| ClusterCommand { command: Some(inner) }.encode_to_vec();
    let session = OpenSession {
        thumbprint: vec![1],
        enrolled_revision: 2,
        confirms: true,
        proof: Some(open_session::Proof::Step(3)),
        duration_ms: 4,
        token_digest: vec![5],
    };
    check(command(open(session)), "b2030e0a010110021801200330043a0105");
    let enrol = EnrolSecondFactor { thumbprint: vec![1], key_id: 2, sealed: vec![3] };
    let enrol = cluster_command::Command::EnrolSecondFactor(enrol);
    check(command(enrol), "aa03080a010110021a0103");
    let secret = ClusterSecretRecord {
        key_id: 1,
        sealed: vec![SealedFor { node_id: 2, sealed: vec![3] }],
        created_unix_ms: 4,
        leaver_knew: true,
    };
    check(secret.encode_to_vec(), "08011205080212010318042001");
    let record = SecondFactorRecord {
        thumbprint: vec![1],
        key_id: 2,
        sealed: vec![3],
        sealed_for: vec![4],
        confirmed: true,
        enrolled_unix_ms: 5,
        enrolled_by: vec![6],
        enrolled_revision: 7,
        last_step: 8,
        recovery_used: vec![9],
        wrong_unix_ms: vec![10],
        locked_until_unix_ms: 11,
        session: Some(rookery_proto::log::v1::SessionRecord {
            opened_unix_ms: 1,
            expires_unix_ms: 2,
            token_digest: vec![3],
            node_id: 4,
        }),
    };
    check(
        record.encode_to_vec(),
        "0a010110021a0103220104280130053a0106400748085201095a010a600b6a09080110021a01032004",
    );
}
