//! Golden bytes of the chain, and what a verification finds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeMap, io::Cursor};

use rookery_proto::log::v1::{
    AuditChange, AuditCheckpoint, AuditDifference, AuditField, AuditOutcome, AuditRecord,
};

use super::{
    Hash,
    chain::Wrong,
    checkpoint::{self, Ending},
    lines::{self, Verify},
    record,
    text::escaped,
};
use crate::{
    limits,
    names::Thumbprint,
    tls::{TlsIdentity, testing::identity},
};

const CLUSTER: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";

fn full() -> AuditRecord {
    AuditRecord {
        sequence: 1,
        previous: vec![0; 32],
        hash: vec![0; 32],
        outcome: AuditOutcome::Applied.into(),
        at_unix_ms: 1_750_000_000_000,
        index: 7,
        node_id: 2,
        operation: "edit-certificate".into(),
        target: "certificate ab".into(),
        actor: vec![0xab; 32],
        actor_name: "root".into(),
        request_id: vec![3; 16],
        reason: "R".into(),
        rule: "B1.9c".into(),
        database: "sales".into(),
        remote: "10.0.0.1".into(),
        count: 1,
        first_unix_ms: -1,
        last_unix_ms: 5,
        asked: vec![AuditField { name: "name".into(), value: "x".into() }],
        changes: vec![AuditChange {
            record: "certificate ab".into(),
            fields: vec![AuditDifference {
                name: "name".into(),
                before: "y".into(),
                after: "x".into(),
            }],
        }],
        changes_left_out: 4,
        details: "d".into(),
    }
}

#[test]
fn canonical_bytes_and_hashes_never_change() {
    let genesis = record::genesis(CLUSTER);
    assert_eq!(
        hex::encode(genesis),
        "426b03c9edd12593713a7f57a4996f92fee1fec6c3d131c2e0f4e2cc890e3180"
    );
    assert_eq!(
        hex::encode(record::canonical(&full())),
        "00000000000000010000000000000001000001977420dc000000000000000007000000000000000200000010\
         656469742d63657274696669636174650000000e636572746966696361746520616200000020abababababab\
         abababababababababababababababababababababababababab00000004726f6f7400000010030303030303\
         0303030303030303030300000001520000000542312e39630000000573616c65730000000831302e302e302e\
         310000000000000001ffffffffffffffff000000000000000500000001000000046e616d6500000001780000\
         00010000000e636572746966696361746520616200000001000000046e616d65000000017900000001780000\
         0000000000040000000164"
    );
    assert_eq!(
        hex::encode(record::hash(&genesis, &full())),
        "85842a5b3d170f972ada3c89878f6157bc08b5e3b9291fa98a09f26a4042a615"
    );
    let checkpoint = AuditCheckpoint {
        sequence: 9,
        hash: vec![1; 32],
        at_unix_ms: 2,
        node_id: 3,
        thumbprint: vec![4; 32],
        ..AuditCheckpoint::default()
    };
    assert_eq!(
        hex::encode(checkpoint::message(CLUSTER, &checkpoint)),
        "726f6f6b65727920617564697420636865636b706f696e7420310a0000002430663065306430632d30623061\
         2d343930382d383730362d303530343033303230313030000000000000000900000020010101010101010101\
         0101010101010101010101010101010101010101010101000000000000000200000000000000030000002004\
         04040404040404040404040404040404040404040404040404040404040404"
    );
}

#[test]
fn every_field_of_a_record_is_under_its_hash() {
    let hash = record::hash(&[0; 32], &full());
    let check = |change: fn(&mut AuditRecord)| {
        let mut changed = full();
        change(&mut changed);
        assert_ne!(record::hash(&[0; 32], &changed), hash, "{changed:?}");
    };
    check(|it| it.sequence += 1);
    check(|it| it.outcome += 1);
    check(|it| it.at_unix_ms += 1);
    check(|it| it.index += 1);
    check(|it| it.node_id += 1);
    check(|it| it.operation.push('x'));
    check(|it| it.target.push('x'));
    check(|it| it.actor[0] ^= 1);
    check(|it| it.actor_name.push('x'));
    check(|it| it.request_id[0] ^= 1);
    check(|it| it.reason.push('x'));
    check(|it| it.rule.push('x'));
    check(|it| it.database.push('x'));
    check(|it| it.remote.push('x'));
    check(|it| it.count += 1);
    check(|it| it.first_unix_ms += 1);
    check(|it| it.last_unix_ms += 1);
    check(|it| it.asked[0].name.push('x'));
    check(|it| it.asked[0].value.push('x'));
    check(|it| it.asked.clear());
    check(|it| it.changes[0].record.push('x'));
    check(|it| it.changes[0].fields[0].name.push('x'));
    check(|it| it.changes[0].fields[0].before.push('x'));
    check(|it| it.changes[0].fields[0].after.push('x'));
    check(|it| it.changes.clear());
    check(|it| it.changes_left_out += 1);
    check(|it| it.details.push('x'));
    // A character that moves from one field to the next.
    check(|it| {
        it.reason.clear();
        it.rule.insert(0, 'R');
    });
}

