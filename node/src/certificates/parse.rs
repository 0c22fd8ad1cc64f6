//! From bytes to what is shown and stored of a certificate. Structure only; whether it may be registered is asked
//! elsewhere.

use sha1::{Digest as _, Sha1};
use x509_parser::{
    asn1_rs::{BmpString, Tag},
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::Oid,
    prelude::FromDer as _,
    x509::{AttributeTypeAndValue, SubjectPublicKeyInfo, X509Name},
};

use crate::{
    certificates::{Refused, bounded_certificate, der, display::push_escaped, escape},
    names::{Thumbprint, Timestamp},
};

/// Alternative names that are shown.
const NAMES_SHOWN_MAX: usize = 32;
/// Bytes of a serial number that are shown.
const SERIAL_SHOWN_BYTES_MAX: usize = 64;

/// A certificate as it is stored and shown. All text is escaped and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// SHA-256 of the DER: the identity.
    pub thumbprint: Thumbprint,
    /// SHA-1 of the DER in hex, for comparison with other tools; never an identity.
    pub thumbprint_sha1: String,
    /// The exact bytes.
    pub der: Vec<u8>,
    /// The subject in the style of RFC 4514, in the certificate's order.
    pub subject: String,
    /// The issuer, in the same style.
    pub issuer: String,
    /// The serial number in hex.
    pub serial_hex: String,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// Such as "ECDSA P-256" or "RSA 2048".
    pub key_algorithm: String,
    /// Alternative names of the subject, such as "DNS:n1.example"; at most 32.
    pub alternative_names: Vec<String>,
}

/// Parses one certificate in DER.
///
/// # Errors
/// What is empty, too large, no certificate, not canonical, or followed by other bytes.
pub fn parse(der: &[u8]) -> Result<Parsed, Refused> {
    let x509 = x509(der)?;
    Ok(Parsed {
        thumbprint: Thumbprint::of(der),
        thumbprint_sha1: hex::encode(Sha1::digest(der)),
        der: der.to_vec(),
        subject: name(x509.subject()),
        issuer: name(x509.issuer()),
        serial_hex: serial(x509.raw_serial()),
        not_before: milliseconds(x509.validity().not_before.timestamp()),
        not_after: milliseconds(x509.validity().not_after.timestamp()),
        key_algorithm: Key::of(x509.public_key()).to_string(),
        alternative_names: alternative_names(&x509),
    })
}

/// The certificate as x509-parser sees it, once the encoding is known to be the exact one.
pub(super) fn x509(bytes: &[u8]) -> Result<X509Certificate<'_>, Refused> {
    bounded_certificate(bytes)?;
    der::check(bytes)?;
    let (rest, x509) = X509Certificate::from_der(bytes)
        .map_err(|_| Refused::Malformed("its fields are not those of a certificate"))?;
    if rest.is_empty() { Ok(x509) } else { Err(Refused::TrailingBytes(rest.len())) }
}

fn milliseconds(seconds: i64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1_000))
}

fn serial(bytes: &[u8]) -> String {
    let shown = bytes.get(..SERIAL_SHOWN_BYTES_MAX);
    shown.map_or_else(|| hex::encode(bytes), |shown| hex::encode(shown) + "…")
}

fn name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for rdn in name.iter() {
        for (place, attribute) in rdn.iter().enumerate() {
            text.push_str(match (text.is_empty(), place) {
                (true, _) => "",
                (false, 0) => ", ",
                (false, _) => " + ",
            });
            push_attribute(&mut text, attribute);
        }
        if text.len() > 2_048 {
            text.push('…');
            break;
        }
    }
    text
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    text.push_str(&attribute_name(attribute.attr_type()));
    text.push('=');
    let Some(value) = attribute_text(attribute) else {
        let bytes = attribute.as_slice();
        text.push('#');
        text.push_str(&hex::encode(bytes.get(..64).unwrap_or(bytes)));
        return;
    };
    for (place, c) in value.chars().enumerate() {
        if place == 256 {
            text.push('…');
            break;
        }
        if matches!(c, ',' | '+' | '"' | '<' | '>' | ';' | '=') {
            text.push('\\');
            text.push(c);
        } else {
            push_escaped(text, c);
        }
    }
}

