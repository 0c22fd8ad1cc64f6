//! What somebody uploads: X.509 in DER and PEM, PKCS#12, certificate requests, the identity of a server.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use rustls_pki_types::pem::PemObject as _;

use super::input::{Input, push_piece};
use crate::{
    certificates::{
        self, IssueRequest, SigningRequest, Usage, check_registrable, covers_host, from_upload,
        is_misleading, key_digest, same_issuer, server_identity,
    },
    limits,
    names::{Thumbprint, Timestamp},
};

/// The longest that reading one upload may take: a second of rounds in an optimised build, and a slow, busy machine.
const LONGEST: Duration = Duration::from_secs(60);

/// What is taken are certificates, each as it stood in the upload; text of them is safe to show.
pub(super) fn upload(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let password = std::str::from_utf8(input.piece()).unwrap_or("p");
    let content = input.rest();
    let began = Instant::now();
    let mut taken = false;
    match from_upload(content, (!password.is_empty()).then_some(password)) {
        Ok(upload) => {
            taken = true;
            let count = upload.certificates.len() + upload.authorities_skipped;
            assert!((1..=limits::UPLOAD_CERTIFICATES_MAX).contains(&count));
            upload.certificates.iter().for_each(|der| check_certificate(der));
            let single = upload.clone().single();
            assert_eq!(single.is_ok(), upload.certificates.len() == 1);
        }
        Err(refused) => check_text(&refused.to_string()),
    }
    if let Ok(identity) = server_identity(content, password) {
        taken = true;
        assert!((1..=limits::CERTIFICATE_CHAIN_MAX).contains(&identity.chain.len()));
        assert!(!identity.key.is_empty() && identity.key.len() <= content.len());
    }
    if let Ok(request) = SigningRequest::parse(content) {
        taken = true;
        assert!(!request.public_key().is_empty());
        check_text(request.key_algorithm());
    }
    if let Ok(parsed) = certificates::parse(content) {
        assert_eq!(parsed.der, content);
        check_certificate(content);
    }
    assert!(began.elapsed() < LONGEST, "an upload takes {:?}", began.elapsed());
    taken
}

fn check_text(text: &str) {
    assert!(text.len() < 16 * 1024, "text of {} bytes", text.len());
    assert!(
        !text.chars().any(char::is_control) && !is_misleading(text),
        "text to mislead: {text:?}"
    );
}

fn check_certificate(der: &[u8]) {
    let parsed = certificates::parse(der).expect("it was taken before");
    assert_eq!((parsed.der.as_slice(), parsed.thumbprint), (der, Thumbprint::of(der)));
    assert!(der.len() <= limits::CERTIFICATE_BYTES_MAX);
    for text in [&parsed.subject, &parsed.issuer, &parsed.serial_hex, &parsed.key_algorithm] {
        check_text(text);
    }
    parsed.alternative_names.iter().for_each(|name| check_text(name));
    for usage in [Usage::Client, Usage::Node] {
        let at = Timestamp(1_800_000_000_000);
        if check_registrable(&parsed, usage, at).is_ok() {
            assert!(parsed.not_after >= at, "an expired certificate may be registered");
            key_digest(der).expect("a registrable certificate has a key");
        }
    }
    assert!(same_issuer(der, der).unwrap_or(true));
    let _ = covers_host(der, "n1.example");
}

static AUTHORITY: LazyLock<certificates::Issued> = LazyLock::new(|| {
    let request = IssueRequest {
        common_name: "authority".to_owned(),
        not_before: Timestamp(1_700_000_000_000),
        not_after: Timestamp(2_000_000_000_000),
    };
    certificates::issue_ca(&request).unwrap()
});

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let ed25519 = super::cluster::certificate("seed");
    let request = IssueRequest {
        common_name: "Zoë \"x\"".to_owned(),
        not_before: Timestamp(1_700_000_000_000),
        not_after: Timestamp(1_900_000_000_000),
    };
    let issued =
        certificates::issue_client(&request, &AUTHORITY.der, AUTHORITY.key_pem.expose()).unwrap();
    let pem = certificates::certificate_pem;
    let chain = pem(&issued.der) + &pem(&AUTHORITY.der) + issued.key_pem.expose();
    let key = rcgen::KeyPair::generate().unwrap();
    let wish = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let wish = wish.serialize_request(&key).unwrap().der().to_vec();
    let seed = |password: &str, content: &[u8]| {
        let mut bytes = Vec::new();
        push_piece(&mut bytes, password.as_bytes());
        bytes.extend_from_slice(content);
        bytes
    };
    let mut seeds = vec![
        seed("", &ed25519),
        seed("", &issued.der),
        seed("", &AUTHORITY.der),
        seed("", chain.as_bytes()),
        seed("", &wish),
    ];
    for (encryption, mac) in [
        (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256),
        (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1),
    ] {
        seeds.push(seed("p", &container(&issued, encryption, mac)));
    }
    seeds
}

/// A PKCS#12 file with a certificate and its key, of so few rounds that many can be tried.
fn container(
    issued: &certificates::Issued,
    encryption: EncryptionAlgorithm,
    mac: MacAlgorithm,
) -> Vec<u8> {
    let pem = issued.key_pem.expose().as_bytes();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
    let key = PrivateKey::from_der(key.secret_pkcs8_der()).unwrap();
    let chain =
        PrivateKeyChain::new(vec![1; 20], key, [Certificate::from_der(&issued.der).unwrap()]);
    let mut store = KeyStore::new();
    store.add_entry("a", KeyStoreEntry::PrivateKeyChain(chain));
    let writer = store.writer("p").encryption_algorithm(encryption).encryption_iterations(3);
    writer.mac_algorithm(mac).mac_iterations(3).write().unwrap()
}
