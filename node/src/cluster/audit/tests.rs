//! What commands leave in the audit log, and what a walk finds in a store that was tampered with.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::{sync::Arc, time::Instant};

use rookery_proto::log::v1::{
    Applied, CreateDatabase, CreateJoinToken, DeleteDatabase, EditCertificate, EnrolSecondFactor,
    FormCluster, GrantByName, NodeRecord, NoteWrongCode, OpenSession, PutCertificate,
    PutClusterSecret, SealClusterSecret, SealedFor, SetDatabaseState, applied,
    cluster_command::Command as C, command, open_session,
};

use super::*;
use crate::{
    audit::chain::Wrong,
    cluster::Cluster,
    consensus::audit::{AuditView, AuditWalk},
    names::{RequestId, Timestamp},
    results::testing::{Memory, space},
    tls::{TlsIdentity, testing::identity},
};

const CLUSTER: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";
const NOW: i64 = 1_750_000_000_000;

/// A cluster of one node on records in memory.
struct Fixture {
    cluster: Cluster,
    memory: Memory,
    index: u64,
    node: TlsIdentity,
    root: TlsIdentity,
}

impl Fixture {
    fn formed() -> Self {
        let mut fixture = Self {
            cluster: Cluster::unformed(),
            memory: Memory::default(),
            index: 0,
            node: identity("n1"),
            root: identity("root"),
        };
        let form = FormCluster {
            cluster_id: CLUSTER.into(),
            nodes: vec![NodeRecord {
                name: "n1".into(),
                client_address: "n1.example:7443".into(),
                peer_address: "n1.example:7444".into(),
                incarnation: vec![1; 16],
                ..NodeRecord::default()
            }],
            node_certificates: vec![fixture.node.certificate_der().to_vec()],
            administrators: vec![PutCertificate {
                der: fixture.root.certificate_der().to_vec(),
                name: "root".into(),
                clearance: 3,
                ..PutCertificate::default()
            }],
        };
        assert_eq!(refused(&fixture.apply(None, C::FormCluster(form))), "");
        fixture
    }

    fn apply(&mut self, author: Option<Thumbprint>, command: C) -> Applied {
        self.apply_under(RequestId::random(), author, command)
    }

    fn apply_under(&mut self, id: RequestId, author: Option<Thumbprint>, command: C) -> Applied {
        self.index += 1;
        let (index, cluster) = (self.index, &self.cluster);
        let command = Command {
            version: 1,
            request_id: id.as_bytes().to_vec(),
            author: author.map_or_else(Vec::new, |it| it.as_bytes().to_vec()),
            internal_reason: if author.is_none() { "test".into() } else { String::new() },
            at_unix_ms: NOW + i64::try_from(index).unwrap(),
            registry_revision: 0,
            origin_node_id: 1,
            command: Some(command::Command::Cluster(ClusterCommand { command: Some(command) })),
        };
        let applied =
            self.memory.batch(0, |overlay| cluster.apply(index, &command, overlay).unwrap());
        self.cluster.publish();
        applied
    }

    fn by_root(&mut self, command: C) -> Applied {
        self.apply(Some(self.root.thumbprint()), command)
    }

    fn by_node(&mut self, command: C) -> Applied {
        self.apply(Some(self.node.thumbprint()), command)
    }

    fn head(&self) -> AuditHead {
        audit_head(&self.memory, space(0)).unwrap().unwrap()
    }

    fn records(&self) -> Vec<AuditRecord> {
        let mut all = Vec::new();
        loop {
            let after =
                all.last().map_or(self.head().anchor_sequence, |it: &AuditRecord| it.sequence);
            let chunk = audit_chunk(&self.memory, space(0), after).unwrap();
            if chunk.records.is_empty() {
                return all;
            }
            all.extend(chunk.records);
        }
    }

    fn last(&self) -> AuditRecord {
        self.records().pop().unwrap()
    }

    fn walk(&self) -> AuditWalk {
        let registry = self.cluster.registry();
        let memory = Arc::new(self.memory.clone());
        AuditView::new(memory, space(0), registry, self.head()).walk()
    }

