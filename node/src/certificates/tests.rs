//! Every row of what may be registered, what an upload may hold, what is issued, and what is in a package.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeSet, io::Read as _};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;
use crate::names::Thumbprint;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const DAY: i64 = 86_400_000;

type Edit = fn(&mut CertificateParams);

fn good() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "alice");
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2036, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![Purpose::ClientAuth];
    params
}

/// A self-signed certificate.
fn own(edit: Edit) -> Vec<u8> {
    with_key(&PKCS_ECDSA_P256_SHA256, edit)
}

fn with_key(algorithm: &'static SignatureAlgorithm, edit: Edit) -> Vec<u8> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = good();
    edit(&mut params);
    params.self_signed(&key).unwrap().der().to_vec()
}

/// A certificate signed by somebody else.
fn by_another(edit: Edit) -> Vec<u8> {
    let mut issuer = good();
    issuer.distinguished_name.push(DnType::CommonName, "issuer");
    let issuer = Issuer::new(issuer, KeyPair::generate().unwrap());
    let mut params = good();
    edit(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec()
}

/// A DER value taken apart, so that a test can change a piece and put it together again.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Piece(u8, Vec<u8>),
    Group(u8, Vec<Node>),
}

impl Node {
    fn read(bytes: &[u8]) -> Self {
        let (node, rest) = Self::split(bytes);
        assert!(rest.is_empty());
        node
    }

    fn split(bytes: &[u8]) -> (Self, &[u8]) {
        let (length, head) = match bytes[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            0x81 => (usize::from(bytes[2]), 3),
            0x82 => (usize::from(bytes[2]) << 8 | usize::from(bytes[3]), 4),
            other => panic!("length {other:x}"),
        };
        let (mut content, rest) = bytes[head..].split_at(length);
        if bytes[0] & 0x20 == 0 {
            return (Self::Piece(bytes[0], content.to_vec()), rest);
        }
        let mut nodes = Vec::new();
        while !content.is_empty() {
            let (node, behind) = Self::split(content);
            nodes.push(node);
            content = behind;
        }
        (Self::Group(bytes[0], nodes), rest)
    }

    fn write(&self) -> Vec<u8> {
        let (tag, content) = match self {
            Self::Piece(tag, content) => (*tag, content.clone()),
            Self::Group(tag, nodes) => (*tag, nodes.iter().flat_map(Self::write).collect()),
        };
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        let mut bytes = match length {
            [0, short @ 0..=0x7f] => vec![tag, short],
            [0, middle] => vec![tag, 0x81, middle],
            [high, low] => vec![tag, 0x82, high, low],
        };
        bytes.extend(content);
        bytes
    }

    fn at(&mut self, path: &[usize]) -> &mut Self {
        path.iter().fold(self, |node, place| match node {
            Self::Group(_, nodes) => &mut nodes[*place],
            Self::Piece(..) => panic!("no group"),
        })
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Piece(_, bytes) => bytes,
            Self::Group(..) => panic!("no piece"),
        }
    }
}

/// Places in a certificate of version 3.
const SERIAL: &[usize] = &[0, 1];
const NOT_BEFORE: &[usize] = &[0, 4, 0];
const EXTENSIONS: &[usize] = &[0, 7, 0];
const SIGNATURE: &[usize] = &[2];

fn changed(der: &[u8], path: &[usize], change: impl FnOnce(&mut Node)) -> Vec<u8> {
    let mut node = Node::read(der);
    assert_eq!(node.write(), der, "taken apart and put together it is the same");
    change(node.at(path));
    node.write()
}

fn judge(der: &[u8], usage: Usage) -> Result<(), Refused> {
    check_registrable(&parse(der)?, usage, NOW)
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/certificates/testdata");
    std::fs::read(format!("{folder}/{name}.der")).unwrap()
}

fn critical(oid: &[u64]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, vec![0x05, 0x00]);
    extension.set_criticality(true);
    extension
}

