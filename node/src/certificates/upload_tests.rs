//! What an upload may hold: files that other programs made, and files that were made to hurt.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ::pkcs12::kdf::{Pkcs12KeyType, derive_key};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sha2::Sha256;

use super::{
    tests::{authority, judge, own, request},
    *,
};

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {why}");
}

/// A certificate that names its issuer and is signed by a key of its own: only names matter here.
fn named(subject: &str, issuer: &str, ca: bool) -> Vec<u8> {
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let issuer = Issuer::new(params(issuer), KeyPair::generate().unwrap());
    let mut params = params(subject);
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec()
}

fn pems(ders: &[&Vec<u8>]) -> Vec<u8> {
    ders.iter().map(|der| certificate_pem(der)).collect::<String>().into_bytes()
}

/// One DER value.
fn tlv(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = content.len();
    let mut bytes = vec![tag];
    match length {
        0..0x80 => bytes.push(length as u8),
        0x80..0x100 => bytes.extend([0x81, length as u8]),
        0x100..0x1_0000 => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
        _ => bytes.extend([0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]),
    }
    bytes.extend(content);
    bytes
}

fn oid(text: &str) -> Vec<u8> {
    let arcs: Vec<u64> = text.split('.').map(|arc| arc.parse().unwrap()).collect();
    let mut bytes = vec![(arcs[0] * 40 + arcs[1]) as u8];
    for arc in &arcs[2..] {
        let mut groups = vec![(arc & 0x7f) as u8];
        let mut rest = arc >> 7;
        while rest > 0 {
            groups.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        bytes.extend(groups.iter().rev());
    }
    tlv(0x06, &[&bytes])
}

fn number(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    let digits = &bytes[zeros..];
    let sign: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
    tlv(0x02, &[sign, digits])
}

const BAG: &str = "1.2.840.113549.1.12.10.1";

fn bag(kind: u8, value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&oid(&format!("{BAG}.{kind}")), &tlv(0xa0, &[value])])
}

fn certificate_bag(der: &[u8]) -> Vec<u8> {
    let x509 = oid("1.2.840.113549.1.9.22.1");
    bag(3, &tlv(0x30, &[&x509, &tlv(0xa0, &[&tlv(0x04, &[der])])]))
}

/// A shrouded key whose opening would take this many rounds.
fn key_bag(rounds: u64) -> Vec<u8> {
    let parameters = tlv(0x30, &[&tlv(0x04, &[b"saltsalt"]), &number(rounds)]);
    let algorithm = tlv(0x30, &[&oid("1.2.840.113549.1.12.1.3"), &parameters]);
    bag(2, &tlv(0x30, &[&algorithm, &tlv(0x04, &[&[0; 64]])]))
}

/// A part in the clear.
fn part(bags: &[Vec<u8>]) -> Vec<u8> {
    let bags = tlv(0x30, &[&bags.concat()]);
    tlv(0x30, &[&oid("1.2.840.113549.1.7.1"), &tlv(0xa0, &[&tlv(0x04, &[&bags])])])
}

/// An encrypted part with garbage inside.
fn encrypted(algorithm: &[u8]) -> Vec<u8> {
    let content = tlv(0x30, &[&oid("1.2.840.113549.1.7.1"), algorithm, &tlv(0x80, &[&[7; 64]])]);
    let data = tlv(0x30, &[&number(0), &content]);
    tlv(0x30, &[&oid("1.2.840.113549.1.7.6"), &tlv(0xa0, &[&data])])
}

fn old_algorithm(last: u8, rounds: u64) -> Vec<u8> {
    let parameters = tlv(0x30, &[&tlv(0x04, &[b"saltsalt"]), &number(rounds)]);
    tlv(0x30, &[&oid(&format!("1.2.840.113549.1.12.1.{last}")), &parameters])
}

fn pbes2(kdf: &[u8]) -> Vec<u8> {
    let aes = tlv(0x30, &[&oid("2.16.840.1.101.3.4.1.42"), &tlv(0x04, &[&[9; 16]])]);
    tlv(0x30, &[&oid("1.2.840.113549.1.5.13"), &tlv(0x30, &[kdf, &aes])])
}