    fn checkpoint(&mut self) -> AuditCheckpoint {
        let head = self.head();
        let mut checkpoint = AuditCheckpoint {
            sequence: head.sequence,
            hash: head.hash,
            at_unix_ms: NOW,
            node_id: 1,
            thumbprint: self.node.thumbprint().as_bytes().to_vec(),
            ..AuditCheckpoint::default()
        };
        let signed = self.node.sign(&checkpoint::message(CLUSTER, &checkpoint)).unwrap();
        checkpoint.scheme = signed.scheme;
        checkpoint.signature = signed.signature;
        checkpoint
    }

    fn propose_checkpoint(&mut self, checkpoint: AuditCheckpoint) -> Applied {
        self.by_node(C::CheckpointAudit(CheckpointAudit { checkpoint: Some(checkpoint) }))
    }
}

fn refused(applied: &Applied) -> &str {
    match applied.outcome.as_ref().unwrap() {
        applied::Outcome::Refusal(refusal) => &refusal.reason,
        applied::Outcome::Cluster(_) | applied::Outcome::Database(_) => "",
    }
}

fn create(name: &str) -> C {
    C::CreateDatabase(CreateDatabase { name: name.into(), ..CreateDatabase::default() })
}

fn set(name: &str, enabled: bool) -> C {
    C::SetDatabaseState(SetDatabaseState { name: name.into(), enabled })
}

/// The differences of a record as lines `record | field: before -> after`.
fn changes(record: &AuditRecord) -> Vec<String> {
    let of = |change: &AuditChange| {
        let record = change.record.clone();
        let fields = change.fields.iter();
        fields
            .map(|it| format!("{record} | {}: {:?} -> {:?}", it.name, it.before, it.after))
            .collect::<Vec<_>>()
    };
    record.changes.iter().flat_map(of).collect()
}

#[test]
fn every_command_leaves_one_record_with_who_what_and_before_and_after() {
    let mut fixture = Fixture::formed();
    let root = fixture.root.thumbprint();
    let formed = fixture.last();
    assert_eq!((formed.sequence, formed.operation.as_str()), (1, "form-cluster"));
    assert_eq!(formed.target, format!("cluster {CLUSTER}"));
    assert!(changes(&formed).iter().any(|it| it.contains("clearance: \"\" -> \"Cluster Admin\"")));

    fixture.by_root(create("sales"));
    let created = fixture.last();
    assert_eq!(created.outcome(), AuditOutcome::Applied);
    assert_eq!(
        (created.operation.as_str(), created.target.as_str()),
        ("create-database", "database sales")
    );
    assert_eq!((created.actor_name.as_str(), created.node_id, created.index), ("root", 1, 2));
    assert_eq!(created.actor, root.as_bytes());
    assert_eq!(created.at_unix_ms, NOW + 2);
    assert!(changes(&created).contains(&"database 1 sales | enabled: \"\" -> \"true\"".to_owned()));

    fixture.by_root(set("sales", false));
    let disabled = changes(&fixture.last());
    assert_eq!(disabled, ["database 1 sales | enabled: \"true\" -> \"\""]);

    let alice = identity("alice");
    let put = PutCertificate {
        der: alice.certificate_der().to_vec(),
        name: "alice".into(),
        clearance: 1,
        grants: vec![GrantByName { database: "sales".into(), access: 2 }],
        ..PutCertificate::default()
    };
    fixture.by_root(C::PutCertificate(put));
    let edit = EditCertificate {
        thumbprint: alice.thumbprint().as_bytes().to_vec(),
        clearance: Some(2),
        ..EditCertificate::default()
    };
    fixture.by_root(C::EditCertificate(edit));
    let label = format!("certificate {} alice", alice.thumbprint());
    let edited = fixture.last();
    assert_eq!(edited.target, format!("certificate {}", alice.thumbprint()));
    assert_eq!(changes(&edited), [format!("{label} | clearance: \"User\" -> \"Operator\"")]);

    fixture.by_root(C::DeleteDatabase(DeleteDatabase { name: "sales".into() }));
    let deleted = changes(&fixture.last());
    let grant = format!("{label} | grants: \"{{database_id: 1; access: ReadWrite}}\" -> \"\"");
    assert!(deleted.contains(&grant), "{deleted:#?}");
    assert!(deleted.contains(&"database 1 sales | name: \"sales\" -> \"\"".to_owned()));
    assert_eq!(fixture.records().len(), 6);
    fixture.walk().outcome.unwrap();
}