#[test]
fn keys_that_tls_can_use_are_taken_and_others_refused_by_name() {
    let unsupported = |name: &str| Err(Refused::UnsupportedKey(name.to_owned()));
    let weak = |why: &str| Err(Refused::WeakKey(why.to_owned()));
    let table = [
        (own(|_| ()), "ECDSA P-256", Ok(())),
        (with_key(&PKCS_ECDSA_P384_SHA384, |_| ()), "ECDSA P-384", Ok(())),
        (with_key(&PKCS_ED25519, |_| ()), "Ed25519", Ok(())),
        (fixture("rsa2048"), "RSA 2048", Ok(())),
        (fixture("rsa4096"), "RSA 4096", Ok(())),
        (fixture("rsa1024"), "RSA 1024", weak("RSA of 1024 bits")),
        (fixture("rsa2048-e3"), "RSA 2048", weak("RSA with exponent 3")),
        (fixture("rsa-pss"), "RSASSA-PSS", unsupported("RSASSA-PSS")),
        (fixture("p521"), "ECDSA P-521", unsupported("ECDSA P-521")),
        (fixture("secp256k1"), "ECDSA secp256k1", unsupported("ECDSA secp256k1")),
        (
            fixture("brainpool"),
            "ECDSA on curve 1.3.36.3.3.2.8.1.1.7",
            unsupported("ECDSA on curve 1.3.36.3.3.2.8.1.1.7"),
        ),
        (fixture("ed448"), "Ed448", unsupported("Ed448")),
    ];
    for (der, algorithm, expected) in table {
        assert_eq!(parse(&der).unwrap().key_algorithm, algorithm);
        assert_eq!(judge(&der, Usage::Client), expected, "{algorithm}");
    }
    let expired = Refused::Expired(Timestamp(1_798_761_600_000)).to_string();
    assert_eq!(expired, "the certificate expired at 2027-01-01T00:00:00Z; make a new one");
    let message = judge(&fixture("p521"), Usage::Client).unwrap_err().to_string();
    assert!(message.starts_with("ECDSA P-521 keys cannot be used for TLS here; use"), "{message}");
}

#[test]
fn every_row_on_dates_usages_and_extensions() {
    use Usage::{Client, Node};
    let eku = |word| Err(Refused::ExtendedKeyUsage(word));
    let table: Vec<(&str, Edit, Usage, Result<(), Refused>)> = vec![
        ("an ordinary client", |_| (), Client, Ok(())),
        ("valid from next year", |p| p.not_before = date_time_ymd(2028, 1, 1), Client, Ok(())),
        ("year 9999", |p| p.not_after = date_time_ymd(9999, 12, 31), Client, Ok(())),
        ("before 1970", |p| p.not_before = date_time_ymd(1960, 1, 1), Client, Ok(())),
        (
            "expired",
            |p| p.not_after = date_time_ymd(2027, 1, 1),
            Client,
            Err(Refused::Expired(Timestamp(1_798_761_600_000))),
        ),
        (
            "ends before it begins",
            |p| p.not_before = date_time_ymd(2040, 1, 1),
            Client,
            Err(Refused::Dates),
        ),
        (
            "a CA's",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Client,
            Err(Refused::Authority),
        ),
        ("expressly no CA's", |p| p.is_ca = IsCa::ExplicitNoCa, Client, Ok(())),
        (
            "key usage certSign only",
            |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign],
            Client,
            Err(Refused::KeyUsage),
        ),
        ("no key usage", |p| p.key_usages.clear(), Client, Ok(())),
        ("no extended key usage, client", |p| p.extended_key_usages.clear(), Client, Ok(())),
        ("no extended key usage, node", |p| p.extended_key_usages.clear(), Node, Ok(())),
        (
            "serverAuth, client",
            |p| p.extended_key_usages = vec![Purpose::ServerAuth],
            Client,
            eku("clientAuth"),
        ),
        ("serverAuth, node", |p| p.extended_key_usages = vec![Purpose::ServerAuth], Node, Ok(())),
        ("clientAuth, node", |_| (), Node, eku("serverAuth")),
        ("any, client", |p| p.extended_key_usages = vec![Purpose::Any], Client, Ok(())),
        ("any, node", |p| p.extended_key_usages = vec![Purpose::Any], Node, Ok(())),
        ("both, node", |p| p.extended_key_usages.push(Purpose::ServerAuth), Node, Ok(())),
        (
            "code signing",
            |p| p.extended_key_usages = vec![Purpose::CodeSigning],
            Client,
            eku("clientAuth"),
        ),
        (
            "unknown critical extension",
            |p| p.custom_extensions.push(critical(&[1, 3, 6, 1, 4, 1, 99_999, 1])),
            Client,
            Err(Refused::CriticalExtension("1.3.6.1.4.1.99999.1".to_owned())),
        ),
        (
            "critical certificate policies, which TLS does not understand",
            |p| {
                let policies = vec![0x30, 0x06, 0x30, 0x04, 0x06, 0x02, 0x2a, 0x03];
                let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 32], policies);
                extension.set_criticality(true);
                p.custom_extensions.push(extension);
            },
            Client,
            Err(Refused::CriticalExtension("2.5.29.32".to_owned())),
        ),
        (
            "unknown extension that is not critical",
            |p| {
                let extension =
                    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
                p.custom_extensions.push(extension);
            },
            Client,
            Ok(()),
        ),
        (
            "basic constraints that cannot be read",
            |p| {
                let extension =
                    CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x04, 0x01, 0x00]);
                p.custom_extensions.push(extension);
            },
            Client,
            Err(Refused::Extension("2.5.29.19".to_owned())),
        ),
        (
            "the same extension twice",
            |p| {
                let again = CustomExtension::from_oid_content(
                    &[2, 5, 29, 15],
                    vec![0x03, 0x02, 0x07, 0x80],
                );
                p.custom_extensions.push(again);
            },
            Client,
            Err(Refused::Extension("2.5.29.15".to_owned())),
        ),
        ("serial 0", |p| p.serial_number = Some(SerialNumber::from_slice(&[0])), Client, Ok(())),
        (
            "serial of 400 bits",
            |p| p.serial_number = Some(SerialNumber::from_slice(&[0x55; 50])),
            Client,
            Ok(()),
        ),
        ("empty subject", |p| p.distinguished_name = DistinguishedName::new(), Client, Ok(())),
    ];
    for (words, edit, usage, expected) in table {
        assert_eq!(judge(&own(edit), usage), expected, "{words}, self-signed");
        assert_eq!(judge(&by_another(edit), usage), expected, "{words}, signed by another");
    }
    assert_eq!(judge(&fixture("v1"), Client), Err(Refused::Version(1)));
}