fn pbkdf2(rounds: u64) -> Vec<u8> {
    let prf = tlv(0x30, &[&oid("1.2.840.113549.2.9"), &[0x05, 0x00]]);
    let parameters = tlv(0x30, &[&tlv(0x04, &[b"saltsalt"]), &number(rounds), &prf]);
    tlv(0x30, &[&oid("1.2.840.113549.1.5.12"), &parameters])
}

fn scrypt() -> Vec<u8> {
    let parameters =
        tlv(0x30, &[&tlv(0x04, &[b"saltsalt"]), &number(1 << 20), &number(8), &number(1)]);
    tlv(0x30, &[&oid("1.3.6.1.4.1.11591.4.11"), &parameters])
}

/// A file with a MAC that holds under the password "p"; `claimed` rounds stand in it in place of the true 2.
fn pfx(parts: &[Vec<u8>], claimed: Option<u64>) -> Vec<u8> {
    let safe = tlv(0x30, &[&parts.concat()]);
    let key = derive_key::<Sha256>(&[0, b'p', 0, 0], b"saltsalt", Pkcs12KeyType::Mac, 2, 32);
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    hmac.update(&safe);
    let digest = hmac.finalize().into_bytes();
    let algorithm = tlv(0x30, &[&oid("2.16.840.1.101.3.4.2.1"), &[0x05, 0x00]]);
    let digest = tlv(0x30, &[&algorithm, &tlv(0x04, &[&digest])]);
    let rounds = number(claimed.unwrap_or(2));
    let mac = tlv(0x30, &[&digest, &tlv(0x04, &[b"saltsalt"]), &rounds]);
    let safe = tlv(0x30, &[&oid("1.2.840.113549.1.7.1"), &tlv(0xa0, &[&tlv(0x04, &[&safe])])]);
    tlv(0x30, &[&number(3), &safe, &mac])
}

/// The outer length replaced by an indefinite one.
fn indefinite(der: &[u8]) -> Vec<u8> {
    let head = if der[1] < 0x80 { 2 } else { 2 + usize::from(der[1] & 0x7f) };
    [&[der[0], 0x80], &der[head..], &[0, 0]].concat()
}