#[test]
fn text_of_strangers_is_escaped_and_cut() {
    let check = |given: &str, expected: &str| assert_eq!(escaped(given), expected);
    check("sales", "sales");
    check("O'Brien & Söhne", "O'Brien \\u{26} Söhne");
    check("a\nb\r\tc", "a\\u{a}b\\u{d}\\u{9}c");
    check("\u{1b}[31mred", "\\u{1b}[31mred");
    check("<script>", "\\u{3c}script\\u{3e}");
    check("a\\nb", "a\\u{5c}nb");
    check("\u{202e}gpj.exe", "\\u{202e}gpj.exe");
    check("\u{200b}\u{feff}\u{2028}\u{85}", "\\u{200b}\\u{feff}\\u{2028}\\u{85}");
    check("\u{e0041}", "\\u{e0041}");
    let (long, other) = ("x".repeat(10_000), format!("{}y", "x".repeat(10_000)));
    let cut = escaped(&long);
    assert!(cut.chars().count() <= limits::AUDIT_TEXT_CHARS_MAX + 40, "{cut}");
    assert_ne!(cut, escaped(&other));
}

/// A chain of `count` records with a checkpoint at every tenth, as the lines of an export.
fn export(count: u64, signer: &TlsIdentity) -> Vec<String> {
    let mut hash = record::genesis(CLUSTER);
    let mut bytes = Vec::new();
    let mut checkpoints = 0;
    lines::begin(CLUSTER, 0, hash, &mut bytes);
    for sequence in 1..=count {
        let mut next = AuditRecord { sequence, previous: hash.to_vec(), ..full() };
        hash = record::hash(&hash, &next);
        next.hash = hash.to_vec();
        lines::record(&next, &mut bytes);
        if sequence.is_multiple_of(10) {
            checkpoints += 1;
            lines::checkpoint(&signed(sequence, &hash, signer), &mut bytes);
        }
    }
    let ending = Ending {
        cluster_id: CLUSTER.into(),
        anchor_sequence: 0,
        records: count,
        checkpoints,
        sequence: count,
        hash,
        at_unix_ms: 5,
        node_id: 1,
        thumbprint: signer.thumbprint(),
    };
    lines::end(&ending, signer.sign(&ending.message()).unwrap(), &mut bytes);
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

fn signed(sequence: u64, hash: &Hash, signer: &TlsIdentity) -> AuditCheckpoint {
    let mut checkpoint = AuditCheckpoint {
        sequence,
        hash: hash.to_vec(),
        node_id: 1,
        thumbprint: signer.thumbprint().as_bytes().to_vec(),
        ..AuditCheckpoint::default()
    };
    let made = signer.sign(&checkpoint::message(CLUSTER, &checkpoint)).unwrap();
    checkpoint.scheme = made.scheme;
    checkpoint.signature = made.signature;
    checkpoint
}

fn certificates(of: &[&TlsIdentity]) -> BTreeMap<Thumbprint, Vec<u8>> {
    of.iter().map(|it| (it.thumbprint(), it.certificate_der().to_vec())).collect()
}

fn verified(lines: &[String], of: &[&TlsIdentity]) -> Result<lines::Verified, Wrong> {
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    lines::verify(Cursor::new(text), &certificates(of)).map_err(|error| match error {
        Verify::Wrong(wrong) => wrong,
        Verify::Read(error) => panic!("{error}"),
    })
}

#[test]
fn an_export_passes_and_says_what_was_checked() {
    let node = identity("n1");
    let lines = export(25, &node);
    let with = verified(&lines, &[&node]).unwrap();
    assert_eq!((with.sequence, with.walked.records, with.walked.checkpoints), (25, 25, 2));
    assert_eq!((with.walked.sealed, with.walked.unchecked, with.ending_checked), (20, 0, true));
    let without = verified(&lines, &[]).unwrap();
    assert_eq!((without.walked.sealed, without.walked.unchecked), (0, 2));
    assert!(!without.ending_checked);
}

#[test]
fn an_export_that_was_tampered_with_fails_at_the_first_bad_record() {
    let node = identity("n1");
    let lines = export(25, &node);
    let at = |sequence: u64| {
        let of =
            |line: &String| line.starts_with(&format!("{{\"record\":{{\"sequence\":{sequence},"));
        lines.iter().position(of).unwrap()
    };
    let check = |what: &str, bad: u64, tampered: Vec<String>| {
        for certificates in [&[&node][..], &[]] {
            let wrong = verified(&tampered, certificates).expect_err(what);
            assert_eq!(wrong.sequence, bad, "{what}: {wrong}");
        }
    };
    let change = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        lines
    };
    let edited = |from: &'static str, to: &'static str, sequence: u64| {
        change(&|lines| {
            let line = &mut lines[at(sequence)];
            assert!(line.contains(from), "{line}");
            *line = line.replacen(from, to, 1);
        })
    };
    check("an edited name", 12, edited("\"root\"", "\"rose\"", 12));
    check("an edited outcome", 12, edited("applied", "refused", 12));
    check("an unknown outcome", 12, edited("applied", "loved", 12));
    check("an emptied field", 12, edited("\"reason\":\"R\",", "", 12));
    check("an edited change", 12, edited("\"before\":\"y\"", "\"before\":\"z\"", 12));
    check("a removed record", 12, change(&|lines| drop(lines.remove(at(12)))));
    check("two records swapped", 12, change(&|lines| lines.swap(at(12), at(13))));
    check("a record twice", 12, change(&|lines| lines.insert(at(12), lines[at(12)].clone())));
    check("cut off", 13, change(&|lines| lines.truncate(at(12) + 1)));
    check("cut off before the end line", 26, change(&|lines| drop(lines.pop())));
    check("the last record removed", 25, change(&|lines| drop(lines.remove(at(25)))));
    check("the first record removed", 1, change(&|lines| drop(lines.remove(at(1)))));
    check("records after the end", 0, change(&|lines| lines.push(lines[at(25)].clone())));
    check("an unknown field", 0, edited("\"count\":1", "\"count\":1,\"note\":\"x\"", 12));
    check("a field twice", 0, edited("\"count\":1", "\"count\":1,\"count\":1", 12));
    check("a checkpoint removed", 0, change(&|lines| drop(lines.remove(at(10) + 1))));
    check("a checkpoint moved", 10, change(&|lines| lines.swap(at(11), at(10) + 1)));
    check("no line at all", 0, Vec::new());
    check("no JSON", 0, change(&|lines| "{".clone_into(&mut lines[at(3)])));
}