#[test]
fn a_negative_serial_number_and_the_wrong_kind_of_time_are_taken_as_they_come() {
    let der =
        by_another(|params| params.serial_number = Some(SerialNumber::from_slice(&[0x45; 16])));
    let negative = changed(&der, SERIAL, |serial| serial.bytes()[0] |= 0x80);
    assert_eq!(judge(&negative, Usage::Client), Ok(()));
    assert!(parse(&negative).unwrap().serial_hex.starts_with("c545"));
    let general = changed(&der, NOT_BEFORE, |time| {
        *time = Node::Piece(0x18, [b"20", time.bytes().as_slice()].concat());
    });
    assert_eq!(parse(&general).unwrap().not_before, parse(&der).unwrap().not_before);
}

#[test]
fn a_signature_that_does_not_hold_is_refused_where_it_is_the_certificates_own() {
    let damage = |der: &[u8]| {
        changed(der, SIGNATURE, |bits| {
            let last = bits.bytes().len() - 1;
            bits.bytes()[last] ^= 1;
        })
    };
    assert_eq!(judge(&damage(&own(|_| ())), Usage::Client), Err(Refused::SelfSignature));
    let rsa = damage(&fixture("rsa2048"));
    assert_eq!(judge(&rsa, Usage::Client), Err(Refused::SelfSignature));
    // Somebody else's signature says nothing here: trust is registration of the exact bytes.
    assert_eq!(judge(&damage(&by_another(|_| ())), Usage::Client), Ok(()));
}

/// (r, s) and (r, n - s) are both signatures of one key over one certificate: the twin must be another identity.
#[test]
fn the_malleated_twin_of_a_certificate_has_another_thumbprint() {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];
    let der = own(|_| ());
    let twin = changed(&der, SIGNATURE, |bits| {
        let mut signature = Node::read(&bits.bytes()[1..]);
        let s = signature.at(&[1]).bytes();
        let mut wide = [0_u8; 32];
        let digits = s.strip_prefix(&[0]).unwrap_or(s);
        wide[32 - digits.len()..].copy_from_slice(digits);
        let mut borrow = 0;
        for place in (0..32).rev() {
            let difference = i16::from(ORDER[place]) - i16::from(wide[place]) - borrow;
            borrow = i16::from(difference < 0);
            wide[place] = u8::try_from(difference.rem_euclid(256)).unwrap();
        }
        *s = wide.iter().copied().skip_while(|byte| *byte == 0).collect();
        if s[0] & 0x80 != 0 {
            s.insert(0, 0);
        }
        *bits = Node::Piece(0x03, [vec![0], signature.write()].concat());
    });
    assert_eq!(judge(&twin, Usage::Client), Ok(()), "the signature of the twin holds");
    assert_ne!(Thumbprint::of(&twin), Thumbprint::of(&der));
}

