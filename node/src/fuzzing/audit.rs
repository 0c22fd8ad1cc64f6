//! An export of the audit log, as whoever verifies it gets it.

use std::collections::BTreeMap;

use super::{cluster::audit_log, input::mutate};
use crate::{
    audit::{checkpoint::Ending, lines, record},
    names::Thumbprint,
    tls::Signed,
};

/// An export that is verified counts what it holds, and no change of a record passes: the input is a whole export, and a
/// script that changes one.
pub(super) fn export(bytes: &[u8]) -> bool {
    let valid = valid();
    let expected = lines::verify(valid.as_slice(), &BTreeMap::new()).expect("a valid export");
    for text in [bytes.to_vec(), mutate(&valid, bytes)] {
        match lines::verify(text.as_slice(), &BTreeMap::new()) {
            Ok(found) => {
                assert_eq!(found.sequence, found.anchor_sequence + found.walked.records);
                assert!(!found.ending_checked, "a signature of nobody was checked");
                if found.cluster_id == expected.cluster_id && found.anchor_sequence == 0 {
                    let known = (expected.sequence, expected.hash);
                    assert_eq!((found.sequence, found.hash), known, "a changed record passed");
                }
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.len() < 4_096 + 2 * text.len(), "{error}");
            }
        }
    }
    mutate(&valid, bytes) != valid
}

fn valid() -> Vec<u8> {
    let (cluster_id, records) = audit_log();
    let last = records.last().expect("a formed cluster has records");
    let mut export = Vec::new();
    lines::begin(&cluster_id, 0, record::genesis(&cluster_id), &mut export);
    for record in &records {
        lines::record(record, &mut export);
    }
    let ending = Ending {
        cluster_id,
        anchor_sequence: 0,
        records: records.len() as u64,
        checkpoints: 0,
        sequence: last.sequence,
        hash: last.hash.as_slice().try_into().expect("a hash"),
        at_unix_ms: 0,
        node_id: 1,
        thumbprint: Thumbprint::of(b"nobody"),
    };
    lines::end(&ending, Signed { scheme: 0, signature: Vec::new() }, &mut export);
    export
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    super::sealed::script_seeds().into_iter().chain([valid()]).collect()
}