#[test]
fn certificates_are_found_in_der_and_pem_and_keys_are_dropped() {
    let der = own(|_| ());
    let other = own(|_| ());
    let key = KeyPair::generate().unwrap();
    let pem = certificate_pem(&der);
    let plain_key = key.serialize_pem();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let found = |certificates: &[&Vec<u8>], authorities_skipped, private_key_dropped| {
        let certificates = certificates.iter().map(|der| (*der).clone()).collect();
        Ok(Upload { certificates, authorities_skipped, private_key_dropped })
    };
    let (leaf, middle, root) = (
        named("leaf", "middle", false),
        named("middle", "root", true),
        named("root", "root", true),
    );
    let (left, right) = (named("a", "b", false), named("b", "a", false));
    let seventeen: Vec<Vec<u8>> = (0..17).map(|n| named(&format!("c{n}"), "x", false)).collect();
    let bytes_max = limits::UPLOAD_BYTES_MAX;
    let too_large = |bytes| Err(Refused::TooLarge { bytes, bytes_max });
    let table: Vec<(&str, Vec<u8>, Result<Upload, Refused>)> = vec![
        ("DER", der.clone(), found(&[&der], 0, false)),
        ("PEM", pem.clone().into_bytes(), found(&[&der], 0, false)),
        ("PEM with CRLF", pem.replace('\n', "\r\n").into_bytes(), found(&[&der], 0, false)),
        ("text before PEM", format!("CN = a\n\n{pem}").into_bytes(), found(&[&der], 0, false)),
        ("key and PEM", format!("{plain_key}{pem}").into_bytes(), found(&[&der], 0, true)),
        (
            "PEM and encrypted key",
            format!("{pem}{encrypted}").into_bytes(),
            found(&[&der], 0, true),
        ),
        ("two holders", pems(&[&other, &der]), found(&[&other, &der], 0, false)),
        ("a chain", pems(&[&leaf, &middle, &root]), found(&[&leaf], 2, false)),
        ("a chain upside down", pems(&[&root, &middle, &leaf]), found(&[&leaf], 2, false)),
        ("a chain and another", pems(&[&leaf, &der, &middle]), found(&[&leaf, &der], 1, false)),
        ("an authority alone", pems(&[&root]), found(&[&root], 0, false)),
        ("authorities alone", pems(&[&root, &middle]), found(&[&middle], 1, false)),
        (
            "namesakes that signed themselves",
            pems(&[&der, &other]),
            found(&[&der, &other], 0, false),
        ),
        ("16", pems(&seventeen[..16].iter().collect::<Vec<_>>()), {
            found(&seventeen[..16].iter().collect::<Vec<_>>(), 0, false)
        }),
        ("17", pems(&seventeen.iter().collect::<Vec<_>>()), Err(Refused::TooManyCertificates(16))),
        ("one twice", pems(&[&der, &other, &der]), Err(Refused::Duplicate)),
        ("a circle", pems(&[&left, &right]), Err(Refused::Circle)),
        ("key alone", plain_key.clone().into_bytes(), Err(Refused::PrivateKey)),
        ("encrypted key alone", encrypted.as_bytes().to_vec(), Err(Refused::PrivateKey)),
        ("key in DER", key.serialize_der(), Err(Refused::PrivateKey)),
        ("nothing", Vec::new(), Err(Refused::Empty)),
        ("a byte", b"x".to_vec(), Err(Refused::NoCertificate)),
        ("a byte of DER", vec![0x30], Err(Refused::Malformed("it is cut off"))),
        ("a word", b"certificate".to_vec(), Err(Refused::NoCertificate)),
        ("two in DER", [der.clone(), other.clone()].concat(), {
            Err(Refused::TrailingBytes(other.len()))
        }),
        ("too much", vec![b'x'; bytes_max + 1], too_large(bytes_max + 1)),
        ("100 MB", vec![0x30; 100_000_000], too_large(100_000_000)),
        ("10,000 in PEM", pem.repeat(10_000).into_bytes(), too_large(pem.len() * 10_000)),
        (
            "one of two is damaged",
            [pems(&[&der]), pem_of(&[1, 2, 3])].concat(),
            Err(Refused::Malformed("it is cut off")),
        ),
        (
            "PEM cut off",
            pem.as_bytes()[..pem.len() - 20].to_vec(),
            Err(Refused::Malformed("its PEM is damaged")),
        ),
        (
            "damaged PEM",
            pem.replacen("MII", "M!I", 1).into_bytes(),
            Err(Refused::Malformed("its PEM is damaged")),
        ),
    ];
    for (words, bytes, expected) in table {
        let before = Instant::now();
        assert_eq!(from_upload(&bytes, None), expected, "{words}");
        assert!(before.elapsed() < Duration::from_secs(1), "{words} took {:?}", before.elapsed());
    }
    assert_eq!(judge(&root, Usage::Client), Err(Refused::Authority), "it is judged, and refused");
}

fn pem_of(der: &[u8]) -> Vec<u8> {
    certificate_pem(der).into_bytes()
}