#[test]
fn only_the_one_exact_encoding_is_taken() {
    let der = own(|_| ());
    assert_eq!(der[..2], [0x30, 0x82]);
    let with = |head: &[u8], tail: &[u8]| [head, &der[4..], tail].concat();
    let outer = u16::from_be_bytes([der[2], der[3]]).to_be_bytes();
    let canonical = |result: Result<Parsed, Refused>| match result {
        Err(Refused::NotCanonical(why)) => why,
        other => panic!("{other:?}"),
    };
    let long = canonical(parse(&with(&[0x30, 0x83, 0, outer[0], outer[1]], &[])));
    assert_eq!(long, "a length that is longer than need be");
    assert_eq!(canonical(parse(&with(&[0x30, 0x80], &[0, 0]))), "an indefinite length");
    assert_eq!(parse(&[der.as_slice(), &[0]].concat()), Err(Refused::TrailingBytes(1)));
    assert_eq!(parse(&[der.as_slice(), &der].concat()), Err(Refused::TrailingBytes(der.len())));
    let padded = changed(&der, SERIAL, |serial| serial.bytes().insert(0, 0));
    let padded = changed(&padded, SERIAL, |serial| serial.bytes().insert(0, 0));
    assert_eq!(canonical(parse(&padded)), "a number that is longer than need be");
    let critical = [EXTENSIONS, &[0, 1]].concat();
    let truth = changed(&der, &critical, |flag| *flag.bytes() = vec![1]);
    assert_eq!(canonical(parse(&truth)), "a boolean other than 00 and FF");
    let disguised = changed(&der, SERIAL, |serial| *serial = Node::Piece(0x1f, vec![2, 1]));
    assert_eq!(canonical(parse(&disguised)), "a tag in long form");
    let pieces = changed(&der, SIGNATURE, |bits| *bits = Node::Group(0x23, vec![bits.clone()]));
    assert_eq!(canonical(parse(&pieces)), "a string in pieces");
}

#[test]
fn sizes_and_depths_are_bounded() {
    assert_eq!(parse(&[]), Err(Refused::Empty));
    let bytes = limits::CERTIFICATE_BYTES_MAX + 1;
    let bytes_max = limits::CERTIFICATE_BYTES_MAX;
    assert_eq!(parse(&vec![0x30; bytes]), Err(Refused::TooLarge { bytes, bytes_max }));
    let mut deep = vec![0x05, 0x00];
    for _ in 0..60 {
        deep = [vec![0x30, u8::try_from(deep.len()).unwrap()], deep].concat();
    }
    assert_eq!(parse(&deep), Err(Refused::Malformed("it is nested too deep")));
    let huge = [0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00];
    assert_eq!(parse(&huge), Err(Refused::Malformed("it is cut off")));
    assert!(parse(&[0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1]).is_err());
}

#[test]
fn no_damage_to_a_certificate_is_a_panic() {
    for der in [own(|_| ()), fixture("rsa2048"), fixture("ed448"), fixture("v1")] {
        for length in 0..der.len() {
            assert!(parse(&der[..length]).is_err(), "cut at {length}");
        }
        for place in 0..der.len() {
            for change in [0x01, 0x20, 0x7f, 0x80, 0xff] {
                let mut damaged = der.clone();
                damaged[place] ^= change;
                assert_ne!(Thumbprint::of(&damaged), Thumbprint::of(&der));
                if let Ok(parsed) = parse(&damaged) {
                    let _ = check_registrable(&parsed, Usage::Client, NOW);
                }
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        let _ = parse(&bytes);
        let _ = from_upload(&bytes);
        let certificate = [vec![0x30, 0x82, 2, 0], bytes].concat();
        let _ = from_upload(&certificate);
    }
}

#[test]
fn names_are_shown_escaped_and_never_more() {
    let der = own(|params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "a\0b\u{1b}[31mc\u{202e}d\\e,f\n");
        params.distinguished_name.push(DnType::OrganizationName, "Crows + Sons");
    });
    let parsed = parse(&der).unwrap();
    let shown = r"CN=a\u{0}b\u{1b}[31mc\u{202e}d\\e\,f\u{a}, O=Crows \+ Sons";
    assert_eq!((parsed.subject.as_str(), parsed.issuer.as_str()), (shown, shown));
    assert_eq!(judge(&der, Usage::Client), Ok(()));
    assert_eq!(parsed.thumbprint, Thumbprint::of(&der));
    assert_eq!(parsed.thumbprint_sha1.len(), 40);
    assert_eq!(parsed.not_before, Timestamp(1_767_225_600_000));
}