#[test]
fn refusals_stand_in_the_log_once_with_their_rule() {
    let mut fixture = Fixture::formed();
    let stranger = identity("stranger").thumbprint();
    fixture.apply(Some(stranger), create("sales"));
    let denied = fixture.last();
    assert_eq!(denied.outcome(), AuditOutcome::Refused);
    assert_eq!((denied.reason.as_str(), denied.rule.as_str()), ("CERTIFICATE_UNKNOWN", "B1.16a"));
    assert_eq!(denied.target, "database sales");
    assert!(denied.changes.is_empty());

    let id = RequestId::random();
    let root = Some(fixture.root.thumbprint());
    fixture.apply_under(id, root, create("sales"));
    let before = fixture.records().len();
    fixture.apply_under(id, root, create("sales"));
    assert_eq!(fixture.records().len(), before, "a retry is no second action");
    fixture.apply_under(id, root, create("other"));
    assert_eq!(fixture.last().reason, "REQUEST_ID_REUSED");
    fixture.by_root(create("SALES"));
    assert_eq!((fixture.last().reason.as_str(), fixture.last().count), ("ALREADY_EXISTS", 1));
    fixture.walk().outcome.unwrap();
}

#[test]
fn no_secret_and_no_certificate_stands_in_a_record() {
    let mut fixture = Fixture::formed();
    let token = CreateJoinToken {
        id: "token-1".into(),
        secret_digest: vec![0x5e; 32],
        expires_unix_ms: NOW + 100_000,
    };
    fixture.by_root(C::CreateJoinToken(token));
    let made = fixture.last();
    assert_eq!(
        (made.operation.as_str(), made.target.as_str()),
        ("create-join-token", "join token token-1")
    );
    assert!(changes(&made).iter().any(|it| it.ends_with("secret_digest: \"\" -> \"(32 bytes)\"")));
    second_factor(&mut fixture);
    let der = fixture.root.certificate_der().to_vec();
    for record in fixture.records() {
        let bytes = record.encode_to_vec();
        assert!(!bytes.windows(16).any(|it| it == &der[40..56]), "a certificate's bytes");
        assert!(!bytes.windows(16).any(|it| it == [0x5e; 16]), "a digest's bytes");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains(&hex::encode([0x5e; 16])));
    }
}

/// The way of a second factor from its secret to a session, in records without either.
fn second_factor(fixture: &mut Fixture) {
    let thumbprint = fixture.root.thumbprint().as_bytes().to_vec();
    let sealed = || vec![SealedFor { node_id: 1, sealed: vec![0x5e; 81] }];
    let put = PutClusterSecret { replaces: 0, sealed: sealed() };
    assert_eq!(refused(&fixture.by_node(C::PutClusterSecret(put))), "");
    assert_eq!(fixture.last().operation, "put-cluster-secret");
    let key_id = fixture.index;
    let (count, sealed) = (fixture.records().len(), sealed());
    fixture.by_node(C::SealClusterSecret(SealClusterSecret { key_id, sealed }));
    assert_eq!(fixture.records().len(), count, "sealed once more is nothing new");
    let sealed = vec![0x5e; 100];
    let enrol = EnrolSecondFactor { thumbprint: thumbprint.clone(), key_id, sealed };
    assert_eq!(refused(&fixture.by_root(C::EnrolSecondFactor(enrol))), "");
    let open = OpenSession {
        thumbprint: thumbprint.clone(),
        enrolled_revision: fixture.index,
        confirms: true,
        proof: Some(open_session::Proof::Step(u64::try_from(NOW / 30_000).unwrap())),
        duration_ms: 60_000,
        token_digest: vec![0x5e; 32],
    };
    assert_eq!(refused(&fixture.by_node(C::OpenSession(open))), "");
    let opened = fixture.last();
    let target = format!("certificate {}", fixture.root.thumbprint());
    assert_eq!((opened.operation.as_str(), opened.target), ("open-session", target));
    assert!(opened.changes.iter().any(|it| it.record.starts_with("second factor ")));
    fixture.by_node(C::NoteWrongCode(NoteWrongCode { thumbprint }));
    assert_eq!(fixture.last().operation, "note-wrong-code");
    fixture.walk().outcome.unwrap();
}