/// Key kinds, and how OpenSSL makes them.
const KEYS: [(&str, &[&str]); 4] = [
    ("RSA 2048", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ("ECDSA P-256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("ECDSA P-384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("Ed25519", &["-algorithm", "ED25519"]),
];

/// Protections of a PFX, and how OpenSSL makes them.
const PROTECTIONS: [(&str, &[&str]); 7] = [
    ("modern", &[]),
    ("RC2 and 3DES", &["-legacy"]),
    ("3DES", &["-descert", "-legacy"]),
    ("AES-128, SHA-1", &["-certpbe", "AES-128-CBC", "-macalg", "sha1"]),
    ("AES-256, SHA-384", &["-certpbe", "AES-256-CBC", "-macalg", "sha384"]),
    ("in the clear", &["-certpbe", "NONE", "-keypbe", "NONE"]),
    ("600,000 rounds", &["-iter", "600000"]),
];

#[test]
fn files_of_openssl_are_read_with_every_key_and_protection() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ca = authority();
    std::fs::write(folder.join("ca.pem"), certificate_pem(&ca.der)).unwrap();
    std::fs::write(folder.join("ca.key"), ca.key_pem.expose()).unwrap();
    for (algorithm, key) in KEYS {
        openssl(folder, &[&["genpkey", "-out", "key.pem"], key].concat());
        openssl(folder, &["req", "-new", "-key", "key.pem", "-subj", "/CN=x", "-out", "csr.pem"]);
        let sign = ["x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key"];
        openssl(folder, &[&sign[..], &["-days", "9000", "-out", "cert.pem"]].concat());
        openssl(folder, &["x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der"]);
        openssl(
            folder,
            &[
                "pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER", "-out",
                "key.der",
            ],
        );
        let der = std::fs::read(folder.join("cert.der")).unwrap();
        let key_der = std::fs::read(folder.join("key.der")).unwrap();
        for (protection, how) in PROTECTIONS {
            for password in ["secret", "", "pässwörd 日本"] {
                let odd = protection == "600,000 rounds" || algorithm != "ECDSA P-256";
                if odd && password != "secret" {
                    continue; // Nothing new in it, and slow.
                }
                let out = format!("pass:{password}");
                let make = ["pkcs12", "-export", "-in", "cert.pem", "-inkey", "key.pem"];
                let chain = ["-certfile", "ca.pem", "-passout", &out, "-out", "out.pfx"];
                openssl(folder, &[&make[..], &chain, how].concat());
                let bytes = std::fs::read(folder.join("out.pfx")).unwrap();
                let words = format!("{algorithm}, {protection}, {password:?}");
                let upload = from_upload(&bytes, Some(password)).unwrap_or_else(|why| {
                    panic!("{words}: {why}");
                });
                assert_eq!(upload.certificates, [der.as_slice()], "{words}");
                assert_eq!(upload.authorities_skipped, 1, "{words}");
                assert!(upload.private_key_dropped, "{words}");
                let server = server_identity(&bytes, password).unwrap();
                assert_eq!(server.chain, [der.as_slice(), &ca.der], "{words}");
                assert!(*server.key == key_der, "{words}: another key");
                assert_eq!(parse(&der).unwrap().key_algorithm, algorithm);
                let refused = if password.is_empty() {
                    from_upload(&bytes, Some("x")).unwrap_err() == Refused::WrongPassword
                } else {
                    from_upload(&bytes, Some("Secret")).unwrap_err() == Refused::WrongPassword
                        && from_upload(&bytes, None).unwrap_err() == Refused::PasswordRequired
                        && from_upload(&bytes, Some("")).unwrap_err() == Refused::PasswordRequired
                };
                assert!(refused, "{words}");
            }
        }
    }
}

#[test]
fn a_server_key_is_taken_within_bounds_and_alone() {
    let shrouded = |algorithm: &[u8]| bag(2, &tlv(0x30, &[algorithm, &tlv(0x04, &[&[0; 64]])]));
    let certificate = certificate_bag(&own(|_| ()));
    let unknown = Refused::Pkcs12Unsupported("its encryption is of a kind unknown here");
    let too_many = |rounds, rounds_max| Refused::Pkcs12Rounds { rounds, rounds_max };
    let key = KeyPair::generate().unwrap();
    let table: Vec<(&str, Vec<Vec<u8>>, Refused)> = vec![
        ("scrypt", vec![shrouded(&pbes2(&scrypt()))], unknown),
        ("many rounds", vec![key_bag(1_000_001)], too_many(1_000_001, 1_000_000)),
        ("many by PBKDF2", vec![shrouded(&pbes2(&pbkdf2(1_000_001)))], {
            too_many(1_000_001, 1_000_000)
        }),
        // 3DES takes three runs; two more are of the MAC.
        ("many in all", vec![key_bag(700_000)], too_many(2_100_002, 2_000_000)),
        ("two", vec![key_bag(2), key_bag(2)], Refused::Pkcs12TooMany("private keys", 1)),
        ("two, one in the clear", vec![bag(1, &key.serialize_der()), key_bag(2)], {
            Refused::Pkcs12TooMany("private keys", 1)
        }),
        ("another's", vec![bag(1, &key.serialize_der())], {
            Refused::Malformed("the PKCS#12 file holds no certificate of its private key")
        }),
        ("garbage", vec![key_bag(2)], Refused::Pkcs12("its private key cannot be decrypted")),
        ("none", Vec::new(), {
            Refused::Malformed("the PKCS#12 file holds no private key with its certificate")
        }),
    ];
    for (words, keys, expected) in table {
        let bags = [std::slice::from_ref(&certificate), keys.as_slice()].concat();
        let before = Instant::now();
        let got = server_identity(&pfx(&[part(&bags)], None), "p").err();
        assert_eq!(got, Some(expected), "{words}");
        assert!(before.elapsed() < Duration::from_secs(1), "{words} took {:?}", before.elapsed());
    }
    let whole = pfx(&[part(&[certificate, key_bag(2)])], None);
    let without_mac = server_identity(&without_mac(&whole), "p").err();
    assert_eq!(without_mac, Some(Refused::Pkcs12WithoutMac));
    assert_eq!(server_identity(&whole, "q").err(), Some(Refused::WrongPassword));
}

/// The file without its last field.
fn without_mac(pfx: &[u8]) -> Vec<u8> {
    let (_, content, _) = der::split_value(pfx).unwrap();
    let (_, _, after_version) = der::split_value(content).unwrap();
    let (_, _, mac) = der::split_value(after_version).unwrap();
    tlv(0x30, &[&content[..content.len() - mac.len()]])
}

#[test]
fn files_of_openssl_that_are_refused_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let issued = issue_ca(&request("x")).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate_pem(&issued.der)).unwrap();
    std::fs::write(folder.join("key.pem"), issued.key_pem.expose()).unwrap();
    let many: String =
        (0..16).map(|n| certificate_pem(&named(&format!("c{n}"), "x", false))).collect();
    std::fs::write(folder.join("many.pem"), many).unwrap();
    let unknown = "its encryption is of a kind unknown here";
    let table: [(&[&str], Refused); 5] = [
        (&["-in", "cert.pem", "-inkey", "key.pem", "-nomac"], Refused::Pkcs12WithoutMac),
        (&["-nocerts", "-inkey", "key.pem"], Refused::PrivateKey),
        (
            &["-in", "cert.pem", "-nokeys", "-certpbe", "PBE-SHA1-RC4-128", "-legacy"],
            Refused::Pkcs12Unsupported(unknown),
        ),
        (
            &["-in", "cert.pem", "-inkey", "key.pem", "-certfile", "many.pem"],
            Refused::TooManyCertificates(16),
        ),
        (
            &["-in", "cert.pem", "-nokeys", "-iter", "1000001"],
            Refused::Pkcs12Rounds { rounds: 1_000_001, rounds_max: 1_000_000 },
        ),
    ];
    for (how, expected) in table {
        let make = ["pkcs12", "-export", "-passout", "pass:p", "-out", "out.pfx"];
        openssl(folder, &[&make[..], how].concat());
        let bytes = std::fs::read(folder.join("out.pfx")).unwrap();
        assert_eq!(from_upload(&bytes, Some("p")), Err(expected), "{how:?}");
    }
}