#[test]
fn the_sha1_thumbprint_is_that_of_other_tools() {
    // As `openssl x509 -inform DER -in rsa2048.der -noout -fingerprint -sha1` prints it.
    let parsed = parse(&fixture("rsa2048")).unwrap();
    let other = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/certificates/testdata/rsa2048.fingerprints"
    ))
    .unwrap();
    let mut lines = other.lines();
    assert_eq!(Some(parsed.thumbprint_sha1.as_str()), lines.next());
    assert_eq!(Some(parsed.thumbprint.to_string().as_str()), lines.next());
    assert_eq!(Some(parsed.serial_hex.as_str()), lines.next());
}

#[test]
fn text_from_outside_cannot_move_colour_hide_or_turn() {
    let table = [
        ("plain ünïcödé 日本語", "plain ünïcödé 日本語"),
        ("a\tb\r\nc", r"a\u{9}b\u{d}\u{a}c"),
        ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
        ("\u{9b}2J", r"\u{9b}2J"),
        ("\u{200b}\u{feff}\u{2066}x\u{2069}", r"\u{200b}\u{feff}\u{2066}x\u{2069}"),
        ("back\\slash", r"back\\slash"),
        ("\u{e0041}\u{2028}", r"\u{e0041}\u{2028}"),
        ("", ""),
    ];
    for (text, shown) in table {
        assert_eq!(escape(text), shown, "{text:?}");
    }
    assert_eq!(escape(&"x".repeat(10_000)).chars().count(), 513);
}

#[test]
fn an_upload_is_one_certificate_and_no_key() {
    let der = own(|_| ());
    let other = own(|_| ());
    let key = KeyPair::generate().unwrap();
    let certificate = certificate_pem(&der);
    let plain_key = key.serialize_pem();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let windows = certificate.replace('\n', "\r\n");
    let dropped = |private_key_dropped| Ok(Upload { der: der.clone(), private_key_dropped });
    let pfx = {
        let issued = issue_ca(&request("pfx")).unwrap();
        let secret = Secret::new("pfx".to_owned());
        package_of(&issued, "pfx", &secret).remove("pfx.pfx").unwrap().1
    };
    let table: Vec<(&str, Vec<u8>, Result<Upload, Refused>)> = vec![
        ("DER", der.clone(), dropped(false)),
        ("PEM", certificate.clone().into_bytes(), dropped(false)),
        ("PEM with CRLF", windows.into_bytes(), dropped(false)),
        (
            "text before PEM",
            format!("subject=CN = alice\n\n{certificate}").into_bytes(),
            dropped(false),
        ),
        ("key and PEM", format!("{plain_key}{certificate}").into_bytes(), dropped(true)),
        ("PEM and encrypted key", format!("{certificate}{encrypted}").into_bytes(), dropped(true)),
        (
            "two",
            format!("{certificate}{}", certificate_pem(&other)).into_bytes(),
            Err(Refused::SeveralCertificates(2)),
        ),
        ("key alone", plain_key.clone().into_bytes(), Err(Refused::PrivateKey)),
        ("encrypted key alone", encrypted.as_bytes().to_vec(), Err(Refused::PrivateKey)),
        ("key in DER", key.serialize_der(), Err(Refused::PrivateKey)),
        ("PFX", pfx, Err(Refused::Pkcs12)),
        ("nothing", Vec::new(), Err(Refused::Empty)),
        ("a word", b"certificate".to_vec(), Err(Refused::NoCertificate)),
        (
            "two in DER",
            [der.clone(), other.clone()].concat(),
            Err(Refused::TrailingBytes(other.len())),
        ),
        (
            "too much",
            vec![b'x'; limits::UPLOAD_BYTES_MAX + 1],
            Err(Refused::TooLarge {
                bytes: limits::UPLOAD_BYTES_MAX + 1,
                bytes_max: limits::UPLOAD_BYTES_MAX,
            }),
        ),
    ];
    for (words, bytes, expected) in table {
        let found = from_upload(&bytes);
        assert_eq!(found, expected, "{words}");
    }
    let damaged = certificate.replacen("MII", "M!I", 1);
    assert!(from_upload(damaged.as_bytes()).is_err());
}

fn request(name: &str) -> IssueRequest {
    IssueRequest {
        common_name: name.to_owned(),
        not_before: Timestamp(NOW.0 - 7 * DAY),
        not_after: Timestamp(NOW.0 + 1_826 * DAY),
    }
}

fn authority() -> Issued {
    issue_ca(&request("Test CA")).unwrap()
}

