//! What certificates cost: made and packed, certified for a request, and opened out of a PFX.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros write functions; a bench may stop.

use std::{hint::black_box, process::Command};

use criterion::{Criterion, criterion_group, criterion_main};
use rookery::{
    certificates::{
        self, HolderKey, IssueRequest, Issued, PackageContents, Protection, Secret, SigningRequest,
    },
    names::Timestamp,
};

fn request() -> IssueRequest {
    IssueRequest {
        common_name: "alice".to_owned(),
        not_before: Timestamp(1_800_000_000_000),
        not_after: Timestamp(1_900_000_000_000),
    }
}

fn package(issued: &Issued, password: &Secret) -> Vec<u8> {
    let pem = &issued.key_pem;
    certificates::package(&PackageContents {
        name: "alice",
        der: &issued.der,
        key: HolderKey::Made { pem, password, protection: Protection::Modern },
        ca_pem: "",
        addresses: &["n1.example:7443".to_owned()],
        node_thumbprints: &[],
        cluster_id: "cluster",
    })
    .unwrap()
}

fn generate(c: &mut Criterion) {
    let ca = certificates::issue_ca(&request()).unwrap();
    let password = certificates::password().unwrap();
    c.bench_function("issue a certificate and pack it", |b| {
        b.iter(|| {
            let issued =
                certificates::issue_client(&request(), &ca.der, ca.key_pem.expose()).unwrap();
            black_box(package(&issued, &password))
        });
    });
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    c.bench_function("certify the key of a request", |b| {
        b.iter(|| {
            let csr = SigningRequest::parse(black_box(csr.der())).unwrap();
            certificates::issue_for_request(&request(), &csr, &ca.der, ca.key_pem.expose()).unwrap()
        });
    });
}

/// A PFX of OpenSSL, whose number of rounds can be chosen.
fn pfx(issued: &Issued, how: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let both = certificates::certificate_pem(&issued.der) + issued.key_pem.expose();
    std::fs::write(path.join("both.pem"), both).unwrap();
    let make = ["pkcs12", "-export", "-in", "both.pem", "-passout", "pass:p", "-out", "out.pfx"];
    let made = Command::new("openssl").current_dir(path).args(make).args(how).status();
    assert!(made.is_ok_and(|status| status.success()), "openssl is needed for this bench");
    std::fs::read(path.join("out.pfx")).unwrap()
}

fn open(c: &mut Criterion) {
    let issued = certificates::issue_ca(&request()).unwrap();
    let mut group = c.benchmark_group("open a PFX");
    group.sample_size(10);
    for (name, how) in [
        ("2,048 rounds, as OpenSSL makes them", &["-iter", "2048"][..]),
        ("2,048 rounds, RC2-40", &["-iter", "2048", "-legacy"]),
        ("600,000 rounds, as NSS makes them", &["-iter", "600000"]),
        ("1,000,000 rounds twice, the most that is done", &["-iter", "1000000"]),
    ] {
        let file = pfx(&issued, how);
        group.bench_function(name, |b| {
            b.iter(|| certificates::from_upload(black_box(&file), Some("p")).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, generate, open);
criterion_main!(benches);
