//! Whether a certificate may be registered: what would fail or mislead later is refused now, with the reason.

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::{ExtendedKeyUsage, ParsedExtension},
};

use crate::{
    certificates::{
        Parsed, Refused,
        parse::{Key, x509},
    },
    names::Timestamp,
};

/// Largest RSA modulus that the TLS library takes.
const RSA_BITS_MAX: usize = 8_192;

/// What a certificate is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A client proves itself with it.
    Client,
    /// A node serves with it. As a client of its peers a node is known by its thumbprint, whatever the usage says.
    Node,
}

/// Checks that a certificate may be registered at this moment.
///
/// Accepted keys: ECDSA P-256 and P-384, Ed25519, RSA of 2048 to 8192 bits with an exponent of 65537 or more.
/// Serial numbers, names and far dates are taken as they come: nothing depends on them.
///
/// # Errors
/// The first of: version, key, dates, CA, key usage, extended key usage, critical extensions, self-signature, and
/// what the TLS library itself cannot read.
pub fn check_registrable(parsed: &Parsed, usage: Usage, at: Timestamp) -> Result<(), Refused> {
    let x509 = x509(&parsed.der)?;
    let version = x509.version().0;
    if version != 2 {
        return Err(Refused::Version(version.saturating_add(1)));
    }
    check_key(&Key::of(x509.public_key()))?;
    dates(parsed, at)?;
    extensions(&x509)?;
    usages(&x509, usage)?;
    self_signature(&x509)?;
    let der = CertificateDer::from(parsed.der.as_slice());
    webpki::EndEntityCert::try_from(&der).map_err(|why| Refused::Tls(why.to_string()))?;
    Ok(())
}

/// Checks that a key protects, and that TLS connections can use it.
pub(super) fn check_key(key: &Key) -> Result<(), Refused> {
    match key {
        Key::P256 | Key::P384 | Key::Ed25519 => Ok(()),
        Key::Rsa { bits, .. } if *bits < 2_048 => {
            Err(Refused::WeakKey(format!("RSA of {bits} bits")))
        }
        Key::Rsa { bits, .. } if *bits > RSA_BITS_MAX => {
            Err(Refused::UnsupportedKey(format!("RSA {bits}")))
        }
        Key::Rsa { exponent: Some(e), .. } if *e < 65_537 || e % 2 == 0 => {
            Err(Refused::WeakKey(format!("RSA with exponent {e}")))
        }
        Key::Rsa { exponent: Some(e), .. } if *e < 1 << 33 => Ok(()),
        Key::Rsa { .. } => Err(Refused::MalformedKey("the RSA exponent is out of range")),
        Key::Malformed { why, .. } => Err(Refused::MalformedKey(why)),
        Key::Other(name) => Err(Refused::UnsupportedKey(name.clone())),
    }
}

fn dates(parsed: &Parsed, at: Timestamp) -> Result<(), Refused> {
    if parsed.not_after < parsed.not_before {
        Err(Refused::Dates)
    } else if parsed.not_after < at {
        Err(Refused::Expired(parsed.not_after))
    } else {
        Ok(())
    }
}

/// No extension twice, none unreadable, none critical that the handshake would not understand.
fn extensions(x509: &X509Certificate<'_>) -> Result<(), Refused> {
    let all = x509.extensions();
    for (place, extension) in all.iter().enumerate() {
        let oid = extension.oid.to_id_string();
        if all.iter().take(place).any(|earlier| earlier.oid == extension.oid) {
            return Err(Refused::Extension(oid));
        }
        if extension.parsed_extension().error().is_some() {
            return Err(Refused::Extension(oid));
        }
        // Key usage, alternative names, basic constraints, name constraints, CRL points, extended key usage.
        let understood = ["15", "17", "19", "30", "31", "37"];
        let known = oid.strip_prefix("2.5.29.").is_some_and(|last| understood.contains(&last));
        if extension.critical && !known {
            return Err(Refused::CriticalExtension(oid));
        }
    }
    Ok(())
}

fn usages(x509: &X509Certificate<'_>, usage: Usage) -> Result<(), Refused> {
    let unreadable = |_: X509Error| Refused::Extension("2.5.29.15, 19 or 37".to_owned());
    if x509.basic_constraints().map_err(unreadable)?.is_some_and(|found| found.value.ca) {
        return Err(Refused::Authority);
    }
    let key_usage = x509.key_usage().map_err(unreadable)?;
    if key_usage.is_some_and(|found| !found.value.digital_signature()) {
        return Err(Refused::KeyUsage);
    }
    let extended = x509.extended_key_usage().map_err(unreadable)?;
    extended.map_or(Ok(()), |found| purpose(found.value, usage))
}

fn purpose(extended: &ExtendedKeyUsage<'_>, usage: Usage) -> Result<(), Refused> {
    let (named, word) = match usage {
        Usage::Client => (extended.client_auth, "clientAuth"),
        Usage::Node => (extended.server_auth, "serverAuth"),
    };
    if named || extended.any { Ok(()) } else { Err(Refused::ExtendedKeyUsage(word)) }
}

/// A certificate that names itself as its issuer must hold against its own key, or the file is damaged.
///
/// Subject and issuer may carry one name by chance; then the key identifiers differ, and nothing is checked: a
/// signature by somebody else means nothing here, because trust comes from registration alone.
fn self_signature(x509: &X509Certificate<'_>) -> Result<(), Refused> {
    if x509.subject().as_raw() != x509.issuer().as_raw() || signed_by_another(x509) {
        return Ok(());
    }
    match x509.verify_signature(None) {
        Ok(()) => Ok(()),
        Err(X509Error::SignatureUnsupportedAlgorithm) => Err(Refused::Tls(
            "it is self-signed with an algorithm that is not supported".to_owned(),
        )),
        Err(_) => Err(Refused::SelfSignature),
    }
}

fn signed_by_another(x509: &X509Certificate<'_>) -> bool {
    let mut issuers = None;
    let mut own = None;
    for extension in x509.iter_extensions() {
        if let ParsedExtension::AuthorityKeyIdentifier(found) = extension.parsed_extension() {
            issuers = found.key_identifier.as_ref().map(|id| id.0);
        }
        if let ParsedExtension::SubjectKeyIdentifier(found) = extension.parsed_extension() {
            own = Some(found.0);
        }
    }
    matches!((issuers, own), (Some(issuers), Some(own)) if issuers != own)
}
