//! Certificate requests: what is signed, what is refused, and that wishes are not granted.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    SignatureAlgorithm,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    parse::x509,
    tests::{authority, judge, request},
    *,
};

fn csr(algorithm: &'static SignatureAlgorithm) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let csr = greedy().serialize_request(&key).unwrap();
    let der = csr.der().to_vec();
    (key, der)
}

/// A request that asks for far more than its maker gets.
fn greedy() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["n1.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "administrator");
    params.distinguished_name.push(DnType::OrganizationName, "Rookery");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// RSA keys are not made by the library; the tool that most people have makes them.
fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn rsa_csr(bits: &str, exponent: &str, extra: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem").display().to_string();
    let bits = format!("rsa_keygen_bits:{bits}");
    let exponent = format!("rsa_keygen_pubexp:{exponent}");
    openssl(&[
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        &bits,
        "-pkeyopt",
        &exponent,
        "-out",
        &key,
    ]);
    openssl(&[&["req", "-new", "-key", &key, "-subj", "/CN=rsa"], extra].concat())
}

fn issued(csr: &[u8]) -> Vec<u8> {
    let ca = authority();
    let signing_request = SigningRequest::parse(csr).unwrap();
    issue_for_request(&request("alice"), &signing_request, &ca.der, ca.key_pem.expose()).unwrap()
}

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let rsa = rsa_csr("2048", "65537", &[]);
    let table: [(&str, Vec<u8>); 6] = [
        ("ECDSA P-256", csr(&PKCS_ECDSA_P256_SHA256).1),
        ("ECDSA P-384", csr(&PKCS_ECDSA_P384_SHA384).1),
        ("Ed25519", csr(&PKCS_ED25519).1),
        ("RSA 2048", rsa.clone()),
        ("RSA 2048", String::from_utf8(rsa).unwrap().replace('\n', "\r\n").into_bytes()),
        ("RSA 4096", rsa_csr("4096", "65537", &["-sha512"])),
    ];
    for (algorithm, csr) in table {
        let signing_request = SigningRequest::parse(&csr).unwrap();
        assert_eq!(signing_request.key_algorithm(), algorithm);
        let der = issued(&csr);
        let certificate = x509(&der).unwrap();
        assert_eq!(certificate.public_key().raw, signing_request.public_key(), "{algorithm}");
        let parsed = parse(&der).unwrap();
        assert_eq!(parsed.subject, "CN=alice", "the subject is ours");
        assert_eq!(parsed.key_algorithm, algorithm);
        assert!(parsed.alternative_names.is_empty(), "{:?}", parsed.alternative_names);
        assert_eq!(parsed.serial_hex.len(), 32, "128 bits");
        assert_eq!((parsed.not_before, parsed.not_after), {
            let request = request("alice");
            (request.not_before, request.not_after)
        });
        // No CA, no serverAuth, and fit for registration.
        assert_eq!(judge(&der, Usage::Client), Ok(()));
        assert_eq!(judge(&der, Usage::Node), Err(Refused::ExtendedKeyUsage("serverAuth")));
    }
}