#[test]
fn denials_and_actions_of_nodes_are_recorded_as_what_they_are() {
    let mut fixture = Fixture::formed();
    let root = fixture.root.thumbprint();
    let denial = Denial {
        operation: "create-database".into(),
        reason: "CLEARANCE_TOO_LOW".into(),
        actor: root.as_bytes().to_vec(),
        database: "\u{1b}[31m<b>\n".into(),
        count: 17,
        ..Denial::default()
    };
    let command = C::RecordDenials(RecordDenials { denials: vec![denial.clone(), denial] });
    assert_eq!(refused(&fixture.by_root(command.clone())), "NOT_A_MEMBER");
    assert_eq!(fixture.last().operation, "record-denials");
    let before = fixture.records().len();
    assert_eq!(refused(&fixture.by_node(command)), "");
    assert_eq!(fixture.records().len(), before + 2);
    let denied = fixture.last();
    assert_eq!(denied.outcome(), AuditOutcome::Denied);
    assert_eq!((denied.actor_name.as_str(), denied.count, denied.node_id), ("root", 17, 1));
    assert_eq!(denied.database, "\\u{1b}[31m\\u{3c}b\\u{3e}\\u{a}");

    let action = RecordAction {
        operation: "promote-node".into(),
        target: "node 1".into(),
        ..RecordAction::default()
    };
    assert_eq!(refused(&fixture.by_root(C::RecordAction(action.clone()))), "");
    let started = fixture.last();
    assert_eq!(started.outcome(), AuditOutcome::Started);
    assert_eq!((started.operation.as_str(), started.target.as_str()), ("promote-node", "node 1"));
    // The owner of a node's files is spoken for by the node alone.
    let local = RecordAction { on_behalf_of: "uid 0".into(), ..action };
    assert_eq!(refused(&fixture.by_root(C::RecordAction(local.clone()))), "NOT_A_MEMBER");
    assert_eq!(refused(&fixture.by_node(C::RecordAction(local))), "");
    assert_eq!(fixture.last().actor_name, "n1");
    assert_eq!(fixture.last().asked[0].value, "uid 0");
    fixture.walk().outcome.unwrap();
}

#[test]
fn a_checkpoint_must_be_true_new_and_signed_by_its_proposer() {
    let mut fixture = Fixture::formed();
    fixture.by_root(create("sales"));
    let good = fixture.checkpoint();
    let check = |fixture: &mut Fixture, change: fn(&mut AuditCheckpoint), reason: &str| {
        let mut changed = good.clone();
        change(&mut changed);
        assert_eq!(refused(&fixture.propose_checkpoint(changed)), reason);
    };
    check(&mut fixture, |it| it.hash[0] ^= 1, "AUDIT_CHAIN_DIFFERS");
    check(&mut fixture, |it| it.signature[8] ^= 1, "AUDIT_SIGNATURE_REFUSED");
    check(&mut fixture, |it| it.node_id = 2, "AUDIT_SIGNATURE_REFUSED");
    check(&mut fixture, |it| it.at_unix_ms += 1, "AUDIT_SIGNATURE_REFUSED");
    check(&mut fixture, |it| it.scheme = 0x0401, "AUDIT_SIGNATURE_REFUSED");
    let records = fixture.records().len();
    assert_eq!(records, 2 + 5, "what is no accident is recorded");
    check(&mut fixture, |it| it.sequence = 999, STALE_CHECKPOINT);
    assert_eq!(refused(&fixture.propose_checkpoint(good.clone())), "");
    assert_eq!(refused(&fixture.propose_checkpoint(good.clone())), STALE_CHECKPOINT);
    assert_eq!(fixture.records().len(), records, "a checkpoint is no record");
    let walked = fixture.walk().outcome.unwrap();
    assert_eq!((walked.checkpoints, walked.sealed, walked.unchecked), (1, 2, 0));
    let by_root = C::CheckpointAudit(CheckpointAudit { checkpoint: Some(good) });
    assert_eq!(refused(&fixture.by_root(by_root)), "NOT_A_MEMBER");
}