#[test]
fn issued_certificates_may_be_registered_and_say_what_was_asked() {
    let ca = authority();
    let client = issue_client(&request("alice"), &ca.der, ca.key_pem.expose()).unwrap();
    let parsed = parse(&client.der).unwrap();
    assert_eq!(judge(&client.der, Usage::Client), Ok(()));
    assert_eq!(judge(&client.der, Usage::Node), Err(Refused::ExtendedKeyUsage("serverAuth")));
    assert_eq!((parsed.subject.as_str(), parsed.issuer.as_str()), ("CN=alice", "CN=Test CA"));
    assert_eq!(parsed.not_before, Timestamp(NOW.0 - 7 * DAY));
    assert_eq!(parsed.not_after, Timestamp(NOW.0 + 1_826 * DAY));
    assert_eq!(parsed.key_algorithm, "ECDSA P-256");
    let key = KeyPair::from_pem(client.key_pem.expose()).unwrap();
    let x509 = parse::x509(&client.der).unwrap();
    assert_eq!(x509.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    let issuer = parse::x509(&ca.der).unwrap();
    x509.verify_signature(Some(issuer.public_key())).unwrap();
    assert_eq!(judge(&ca.der, Usage::Client), Err(Refused::Authority));
    assert!(!format!("{client:?}").contains("PRIVATE"));
}

#[test]
fn a_node_certificate_holds_against_its_authority_by_name_and_address() {
    let ca = authority();
    let names = ["n1.example", "127.0.0.1", "::1"].map(str::to_owned);
    let node = issue_node(&request("n1"), &names, &ca.der, ca.key_pem.expose()).unwrap();
    assert_eq!(judge(&node.der, Usage::Node), Ok(()));
    assert_eq!(judge(&node.der, Usage::Client), Ok(()));
    let shown = parse(&node.der).unwrap().alternative_names;
    assert_eq!(shown, ["DNS:n1.example", "IP:127.0.0.1", "IP:::1"]);
    let der = CertificateDer::from(node.der.as_slice());
    let leaf = webpki::EndEntityCert::try_from(&der).unwrap();
    let root = CertificateDer::from(ca.der.as_slice());
    let anchor = webpki::anchor_from_trusted_cert(&root).unwrap();
    for usage in [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()] {
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(1_800_000_000_000));
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        leaf.verify_for_usage(
            algorithms,
            std::slice::from_ref(&anchor),
            &[],
            at,
            usage,
            None,
            None,
        )
        .unwrap();
    }
    for name in names {
        let name = ServerName::try_from(name).unwrap();
        leaf.verify_is_valid_for_subject_name(&name).unwrap();
    }
    let stranger = ServerName::try_from("n2.example").unwrap();
    assert!(leaf.verify_is_valid_for_subject_name(&stranger).is_err());
}

#[test]
fn serial_numbers_are_long_positive_and_never_the_same() {
    let ca = authority();
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let client = issue_client(&request("alice"), &ca.der, ca.key_pem.expose()).unwrap();
        let serial = parse(&client.der).unwrap().serial_hex;
        assert_eq!(serial.len(), 32, "{serial}");
        assert!(('4'..='7').contains(&serial.chars().next().unwrap()), "{serial}");
        assert!(seen.insert(serial));
    }
}

#[test]
fn a_client_named_like_its_issuer_is_not_taken_for_self_signed() {
    let ca = authority();
    let namesake = issue_client(&request("Test CA"), &ca.der, ca.key_pem.expose()).unwrap();
    assert_eq!(judge(&namesake.der, Usage::Client), Ok(()));
    // A node certificate that is no CA may sign as well: registration is what counts.
    let names = ["n1.example".to_owned()];
    let node = issue_node(&request("n1"), &names, &ca.der, ca.key_pem.expose()).unwrap();
    let client = issue_client(&request("bob"), &node.der, node.key_pem.expose()).unwrap();
    assert_eq!(judge(&client.der, Usage::Client), Ok(()));
    assert_eq!(parse(&client.der).unwrap().issuer, "CN=n1");
}

