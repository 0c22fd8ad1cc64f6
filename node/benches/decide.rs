//! What authorization costs a request: find the certificate in the registry, and decide.

#![allow(missing_docs)] // criterion's macros write functions.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use criterion::{Criterion, criterion_group, criterion_main};
use rookery::{
    authz::{
        Access, Caller, Clearance, DatabaseOperation, Registration, ServerOperation,
        decide_database, decide_missing_database, decide_server, explain_database,
    },
    names::{DatabaseId, Thumbprint, Timestamp},
};

const CERTIFICATES: u64 = 100_000;
const GRANTS: u64 = 1_000;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

type Registry = imbl::OrdMap<Thumbprint, Arc<Registration>>;

fn registration(number: u64, grants: u64) -> Registration {
    let der: Arc<[u8]> = Arc::from(number.to_be_bytes().as_slice());
    Registration {
        thumbprint: Thumbprint::of(&der),
        name: format!("certificate {number}"),
        clearance: Clearance::User,
        grants: (0..grants)
            .map(|id| (DatabaseId(id), Access::ReadWrite))
            .collect::<BTreeMap<_, _>>(),
        not_before: Timestamp(0),
        not_after: Timestamp(i64::MAX),
        disabled: false,
        revision: number,
        node: None,
        second_factor: None,
        der,
    }
}

/// 100,000 certificates, each with one grant but number 0, which has 1,000.
fn registry() -> Registry {
    (0..CERTIFICATES)
        .map(|number| registration(number, if number == 0 { GRANTS } else { 1 }))
        .map(|registration| (registration.thumbprint, Arc::new(registration)))
        .collect()
}

fn caller<'a>(registry: &'a Registry, thumbprint: &Thumbprint) -> Caller<'a> {
    registry
        .get(thumbprint)
        .map_or(Caller::Unknown(*thumbprint), |registration| Caller::Registered(registration))
}

fn decide(c: &mut Criterion) {
    let registry = registry();
    let thumbprints: Vec<_> = registry.keys().copied().collect();
    let granted = Thumbprint::of(&0_u64.to_be_bytes());
    let stranger = Thumbprint::of(b"stranger");
    let read = DatabaseOperation::ReadDocument;
    let write = DatabaseOperation::PutDocument;

    c.bench_function("allowed: any of 100,000 certificates, one grant", |b| {
        let mut next = 0;
        b.iter(|| {
            next = (next + 7_919) % thumbprints.len();
            let caller = caller(&registry, black_box(&thumbprints[next]));
            black_box(decide_database(caller, read, DatabaseId(0), NOW, 1).is_ok())
        });
    });
    c.bench_function("allowed: one certificate with 1,000 grants", |b| {
        let mut next = 0;
        b.iter(|| {
            next = (next + 397) % GRANTS;
            let caller = caller(&registry, black_box(&granted));
            black_box(decide_database(caller, write, DatabaseId(next), NOW, 1).is_ok())
        });
    });
    c.bench_function(
        "allowed and its use noted: the same, with the minute of the connection",
        |b| {
            // What `edge::connections` keeps: one load where the minute was noted before.
            let noted = AtomicI64::new(i64::MIN);
            let mut next = 0;
            b.iter(|| {
                next = (next + 397) % GRANTS;
                let caller = caller(&registry, black_box(&granted));
                let allowed = decide_database(caller, write, DatabaseId(next), NOW, 1).is_ok();
                let minute = black_box(NOW).0.div_euclid(60_000);
                let first = noted.load(Ordering::Relaxed) != minute
                    && noted.swap(minute, Ordering::Relaxed) != minute;
                black_box((allowed, first))
            });
        },
    );
    c.bench_function("explained: one operation on a database, denied", |b| {
        b.iter(|| {
            let caller = caller(&registry, black_box(&granted));
            black_box(explain_database(caller, write, Some(DatabaseId(GRANTS + 1)), NOW).allowed)
        });
    });
    c.bench_function("denied: no grant", |b| {
        b.iter(|| {
            let caller = caller(&registry, black_box(&granted));
            black_box(decide_missing_database(caller, write, NOW, 1).is_err())
        });
    });
    c.bench_function("denied: unknown certificate", |b| {
        b.iter(|| {
            let caller = caller(&registry, black_box(&stranger));
            black_box(decide_server(caller, ServerOperation::CreateDatabase, NOW, 1).is_err())
        });
    });
}

criterion_group!(benches, decide);
criterion_main!(benches);