#[test]
fn what_is_pruned_ends_at_a_checkpoint_and_the_rest_still_verifies() {
    let mut fixture = Fixture::formed();
    fixture.cluster.retention = Retention { records_max: 50, bytes_max: u64::MAX };
    fixture.by_root(create("sales"));
    for round in 0..400 {
        fixture.by_root(set("sales", round % 2 == 0));
        if round % 20 == 19 {
            let checkpoint = fixture.checkpoint();
            assert_eq!(refused(&fixture.propose_checkpoint(checkpoint)), "");
        }
        assert!(fixture.records().len() <= 50 + 22);
    }
    let head = fixture.head();
    assert!(head.anchor_sequence > 300, "{head:?}");
    let stored: usize = fixture.records().iter().map(prost::Message::encoded_len).sum();
    assert_eq!(head.bytes, stored as u64);
    let walk = fixture.walk();
    let walked = walk.outcome.unwrap();
    assert_eq!((walk.first, walk.last), (head.anchor_sequence + 1, 402));
    assert_eq!(walked.records, walk.last - head.anchor_sequence);
    assert_eq!(fixture.memory.hash, fixture.memory.rehash());
    let again = Cluster::load(&fixture.memory, space(0)).unwrap();
    assert_eq!(again.audit_sequence(), 402);
}

#[test]
fn bytes_are_bounded_like_records() {
    let mut fixture = Fixture::formed();
    fixture.cluster.retention = Retention { records_max: u64::MAX, bytes_max: 8_000 };
    fixture.by_root(create("sales"));
    for round in 0..100 {
        fixture.by_root(set("sales", round % 2 == 0));
        let checkpoint = fixture.checkpoint();
        fixture.propose_checkpoint(checkpoint);
    }
    assert!(fixture.head().bytes < 9_000, "{:?}", fixture.head());
    fixture.walk().outcome.unwrap();
}

/// A day's worth of mixed records, written through apply; then every way to tamper with the store that needs no key.
#[test]
fn a_day_of_records_verifies_and_a_tampered_store_does_not() {
    const RECORDS: u64 = 20_000;
    let mut fixture = Fixture::formed();
    fixture.by_root(create("sales"));
    let began = Instant::now();
    let stranger = identity("stranger").thumbprint();
    let denials: Vec<Denial> = (0..32)
        .map(|number| Denial {
            operation: "view-node".into(),
            reason: "CERTIFICATE_UNKNOWN".into(),
            actor: stranger.as_bytes().to_vec(),
            remote: format!("10.0.0.{number}"),
            count: 3,
            ..Denial::default()
        })
        .collect();
    let mut sealed = 0;
    while fixture.head().sequence < RECORDS {
        let round = fixture.index;
        match round % 8 {
            0 => {
                drop(fixture.by_node(C::RecordDenials(RecordDenials { denials: denials.clone() })))
            }
            1 => drop(fixture.apply(Some(stranger), create("other"))),
            _ => drop(fixture.by_root(set("sales", round.is_multiple_of(2)))),
        }
        if fixture.head().sequence - sealed >= 1_000 {
            let checkpoint = fixture.checkpoint();
            assert_eq!(refused(&fixture.propose_checkpoint(checkpoint)), "");
            sealed = fixture.head().sequence;
        }
    }
    let written = began.elapsed();
    let began = Instant::now();
    let walked = fixture.walk().outcome.unwrap();
    let took = began.elapsed();
    assert!(walked.records >= RECORDS && walked.checkpoints >= 15, "{walked:?}");
    assert!(took.as_secs() < 60, "verification took {took:?}");
    eprintln!(
        "{} records in {} entries written in {written:?}, verified in {took:?} ({:.0} records/s), {} bytes each",
        walked.records,
        fixture.index,
        walked.records as f64 / took.as_secs_f64(),
        fixture.head().bytes / walked.records
    );
    tamper(&fixture);
}