#[test]
fn files_that_were_made_to_hurt_are_refused_before_they_do() {
    let der = own(|_| ());
    let good = certificate_bag(&der);
    let other = |n: u8| certificate_bag(&[0x30, 1, n]);
    let nested = (0..1_000).fold(good.clone(), |bags, _| bag(6, &tlv(0x30, &[&bags])));
    let rounds = |rounds, rounds_max| Refused::Pkcs12Rounds { rounds, rounds_max };
    let one = || part(std::slice::from_ref(&good));
    let unknown = Refused::Pkcs12Unsupported("its encryption is of a kind unknown here");
    let good_file = pfx(&[one()], None);
    let sdsi = {
        let sdsi = oid("1.2.840.113549.1.9.22.2");
        bag(3, &tlv(0x30, &[&sdsi, &tlv(0xa0, &[&tlv(0x04, &[&der])])]))
    };
    let table: Vec<(&str, Vec<u8>, Refused)> = vec![
        ("2^31 rounds of the MAC", pfx(&[one()], Some(1 << 31)), rounds(1 << 31, 1_000_000)),
        ("2^40 rounds of the MAC", pfx(&[one()], Some(1 << 40)), rounds(1 << 40, 1_000_000)),
        ("0 rounds", pfx(&[one()], Some(0)), Refused::Pkcs12("a number of rounds in it is 0")),
        (
            "2^31 rounds of PBKDF2",
            pfx(&[encrypted(&pbes2(&pbkdf2(1 << 31)))], None),
            rounds(1 << 31, 1_000_000),
        ),
        (
            "2^31 rounds of 3DES",
            pfx(&[encrypted(&old_algorithm(3, 1 << 31))], None),
            rounds(1 << 31, 1_000_000),
        ),
        (
            "a million rounds, thrice",
            pfx(&vec![encrypted(&pbes2(&pbkdf2(1_000_000))); 3], None),
            rounds(3_000_002, 2_000_000),
        ),
        (
            "a million rounds of 3DES, which takes three runs",
            pfx(&[encrypted(&old_algorithm(3, 1_000_000))], None),
            rounds(3_000_002, 2_000_000),
        ),
        ("scrypt", pfx(&[encrypted(&pbes2(&scrypt()))], None), unknown.clone()),
        ("RC4", pfx(&[encrypted(&old_algorithm(1, 1))], None), unknown),
        (
            "garbage in an encrypted part",
            pfx(&[encrypted(&old_algorithm(3, 1))], None),
            Refused::Pkcs12("a part of it cannot be decrypted"),
        ),
        (
            "1,000 levels",
            pfx(&[part(&[nested])], None),
            Refused::Pkcs12TooMany("levels of bags", 4),
        ),
        (
            "1,000 bags",
            pfx(&[part(&vec![key_bag(1 << 31); 1_000])], None),
            Refused::Pkcs12TooMany("bags", 64),
        ),
        ("1,000 parts", pfx(&vec![part(&[]); 1_000], None), Refused::Pkcs12TooMany("parts", 16)),
        (
            "17 certificates",
            pfx(&[part(&(0..17).map(other).collect::<Vec<_>>())], None),
            Refused::TooManyCertificates(16),
        ),
        ("one twice", pfx(&[one(), one()], None), Refused::Duplicate),
        (
            "no certificate in a bag",
            pfx(&[part(&[other(0)])], None),
            Refused::Malformed("it is cut off"),
        ),
        (
            "another kind of certificate",
            pfx(&[part(&[sdsi])], None),
            Refused::Pkcs12Unsupported("a certificate in it is not X.509"),
        ),
        ("nothing in it", pfx(&[], None), Refused::NoCertificate),
        ("indefinite BER", indefinite(&good_file), Refused::Pkcs12Ber),
        ("bytes behind", [good_file.as_slice(), &[0]].concat(), Refused::Pkcs12("bytes follow it")),
        ("cut off", good_file[..good_file.len() - 1].to_vec(), Refused::Pkcs12("it is cut off")),
        ("the head alone", vec![0x30, 5, 2, 1, 3, 0x30, 0], { Refused::Pkcs12("it is cut off") }),
    ];
    for (words, bytes, expected) in table {
        let before = Instant::now();
        assert_eq!(from_upload(&bytes, Some("p")), Err(expected), "{words}");
        let took = before.elapsed();
        assert!(took < Duration::from_millis(500), "{words} took {took:?}");
    }
    assert_eq!(from_upload(&good_file, Some("p")).unwrap().certificates, [der.as_slice()]);
}