#[test]
fn what_cannot_be_issued_is_refused_with_the_reason() {
    let ca = authority();
    let other = authority();
    let issue = |request: IssueRequest, key: &str| {
        issue_client(&request, &ca.der, key).map(|_| ()).unwrap_err().to_string()
    };
    let key = ca.key_pem.expose();
    let table = [
        (issue(request(" "), key), "visible characters"),
        (issue(request("a\nb"), key), "visible characters"),
        (issue(IssueRequest { not_after: Timestamp(0), ..request("a") }, key), "end before"),
        (issue(IssueRequest { not_before: Timestamp(-DAY), ..request("a") }, key), "1970 and 9999"),
        (
            issue(IssueRequest { not_after: Timestamp(i64::MAX), ..request("a") }, key),
            "1970 and 9999",
        ),
        (issue(request("a"), other.key_pem.expose()), "do not belong together"),
        (issue(request("a"), "no key"), "not in PEM"),
        (issue(request("a"), &certificate_pem(&ca.der)), "not in PEM"),
    ];
    for (error, part) in table {
        assert!(error.contains(part), "{error}");
    }
    let names = ["not a name".to_owned()];
    for names in [names.as_slice(), &[], &vec!["n.example".to_owned(); 101]] {
        assert!(issue_node(&request("n1"), names, &ca.der, key).is_err(), "{names:?}");
    }
    let long = issue_client(&request(&"é".repeat(128)), &ca.der, key).unwrap();
    assert_eq!(parse(&long.der).unwrap().subject, format!("CN={}", "é".repeat(64)));
}

/// The entries of a package: mode and bytes by name.
fn package_of(
    issued: &Issued,
    name: &str,
    password: &Secret,
) -> std::collections::BTreeMap<String, (u32, Vec<u8>)> {
    let addresses = ["n1.example:7443", "[::1]:7443"].map(str::to_owned);
    let bytes = package(&PackageContents {
        name,
        der: &issued.der,
        key_pem: &issued.key_pem,
        ca_pem: "-----BEGIN CERTIFICATE-----\n",
        password,
        addresses: &addresses,
        node_thumbprints: &[Thumbprint::of(b"node")],
        cluster_id: "0199-cluster",
    })
    .unwrap();
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    (0..archive.len())
        .map(|place| {
            let mut entry = archive.by_index(place).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.name().to_owned(), (entry.unix_mode().unwrap(), content))
        })
        .collect()
}

