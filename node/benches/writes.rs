//! What an entry of a database costs to append, apply and write, and how much of that is the counting of documents: a
//! document is stored again and again, with the same length (no count changes) or with another one (two records more).

#![allow(missing_docs)] // criterion's macros write functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use prost::Message as _;
use rookery::{
    crypto::{Keyring, MasterKey},
    database,
    names::GroupId,
    storage::{Batch, Durability, Overlay, Rocks, Space, StateHash, Store as _, Table},
};
use rookery_proto::log::v1::{
    Command, DatabaseCommand, DocumentWrite, PutDocument, command, document_write,
};

const GROUP: GroupId = GroupId(7);
/// Different documents.
const DOCUMENTS: u64 = 1_000;
/// Bytes of a document's text, more or less.
const BYTES: usize = 256;

/// A database of one node, without Raft: its log, its state, and the store under both.
struct Database {
    store: Arc<Rocks>,
    hash: StateHash,
    index: u64,
    _folder: tempfile::TempDir,
}

impl Database {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let keyring = Keyring::open(&data, &MasterKey::random().unwrap()).unwrap();
        let store = Rocks::open(&data, keyring).unwrap();
        store.create_key(GROUP).unwrap();
        Self { store, hash: StateHash::default(), index: 0, _folder: folder }
    }

    /// One write of one document, with this many bytes more than usual.
    fn command(&self, more: usize) -> Command {
        let json = format!("{{\"text\":\"{}\"}}", "x".repeat(BYTES + more));
        let put = PutDocument { collection: "Orders".into(), json: json.into_bytes() };
        let write = DocumentWrite {
            id: format!("orders/{}", self.index % DOCUMENTS),
            condition: None,
            operation: Some(document_write::Operation::Put(put)),
        };
        Command {
            version: 1,
            request_id: [[0; 8], self.index.to_be_bytes()].concat(),
            author: vec![1; 32],
            at_unix_ms: 1_800_000_000_000,
            command: Some(command::Command::Database(DatabaseCommand { writes: vec![write] })),
            ..Command::default()
        }
    }

    /// Appends, syncs and applies `entries` entries at once, as the log and the state machine do.
    fn write(&mut self, entries: u64, more: impl Fn(u64) -> usize, durability: Durability) {
        let log = Space { table: Table::Raft, group: GROUP, generation: 0 };
        let state = Space { table: Table::State, group: GROUP, generation: 1 };
        let mut appended = Batch::default();
        let mut commands = Vec::new();
        for _ in 0..entries {
            self.index += 1;
            let command = self.command(more(self.index / DOCUMENTS));
            appended.put(log, self.index.to_be_bytes(), command.encode_to_vec());
            commands.push((self.index, command));
        }
        self.store.write(appended, durability).unwrap();
        let mut overlay = Overlay::new(&*self.store, state, self.hash);
        for (index, command) in &commands {
            black_box(database::apply(*index, command, &mut overlay).unwrap());
        }
        self.hash = overlay.hash();
        self.store.write(overlay.into_batch(), Durability::Buffered).unwrap();
    }
}

/// Time that this thread was on a processor: what other programs take does not count.
fn on_processor() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

fn writes(c: &mut Criterion) {
    let mut group = c.benchmark_group("writes, time on a processor");
    // A turn is 64 entries, in one batch or in as many: long enough for a clock that ticks a few hundred times a second.
    for (entries, batches) in [(1, 64), (64, 1)] {
        let mut databases = [Database::open(), Database::open()];
        // Each document has another length each time it comes round, or always the same one.
        let mores: [fn(u64) -> usize; 2] = [|_| 0, |round| usize::try_from(round % 7).unwrap()];
        for (database, more) in databases.iter_mut().zip(mores) {
            for _ in 0..DOCUMENTS.div_ceil(64) {
                database.write(64, more, Durability::Buffered);
            }
        }
        for (counted, mode) in [(0, "same length"), (1, "other length")] {
            group.bench_function(format!("64 entries, {entries} a batch, {mode}"), |b| {
                b.iter_custom(|times| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..times {
                        // Both take their turn, so that what slows one down slows the other down too.
                        for (which, more) in mores.into_iter().enumerate() {
                            let before = on_processor();
                            for _ in 0..batches {
                                databases[which].write(entries, more, Durability::Buffered);
                            }
                            if which == counted {
                                spent += on_processor().saturating_sub(before);
                            }
                        }
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, writes);
criterion_main!(benches);