#[test]
fn a_key_bag_is_seen_and_never_opened() {
    let der = own(|_| ());
    let file = pfx(&[part(&[key_bag(u64::from(u32::MAX)), certificate_bag(&der)])], None);
    let before = Instant::now();
    let upload = from_upload(&file, Some("p")).unwrap();
    assert!(upload.private_key_dropped);
    assert_eq!(upload.certificates, [der]);
    assert!(before.elapsed() < Duration::from_millis(500));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_damage_to_a_container_is_a_panic_or_another_certificate(
        changes in proptest::collection::vec((0_usize..4_096, 1_u8..), 1..5),
        cut in proptest::option::of(0_usize..2_000),
    ) {
        let der = super::tests::fixture("rsa2048");
        let pem = certificate_pem(&der).into_bytes();
        for good in [pfx(&[part(&[key_bag(1), certificate_bag(&der)])], None), pem] {
            let mut damaged = good.clone();
            for (place, change) in &changes {
                let place = place % damaged.len();
                damaged[place] ^= change;
            }
            if let Some(cut) = cut {
                damaged.truncate(cut);
            }
            let found = from_upload(&damaged, Some("p"));
            // A container is under a MAC; a damaged PEM may still be some certificate's, with another thumbprint.
            if let (Ok(found), true) = (found, good.first() == Some(&0x30)) {
                proptest::prop_assert_eq!(found.certificates, vec![der.clone()]);
            }
        }
    }
}
