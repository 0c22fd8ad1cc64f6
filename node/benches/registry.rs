//! What lists, lookups and changes cost in a registry of 100,000 certificates, and how much memory it takes.

#![allow(missing_docs)] // criterion's macros write functions.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use prost::Message as _;
use rookery::{
    authz::{Access, Clearance, DatabaseOperation, decide_database},
    cluster::{
        Registry,
        list::{Query, Sort, State},
        lost_rights,
    },
    names::{DatabaseId, Thumbprint, Timestamp},
};
use rookery_proto::log::v1::{CertificateRecord, GrantRecord};

const CERTIFICATES: u64 = 100_000;
const DATABASES: u64 = 200;
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const DAY: i64 = 86_400_000;
/// A page of the command line.
const PAGE: usize = 100;

/// 700 bytes, as many as an ECDSA certificate has.
fn record(number: u64) -> CertificateRecord {
    let mut der = number.to_be_bytes().to_vec();
    der.resize(700, 7);
    let grants = if number == 0 { 1_000 } else { 2 };
    let granted = |grant: u64| (number * 7 + grant) % DATABASES.max(grants) + 1;
    let mut databases: Vec<u64> = (0..grants).map(granted).collect();
    databases.sort_unstable();
    databases.dedup();
    let access = Access::ReadWrite.number();
    CertificateRecord {
        thumbprint: Thumbprint::of(&der).as_bytes().to_vec(),
        name: format!("service {:05} of team {}", (number * 7_919) % CERTIFICATES, number % 97),
        clearance: match number % 10_000 {
            1 => Clearance::ClusterAdmin.number(),
            2..=10 => Clearance::Operator.number(),
            _ => Clearance::User.number(),
        },
        grants: databases
            .into_iter()
            .map(|database_id| GrantRecord { database_id, access })
            .collect(),
        not_before_unix_ms: NOW.0 - 400 * DAY,
        // One in a hundred has expired, one in fifty expires within 30 days.
        not_after_unix_ms: NOW.0
            + match number % 100 {
                0 => -DAY,
                1 | 2 => 20 * DAY,
                _ => 900 * DAY,
            },
        disabled: number % 1_000 == 5,
        created_unix_ms: NOW.0 - i64::try_from(number).unwrap_or_default(),
        revision: number + 1,
        der,
        ..CertificateRecord::default()
    }
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|it| it.parse::<u64>().ok()).unwrap_or_default();
    pages * 4096
}

#[allow(clippy::print_stdout)] // Where figures go.
fn build() -> Registry {
    let before = resident_bytes();
    let began = std::time::Instant::now();
    let mut registry = Registry::default();
    for number in 0..CERTIFICATES {
        if registry.insert(record(number)).is_err() {
            break;
        }
    }
    let per = (resident_bytes().saturating_sub(before)) / CERTIFICATES;
    println!("{} certificates loaded in {:?}", registry.certificate_count(), began.elapsed());
    println!(
        "{per} bytes resident a certificate, of which its record is {}",
        record(1).encoded_len()
    );
    registry
}

/// A page of each filter, in each order, the first and one in the middle.
fn lists(c: &mut Criterion, registry: &Registry) {
    let base = || Query { at: NOW, ..Query::default() };
    let some = Thumbprint::from_bytes(&record(77).thumbprint).map(|it| it.to_string());
    let prefix = |digits: usize| {
        some.as_ref().ok().and_then(|text| text.get(..digits)).and_then(|text| text.parse().ok())
    };
    let queries = [
        ("all", base()),
        ("a common part of the name", Query { name_contains: "team 7".into(), ..base() }),
        ("a rare part of the name", Query { name_contains: "service 00042".into(), ..base() }),
        ("a name that nobody has", Query { name_contains: "nobody".into(), ..base() }),
        ("a thumbprint of 2 digits", Query { prefix: prefix(2), ..base() }),
        ("a thumbprint of 12 digits", Query { prefix: prefix(12), ..base() }),
        ("Cluster Admins", Query { clearance: Some(Clearance::ClusterAdmin), ..base() }),
        ("Users", Query { clearance: Some(Clearance::User), ..base() }),
        ("a database", Query { database: Some(DatabaseId(42)), ..base() }),
        ("valid", Query { state: Some(State::Valid), ..base() }),
        ("expiring", Query { state: Some(State::Expiring), ..base() }),
        ("expired", Query { state: Some(State::Expired), ..base() }),
        ("not yet valid", Query { state: Some(State::NotYetValid), ..base() }),
        ("disabled", Query { state: Some(State::Disabled), ..base() }),
        ("expiring within 7 days", Query { expires_within_ms: Some(7 * DAY), ..base() }),
    ];
    for (words, query) in queries {
        for (order, sort) in [("name", Sort::Name), ("expiry", Sort::Expiry)] {
            let query = Query { sort, ..query.clone() };
            let middle = registry.list(&query, None, 1_000).next;
            c.bench_function(&format!("list {words}, by {order}: first page"), |b| {
                b.iter(|| {
                    black_box(registry.list(black_box(&query), None, PAGE).certificates.len())
                });
            });
            if let Some(middle) = middle {
                c.bench_function(&format!("list {words}, by {order}: page 11"), |b| {
                    b.iter(|| {
                        let page = registry.list(black_box(&query), Some(&middle), PAGE);
                        black_box(page.certificates.len())
                    });
                });
            }
        }
    }
}

/// One change: copy, change, compare, publish; and a decision on the result.
fn changes(c: &mut Criterion, registry: &Registry) {
    c.bench_function("copy of the registry", |b| b.iter(|| black_box(registry.clone())));
    c.bench_function("edit of one certificate, and who lost rights", |b| {
        let edited = CertificateRecord { disabled: true, ..record(4_711) };
        b.iter(|| {
            let mut next = registry.clone();
            let changed = next.insert(black_box(edited.clone())).is_ok();
            let next = Arc::new(next);
            black_box((changed, lost_rights(registry, &next).len()))
        });
    });
    let granted = Thumbprint::from_bytes(&record(0).thumbprint).ok();
    c.bench_function("decide: one certificate with 1,000 grants", |b| {
        let mut next = 0;
        b.iter(|| {
            next = (next + 397) % 1_000;
            let caller = registry.caller(black_box(granted));
            let (operation, database) = (DatabaseOperation::ReadDocument, DatabaseId(next + 1));
            black_box(decide_database(caller, operation, database, NOW, 1).is_ok())
        });
    });
    let all: Vec<_> = registry.certificates(None).map(|it| it.registration.thumbprint).collect();
    c.bench_function("decide: any of 100,000 certificates", |b| {
        let mut next = 0;
        b.iter(|| {
            next = (next + 7_919) % all.len();
            let caller = registry.caller(black_box(Some(all[next])));
            let operation = DatabaseOperation::ReadDocument;
            black_box(decide_database(caller, operation, DatabaseId(7), NOW, 1).is_ok())
        });
    });
}

fn registry(c: &mut Criterion) {
    let registry = build();
    lists(c, &registry);
    changes(c, &registry);
}

criterion_group!(benches, registry);
criterion_main!(benches);