#[test]
fn a_package_holds_all_that_its_holder_needs_for_their_eyes_only() {
    let ca = authority();
    let client = issue_client(&request("alice"), &ca.der, ca.key_pem.expose()).unwrap();
    let secret = password().unwrap();
    let entries = package_of(&client, "alice", &secret);
    let names: Vec<_> = entries.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["README.md", "alice.crt", "alice.key", "alice.pfx", "ca.crt", "context.toml"]
    );
    assert!(entries.values().all(|(mode, _)| mode & 0o777 == 0o600), "{entries:?}");
    let text = |name: &str| String::from_utf8(entries[name].1.clone()).unwrap();

    assert_eq!(from_upload(text("alice.crt").as_bytes()).unwrap().der, client.der);
    assert_eq!(text("alice.key"), client.key_pem.expose());
    let context: toml::Table = toml::from_str(&text("context.toml")).unwrap();
    assert_eq!(context["name"].as_str(), Some("alice"));
    assert_eq!(context["certificate"].as_str(), Some("alice.crt"));
    assert_eq!(context["key"].as_str(), Some("alice.key"));
    assert_eq!(context["ca"].as_str(), Some("ca.crt"));
    assert_eq!(context["cluster_id"].as_str(), Some("0199-cluster"));
    assert_eq!(
        context["thumbprint"].as_str(),
        Some(Thumbprint::of(&client.der).to_string().as_str())
    );
    assert_eq!(context["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(context.len(), 7, "nothing else stands in it");
    let readme = text("README.md");
    for part in ["## Browser", "## curl", "## Python", "## Rust", "n1.example:7443", "alice.pfx"] {
        assert!(readme.contains(part), "{part}");
    }
    assert!(!readme.contains(secret.expose()), "the password travels apart");
}

#[test]
fn the_pfx_opens_with_its_password_alone_and_holds_leaf_and_key() {
    use p12_keystore::{KeyStore, Pkcs12ImportPolicy::Strict};
    let ca = authority();
    let client = issue_client(&request("alice"), &ca.der, ca.key_pem.expose()).unwrap();
    let secret = password().unwrap();
    let pfx = package_of(&client, "alice", &secret).remove("alice.pfx").unwrap().1;
    assert!(KeyStore::from_pkcs12(&pfx, "wrong", Strict).is_err());
    assert!(KeyStore::from_pkcs12(&pfx, "", Strict).is_err());
    let store = KeyStore::from_pkcs12(&pfx, secret.expose(), Strict).unwrap();
    let (alias, chain) = store.private_key_chain().unwrap();
    assert_eq!(alias, "alice");
    assert_eq!(chain.certs().len(), 1, "no chain means anything here");
    assert_eq!(chain.certs()[0].as_der(), client.der);
    let key = KeyPair::from_pem(client.key_pem.expose()).unwrap();
    assert_eq!(chain.key().as_der(), key.serialized_der());
    let plain = key.serialized_der();
    assert!(!pfx.windows(plain.len()).any(|window| window == plain), "the key is encrypted");
}

#[test]
fn no_name_becomes_a_path_a_device_or_another_file_of_the_package() {
    let long = "x".repeat(500);
    let table = [
        ("alice", "alice"),
        ("Alice Crow (laptop)", "Alice-Crow-laptop"),
        ("../../etc/passwd", "etc-passwd"),
        ("..\\..\\windows", "windows"),
        ("/root/.ssh/id", "root-ssh-id"),
        ("C:\\x", "C-x"),
        ("..", "certificate"),
        (".", "certificate"),
        ("", "certificate"),
        ("日本語", "certificate"),
        ("jürgen", "j-rgen"),
        ("ca", "ca-client"),
        ("CA", "ca-client"),
        ("con", "client-con"),
        ("COM1.x", "client-COM1.x"),
        ("a\0b\nc", "a-b-c"),
        ("-rf", "rf"),
        (long.as_str(), &long[..64]),
    ];
    for (name, stem) in table {
        assert_eq!(file_stem(name), stem, "{name:?}");
    }
    let ca = authority();
    let entries = package_of(&ca, "../../ca", &Secret::new("p".to_owned()));
    assert_eq!(entries.len(), 6);
    for name in entries.keys() {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        assert!(name.chars().all(plain) && !name.contains(".."), "{name}");
    }
}

#[test]
fn an_address_that_a_shell_would_read_is_refused() {
    let ca = authority();
    let secret = Secret::new("p".to_owned());
    for address in
        ["n1.example", "n1:x", ":7443", "a b:1", "$(id):1", "a`b:1", "-o:1", "n1:70000", "a\nb:1"]
    {
        let addresses = [address.to_owned()];
        let refused = package(&PackageContents {
            name: "alice",
            der: &ca.der,
            key_pem: &ca.key_pem,
            ca_pem: "",
            password: &secret,
            addresses: &addresses,
            node_thumbprints: &[],
            cluster_id: "",
        });
        assert!(matches!(refused, Err(Error::Address(_))), "{address}");
    }
}

#[test]
fn passwords_are_random_and_readable() {
    let passwords: BTreeSet<_> =
        (0..100).map(|_| password().unwrap().expose().to_owned()).collect();
    assert_eq!(passwords.len(), 100);
    for password in passwords {
        let groups: Vec<_> = password.split('-').collect();
        assert_eq!(groups.len(), 6, "{password}");
        assert!(groups.iter().all(|group| group.len() == 4), "{password}");
        assert!(!password.contains(['l', 'o', '0', '1']), "{password}");
    }
    assert_eq!(format!("{:?}", password().unwrap()), "Secret");
}

#[test]
fn a_node_certificate_comes_with_its_key_from_pem_or_pkcs12() {
    let ca = authority();
    let names = ["n1.example".to_owned(), "127.0.0.1".to_owned()];
    let node = issue_node(&request("n1"), &names, &ca.der, ca.key_pem.expose()).unwrap();
    let key = KeyPair::from_pem(node.key_pem.expose()).unwrap();
    let both = format!("{}{}", node.key_pem.expose(), certificate_pem(&node.der));
    let found = server_identity(both.as_bytes(), "").unwrap();
    assert_eq!(
        (&found.chain, found.key.as_slice()),
        (&vec![node.der.clone()], key.serialized_der())
    );
    let secret = password().unwrap();
    let pfx = package_of(&node, "n1", &secret).remove("n1.pfx").unwrap().1;
    let found = server_identity(&pfx, secret.expose()).unwrap();
    assert_eq!(
        (&found.chain, found.key.as_slice()),
        (&vec![node.der.clone()], key.serialized_der())
    );
    assert!(server_identity(&pfx, "another").is_err());
    let certificate = certificate_pem(&node.der);
    let twice = format!("{both}{}", node.key_pem.expose());
    for wrong in [certificate.as_str(), node.key_pem.expose(), &twice, "", "nothing"] {
        assert!(server_identity(wrong.as_bytes(), "").is_err(), "{wrong}");
    }
    for (host, covered) in [
        ("n1.example", true),
        ("N1.example", true),
        ("127.0.0.1", true),
        ("n2.example", false),
        ("127.0.0.2", false),
        ("::1", false),
        ("", false),
    ] {
        assert_eq!(covers_host(&node.der, host), covered, "{host}");
    }
    assert!(!covers_host(b"none", "n1.example"));
}