fn tamper(fixture: &Fixture) {
    let check = |what: &str, bad: u64, change: &dyn Fn(&mut Memory)| {
        let mut tampered = Fixture {
            cluster: Cluster::load(&fixture.memory, space(0)).unwrap(),
            memory: fixture.memory.clone(),
            index: fixture.index,
            node: fixture.node.clone(),
            root: fixture.root.clone(),
        };
        change(&mut tampered.memory);
        let wrong: Wrong = tampered.walk().outcome.expect_err(what);
        assert_eq!(wrong.sequence, bad, "{what}: {wrong}");
    };
    let key = |sequence: u64| [&[0x1c], sequence.to_be_bytes().as_slice()].concat();
    let read = |memory: &Memory, sequence: u64| {
        AuditRecord::decode(memory.records[&key(sequence)].as_slice()).unwrap()
    };
    let edit = |memory: &mut Memory, sequence: u64, change: &dyn Fn(&mut AuditRecord)| {
        let mut record = read(memory, sequence);
        change(&mut record);
        memory.records.insert(key(sequence), record.encode_to_vec());
    };
    let last = fixture.head().sequence;
    check("an edited record", 777, &|it| edit(it, 777, &|record| record.actor_name = "eve".into()));
    check("an edited record with its hash made to fit", 778, &|it| {
        edit(it, 777, &|record| {
            record.actor_name = "eve".into();
            let previous = Hash::try_from(record.previous.as_slice()).unwrap();
            record.hash = record::hash(&previous, record).to_vec();
        });
    });
    check("a removed record", 777, &|it| drop(it.records.remove(&key(777))));
    check("the first record removed", 1, &|it| drop(it.records.remove(&key(1))));
    check("the last record removed", last, &|it| drop(it.records.remove(&key(last))));
    check("records cut off", last - 9, &|it| {
        for sequence in last - 9..=last {
            it.records.remove(&key(sequence));
        }
    });
    check("two records swapped", 777, &|it| {
        let (a, b) = (read(it, 777), read(it, 778));
        edit(it, 777, &|record| *record = AuditRecord { sequence: 777, ..b.clone() });
        edit(it, 778, &|record| *record = AuditRecord { sequence: 778, ..a.clone() });
    });
    check("a record under another key", 501, &|it| {
        let copy = it.records[&key(776)].clone();
        it.records.insert(key(777), copy);
    });
    check("a record that is none", 501, &|it| drop(it.records.insert(key(777), vec![0xff; 9])));
    check("a checkpoint for something else", 1_000.max(first_checkpoint(fixture)), &|it| {
        let key = [&[0x1d], first_checkpoint(fixture).to_be_bytes().as_slice()].concat();
        let mut checkpoint = AuditCheckpoint::decode(it.records[&key].as_slice()).unwrap();
        checkpoint.hash[0] ^= 1;
        it.records.insert(key, checkpoint.encode_to_vec());
    });
    check("a chain made anew behind a record", first_checkpoint(fixture), &|it| {
        let mut previous = Hash::try_from(read(it, 776).hash.as_slice()).unwrap();
        for sequence in 777..=last {
            edit(it, sequence, &|record| {
                record.details = "made anew".into();
                record.previous = previous.to_vec();
                record.hash = record::hash(&previous, record).to_vec();
            });
            previous = Hash::try_from(read(it, sequence).hash.as_slice()).unwrap();
        }
    });
}

fn first_checkpoint(fixture: &Fixture) -> u64 {
    let chunk = audit_chunk(&fixture.memory, space(0), 900).unwrap();
    let next = chunk.checkpoints.first().map(|it| it.sequence);
    next.unwrap_or_else(|| {
        let chunk = audit_chunk(&fixture.memory, space(0), 1_400).unwrap();
        chunk.checkpoints[0].sequence
    })
}

#[test]
fn replicas_write_the_same_chain() {
    let mut one = Fixture::formed();
    let mut other = Fixture {
        cluster: Cluster::unformed(),
        memory: Memory::default(),
        index: 0,
        node: one.node.clone(),
        root: one.root.clone(),
    };
    // Different request ids are the only thing that differs, so the chain must, and nothing else.
    other.memory = one.memory.clone();
    other.cluster = Cluster::load(&other.memory, space(0)).unwrap();
    other.index = one.index;
    let id = RequestId::random();
    let root = Some(one.root.thumbprint());
    one.apply_under(id, root, create("sales"));
    other.apply_under(id, root, create("sales"));
    assert_eq!(one.memory, other.memory);
    assert_eq!(Timestamp(one.last().at_unix_ms), Timestamp(NOW + 2));
}