#[test]
fn every_row_of_requests_that_are_refused() {
    let (key, good) = csr(&PKCS_ECDSA_P256_SHA256);
    let (_, other) = csr(&PKCS_ECDSA_P256_SHA256);
    let pem = pem("CERTIFICATE REQUEST", &good).expose().to_owned();
    // The key of another request, under this one's signature: a key that its sender does not hold.
    let spki = |der: &[u8]| {
        let (_, csr) =
            x509_parser::certification_request::X509CertificationRequest::from_der(der).unwrap();
        csr.certification_request_info.subject_pki.raw.to_vec()
    };
    let (mine, theirs) = (spki(&good), spki(&other));
    let place = good.windows(mine.len()).position(|window| window == mine).unwrap();
    let mut stolen = good.clone();
    stolen.splice(place..place + mine.len(), theirs);
    let mut unsigned = good.clone();
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    let weak = |why: &str| Refused::WeakKey(why.to_owned());
    let bytes_max = limits::CERTIFICATE_REQUEST_BYTES_MAX;
    let p521 = {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.pem").display().to_string();
        openssl(&[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-521",
            "-out",
            &key,
        ]);
        openssl(&["req", "-new", "-key", &key, "-subj", "/CN=x"])
    };
    let pss = rsa_csr(
        "2048",
        "65537",
        &["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32", "-sha256"],
    );
    let table: Vec<(&str, Vec<u8>, Refused)> = vec![
        ("nothing", Vec::new(), Refused::Empty),
        ("a byte", b"0".to_vec(), Refused::Request("it is not one whole value in DER")),
        ("a word", b"request".to_vec(), Refused::NoRequest),
        (
            "too much",
            vec![0x30; bytes_max + 1],
            Refused::TooLarge { bytes: bytes_max + 1, bytes_max },
        ),
        ("a certificate", certificate_pem(&authority().der).into_bytes(), Refused::NoRequest),
        (
            "a certificate in DER",
            authority().der,
            Refused::Request("its fields are not those of a request"),
        ),
        ("a private key", key.serialize_pem().into_bytes(), Refused::PrivateKey),
        ("a private key in DER", key.serialize_der(), Refused::PrivateKey),
        (
            "bytes behind",
            [good.as_slice(), &[0]].concat(),
            Refused::Request("it is not one whole value in DER"),
        ),
        (
            "damaged PEM",
            pem.replacen("MI", "M!", 1).into_bytes(),
            Refused::Request("its PEM is damaged"),
        ),
        (
            "PEM without end",
            pem.as_bytes()[..pem.len() - 10].to_vec(),
            Refused::Request("its PEM is damaged"),
        ),
        ("another's key", stolen, Refused::RequestSignature),
        ("a damaged signature", unsigned, Refused::RequestSignature),
        ("RSA 1024", rsa_csr("1024", "65537", &[]), weak("RSA of 1024 bits")),
        ("RSA with exponent 3", rsa_csr("2048", "3", &[]), weak("RSA with exponent 3")),
        ("P-521", p521, Refused::UnsupportedKey("ECDSA P-521".to_owned())),
    ];
    for (words, bytes, expected) in table {
        assert_eq!(SigningRequest::parse(&bytes), Err(expected), "{words}");
    }
    assert!(SigningRequest::parse(&pss).is_ok(), "RSA-PSS is a signature like another");
    let windows = pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
    assert!(SigningRequest::parse(windows.as_bytes()).is_ok(), "as Windows writes it");
    let both = format!("{}{pem}", key.serialize_pem());
    assert!(SigningRequest::parse(both.as_bytes()).is_ok(), "a key beside it is passed over");
}

#[test]
fn a_name_is_one_attribute_whatever_it_looks_like() {
    let (_, csr) = csr(&PKCS_ECDSA_P256_SHA256);
    let signing_request = SigningRequest::parse(&csr).unwrap();
    let ca = authority();
    let long = "n".repeat(128);
    for (name, subject) in [
        ("a, O=Rookery", r"CN=a\, O\=Rookery".to_owned()),
        ("a+CN=admin", r"CN=a\+CN\=admin".to_owned()),
        ("a/CN=admin", r"CN=a/CN\=admin".to_owned()),
        (r#"a"<>;\"#, r#"CN=a\"\<\>\;\\"#.to_owned()),
        ("../../etc/passwd", "CN=../../etc/passwd".to_owned()),
        ("Jürgen 日本 🦀", "CN=Jürgen 日本 🦀".to_owned()),
        (long.as_str(), format!("CN={}", "n".repeat(64))),
    ] {
        let wish = request(name);
        let key = ca.key_pem.expose();
        for der in [
            issue_for_request(&wish, &signing_request, &ca.der, key).unwrap(),
            issue_client(&wish, &ca.der, key).unwrap().der,
        ] {
            assert_eq!(parse(&der).unwrap().subject, subject);
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            assert_eq!(certificate.subject().iter_attributes().count(), 1, "{name}");
        }
    }
    for name in ["a\nb", "a\u{1b}[31mb", "a\0b", " \t "] {
        let refused = issue_client(&request(name), &ca.der, ca.key_pem.expose());
        assert!(matches!(refused, Err(Error::Request(_))), "{name:?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    #[test]
    fn no_damage_to_a_request_is_a_panic_or_a_certificate_for_another_key(
        changes in proptest::collection::vec((0_usize..600, 1_u8..), 1..4),
    ) {
        let (_, good) = csr(&PKCS_ECDSA_P256_SHA256);
        let known = SigningRequest::parse(&good).unwrap();
        for text in [good.clone(), pem("CERTIFICATE REQUEST", &good).expose().as_bytes().to_vec()] {
            let mut damaged = text;
            for (place, change) in &changes {
                let place = place % damaged.len();
                damaged[place] ^= change;
            }
            if let Ok(found) = SigningRequest::parse(&damaged) {
                proptest::prop_assert_eq!(found, known.clone());
            }
        }
    }
}