/// Whoever can compute hashes can make a chain that hangs together; the signatures are what they cannot make.
#[test]
fn a_chain_that_was_made_anew_fails_by_its_signatures() {
    let (node, other) = (identity("n1"), identity("n2"));
    let forged = export(25, &other);
    assert!(verified(&forged, &[&other]).is_ok());
    let mut claimed = export(25, &other);
    for line in &mut claimed {
        let (of, node) = (other.thumbprint().to_string(), node.thumbprint().to_string());
        *line = line.replace(&of, &node);
    }
    let wrong = verified(&claimed, &[&node]).unwrap_err();
    assert_eq!(wrong.sequence, 10, "{wrong}");
    // Cut back to before the first checkpoint, with an end of the forger's making.
    let honest = export(25, &node);
    let mut cut = honest[..9].to_vec();
    let mut ending = export(8, &other).pop().unwrap();
    ending = ending.replace(&other.thumbprint().to_string(), &node.thumbprint().to_string());
    cut.push(ending);
    let wrong = verified(&cut, &[&node]).unwrap_err();
    assert!(wrong.why.contains("not signed"), "{wrong}");
}

#[test]
fn a_chain_of_another_cluster_or_without_a_vouched_beginning_fails() {
    let node = identity("n1");
    let mut lines = export(25, &node);
    lines[0] = lines[0].replace("0f0e0d0c", "1f0e0d0c");
    assert_eq!(verified(&lines, &[&node]).unwrap_err().sequence, 0);
    // The first twelve records removed, and a beginning behind them that nobody has signed.
    let honest = export(25, &node);
    let text = |line: &str, field: &str| {
        line.split(&format!("\"{field}\":\"")).nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let twelfth = honest.iter().position(|it| it.contains("\"sequence\":12,")).unwrap();
    let mut begin = Vec::new();
    let hash: Hash = hex::decode(text(&honest[twelfth], "hash")).unwrap().try_into().unwrap();
    super::lines::begin(CLUSTER, 12, hash, &mut begin);
    let mut lines = vec![String::from_utf8(begin).unwrap().trim_end().to_owned()];
    lines.extend_from_slice(&honest[twelfth + 1..]);
    let wrong = verified(&lines, &[&node]).unwrap_err();
    assert!(wrong.why.contains("no checkpoint vouches"), "{wrong}");
}