fn attribute_text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    if value.tag() == Tag::BmpString {
        return BmpString::try_from(value.clone()).ok().map(|text| text.string());
    }
    if let Ok(text) = attribute.as_str() {
        return Some(text.to_owned());
    }
    // The old eight-bit strings: shown where they happen to be ASCII.
    let old = [Tag::T61String, Tag::VisibleString, Tag::GeneralString].contains(&value.tag());
    let text = std::str::from_utf8(attribute.as_slice()).ok()?;
    (old && text.is_ascii()).then(|| text.to_owned())
}

fn attribute_name(oid: &Oid<'_>) -> String {
    let dotted = oid.to_id_string();
    let known = match dotted.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return dotted,
    };
    known.to_owned()
}

fn alternative_names(x509: &X509Certificate<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for extension in x509.iter_extensions() {
        if let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() {
            let shown = found.general_names.iter().map(general_name);
            names.extend(shown.take(NAMES_SHOWN_MAX - names.len()));
        }
    }
    names
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{}", escape(name)),
        GeneralName::RFC822Name(name) => format!("email:{}", escape(name)),
        GeneralName::URI(name) => format!("URI:{}", escape(name)),
        GeneralName::IPAddress(bytes) => address(bytes),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => "other".to_owned(),
    }
}

fn address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return format!("IP:{}", std::net::Ipv4Addr::from(v4));
    }
    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        return format!("IP:{}", std::net::Ipv6Addr::from(v6));
    }
    "IP:malformed".to_owned()
}

/// A public key, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    P256,
    P384,
    Ed25519,
    /// Bits of the modulus, and the exponent where it fits.
    Rsa {
        bits: usize,
        exponent: Option<u64>,
    },
    /// The right algorithm, but no key of it.
    Malformed {
        algorithm: &'static str,
        why: &'static str,
    },
    /// Any other, by name or object identifier.
    Other(String),
}

impl Key {
    pub(super) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        let algorithm = spki.algorithm.oid().to_id_string();
        match algorithm.as_str() {
            "1.2.840.113549.1.1.1" => rsa(spki),
            "1.2.840.10045.2.1" => elliptic(spki),
            "1.3.101.112" if spki.subject_public_key.data.len() == 32 => Self::Ed25519,
            "1.3.101.112" => Self::Malformed { algorithm: "Ed25519", why: "it must have 32 bytes" },
            "1.3.101.113" => Self::Other("Ed448".to_owned()),
            "1.2.840.113549.1.1.10" => Self::Other("RSASSA-PSS".to_owned()),
            "1.2.840.10040.4.1" => Self::Other("DSA".to_owned()),
            _ => Self::Other(format!("algorithm {algorithm}")),
        }
    }
}

fn elliptic(spki: &SubjectPublicKeyInfo<'_>) -> Key {
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    let Some(curve) = curve.map(|oid| oid.to_id_string()) else {
        return Key::Other("ECDSA without a named curve".to_owned());
    };
    let (key, algorithm, bytes) = match curve.as_str() {
        "1.2.840.10045.3.1.7" => (Key::P256, "ECDSA P-256", 65),
        "1.3.132.0.34" => (Key::P384, "ECDSA P-384", 97),
        "1.3.132.0.35" => return Key::Other("ECDSA P-521".to_owned()),
        "1.3.132.0.10" => return Key::Other("ECDSA secp256k1".to_owned()),
        _ => return Key::Other(format!("ECDSA on curve {curve}")),
    };
    let point = spki.subject_public_key.data.as_ref();
    if point.len() == bytes && point.first() == Some(&4) {
        key
    } else {
        Key::Malformed { algorithm, why: "it must be an uncompressed point of its curve" }
    }
}

fn rsa(spki: &SubjectPublicKeyInfo<'_>) -> Key {
    let Ok(x509_parser::public_key::PublicKey::RSA(key)) = spki.parsed() else {
        return Key::Malformed { algorithm: "RSA", why: "it must be modulus and exponent" };
    };
    let modulus = key.modulus;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let bits = modulus
        .get(zeros)
        .map_or(0, |first| (modulus.len() - zeros) * 8 - first.leading_zeros() as usize);
    Key::Rsa { bits, exponent: key.try_exponent().ok() }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa { bits, .. } => write!(f, "RSA {bits}"),
            Self::Malformed { algorithm, .. } => write!(f, "{algorithm} (malformed)"),
            Self::Other(name) => f.write_str(name),
        }
    }
}
