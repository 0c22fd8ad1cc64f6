//! What it costs to seal and to open a record, to make a file's keystream, and to write through all of it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, io::Write as _};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rookery::{
    crypto::{
        BackupKey, BackupReader, BackupWriter, Expected, FILE_HEADER_BYTES, FileCipher, Keyring,
        MasterKey, Place, Purpose, SecretKey,
    },
    limits,
    names::{DatabaseId, GroupId},
    storage::{Batch, Durability, Rocks, Sentinel, Space, Store, Table},
};
use rookery_proto::log::v1::{LogId, SentinelGroup, Vote};

const SIZES: [usize; 2] = [256, 4_096];

fn records(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let master = MasterKey::random().unwrap();
    let keyring = Keyring::open(&folder.path().join("data"), &master).unwrap();
    let place = Place {
        purpose: Purpose::Record,
        group: GroupId::CLUSTER,
        table: 1,
        key: b"a key of a usual length, 40 bytes or so.",
    };
    for size in SIZES {
        let content = vec![7; size];
        let sealed = keyring.keys().seal(&place, &content).unwrap();
        let mut group = criterion.benchmark_group("record");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("seal {size}"), |bencher| {
            bencher.iter(|| keyring.keys().seal(&place, black_box(&content)).unwrap());
        });
        group.bench_function(format!("open {size}"), |bencher| {
            bencher.iter(|| keyring.keys().open(&place, black_box(&sealed)).unwrap());
        });
    }
    let cipher = FileCipher::new(keyring);
    let mut header = [0; FILE_HEADER_BYTES];
    cipher.new_header(&mut header).unwrap();
    let stream = cipher.open(&header).unwrap();
    for size in SIZES {
        let mut data = vec![7; size];
        let mut group = criterion.benchmark_group("file");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("keystream {size}"), |bencher| {
            bencher.iter(|| stream.apply(black_box(12_345), &mut data).unwrap());
        });
    }
}

fn puts(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let keyring = Keyring::open(&data, &MasterKey::random().unwrap()).unwrap();
    let rocks = Rocks::open(&data, keyring).unwrap();
    let space = Space { table: Table::State, group: GroupId::CLUSTER, generation: 0 };
    let plain = rocksdb::DB::open_default(folder.path().join("plain")).unwrap();
    let mut group = criterion.benchmark_group("put 256");
    let value = [7; 256];
    for (name, durability) in [("buffered", Durability::Buffered), ("synced", Durability::Synced)] {
        let mut number = 0_u64;
        group.bench_function(format!("{name}, sealed and encrypted"), |bencher| {
            bencher.iter(|| {
                number += 1;
                let mut batch = Batch::default();
                batch.put(space, number.to_be_bytes(), value);
                rocks.write(batch, durability).unwrap();
            });
        });
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        group.bench_function(format!("{name}, plain engine"), |bencher| {
            bencher.iter(|| {
                number += 1;
                plain.put_opt(number.to_be_bytes(), value, &options).unwrap();
            });
        });
    }
}

fn sentinels(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let keyring = Keyring::open(&data, &MasterKey::random().unwrap()).unwrap();
    let rocks = Rocks::open(&data, keyring.clone()).unwrap();
    let (sentinel, _) = Sentinel::open(&data, &keyring).unwrap();
    let at = |group, index| SentinelGroup {
        group,
        last_log_id: Some(LogId { term: 1, node_id: 1, index }),
        vote: Some(Vote { term: 1, node_id: 1, committed: true }),
    };
    let mut group = criterion.benchmark_group("sentinel");
    let mut index = 0;
    for groups in [1, 100, 1_000] {
        sentinel.record((0..groups).map(|group| at(group, 0))).unwrap();
        group.bench_function(format!("record one of {groups} groups"), |bencher| {
            bencher.iter(|| {
                index += 1;
                sentinel.record([at(0, index)]).unwrap();
            });
        });
    }
    let space = Space { table: Table::Raft, group: GroupId::CLUSTER, generation: 0 };
    group.bench_function("synced put and record, 1000 groups", |bencher| {
        bencher.iter(|| {
            index += 1;
            let mut batch = Batch::default();
            batch.put(space, index.to_be_bytes(), [7; 256]);
            rocks.write(batch, Durability::Synced).unwrap();
            sentinel.record([at(0, index)]).unwrap();
        });
    });
}

fn backups(criterion: &mut Criterion) {
    let key = BackupKey::given(SecretKey::random().unwrap());
    let content = vec![7; 16 * 1024 * 1024];
    let write = |chunk_bytes| {
        let out = Vec::with_capacity(content.len() + content.len() / 32);
        let mut writer = BackupWriter::full(out, &key, DatabaseId(1), chunk_bytes).unwrap();
        writer.write_all(&content).unwrap();
        writer.finish().unwrap().0
    };
    let mut group = criterion.benchmark_group("backup 16 MiB");
    group.throughput(Throughput::Bytes(content.len() as u64)).sample_size(10);
    for chunk_bytes in [4_096, limits::BACKUP_CHUNK_BYTES, limits::BACKUP_CHUNK_BYTES_MAX] {
        group.bench_function(format!("write, chunks of {chunk_bytes}"), |bencher| {
            bencher.iter(|| write(chunk_bytes));
        });
        let stream = write(chunk_bytes);
        group.bench_function(format!("read, chunks of {chunk_bytes}"), |bencher| {
            bencher.iter(|| {
                let expected = Expected::Full(DatabaseId(1));
                let mut reader = BackupReader::open(stream.as_slice(), &key, expected).unwrap();
                std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
                reader.finish().unwrap()
            });
        });
    }
}

criterion_group!(benches, records, puts, sentinels, backups);
criterion_main!(benches);
