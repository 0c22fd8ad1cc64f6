//! New certificates: for clients, for nodes, and the CA that signs them where there is none.
//!
//! ECDSA P-256, a random serial number of 16 bytes (RFC 5280 section 4.1.2.2 allows 159), usages as narrow as the
//! purpose. Nothing else stands in them: clearance and grants live in the registry.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

use crate::{
    certificates::{Error, Secret, SigningRequest, parse::x509, pem},
    limits,
    names::Timestamp,
};

/// Longest common name (RFC 5280, ub-common-name); longer names are cut, because nothing depends on them.
const COMMON_NAME_CHARS_MAX: usize = 64;
/// Last second of the year 9999, the last that X.509 can write.
const LAST_SECOND: i64 = 253_402_300_799;

/// What stands in a new certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The common name; cut after 64 characters.
    pub common_name: String,
    /// First moment of validity; a week back makes up for clocks that are behind.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
}

/// A new certificate and its key.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub der: Vec<u8>,
    /// Its private key, PKCS#8 in PEM.
    pub key_pem: Secret,
}

/// Issues a client certificate: digitalSignature, clientAuth. The issuer need not be a CA: registration is what counts.
///
/// # Errors
/// Names or dates that cannot stand in a certificate, an issuer that cannot sign, or no randomness.
pub fn issue_client(
    request: &IssueRequest,
    issuer_der: &[u8],
    issuer_key_pem: &str,
) -> Result<Issued, Error> {
    signed(client_params(request)?, &issuer(issuer_der, issuer_key_pem)?)
}

/// Issues a client certificate over the key of a signing request. Nothing else of the signing request is taken over.
///
/// # Errors
/// As [`issue_client`].
pub fn issue_for_request(
    request: &IssueRequest,
    signing_request: &SigningRequest,
    issuer_der: &[u8],
    issuer_key_pem: &str,
) -> Result<Vec<u8>, Error> {
    let key = SubjectPublicKeyInfo::from_der(signing_request.public_key()).map_err(Error::Issue)?;
    let issuer = issuer(issuer_der, issuer_key_pem)?;
    let certificate = client_params(request)?.signed_by(&key, &issuer).map_err(Error::Issue)?;
    Ok(certificate.der().to_vec())
}

fn client_params(request: &IssueRequest) -> Result<CertificateParams, Error> {
    let mut params = params(request, Vec::new())?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Issues a node certificate for these host names and addresses: digitalSignature, serverAuth and clientAuth.
///
/// # Errors
/// As [`issue_client`]; also a name that is neither a DNS name nor an address, or none or too many.
pub fn issue_node(
    request: &IssueRequest,
    names: &[String],
    issuer_der: &[u8],
    issuer_key_pem: &str,
) -> Result<Issued, Error> {
    if names.is_empty() || names.len() > limits::NODE_CERTIFICATE_NAMES_MAX {
        let max = limits::NODE_CERTIFICATE_NAMES_MAX;
        return Err(Error::Request(format!("a node certificate takes 1 to {max} host names")));
    }
    names.iter().try_for_each(|name| host(name))?;
    let mut params = params(request, names.to_vec())?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    signed(params, &issuer(issuer_der, issuer_key_pem)?)
}

/// Issues a self-signed CA certificate that may sign leaves and nothing below: keyCertSign, cRLSign, path length 0.
///
/// # Errors
/// Names or dates that cannot stand in a certificate, or no randomness.
pub fn issue_ca(request: &IssueRequest) -> Result<Issued, Error> {
    let mut params = params(request, Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = false;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = new_key()?;
    let certificate = params.self_signed(&key).map_err(Error::Issue)?;
    Ok(Issued { der: certificate.der().to_vec(), key_pem: key_pem(&key) })
}

fn params(request: &IssueRequest, names: Vec<String>) -> Result<CertificateParams, Error> {
    let request_error = |why: rcgen::Error| Error::Request(why.to_string());
    let mut params = CertificateParams::new(names).map_err(request_error)?;
    params.distinguished_name = common_name(&request.common_name)?;
    if request.not_after <= request.not_before {
        return Err(Error::Request("it would end before it begins".to_owned()));
    }
    // rcgen takes a type of a crate that is not ours to name, so a date is a length of time after 1970.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_1970(request.not_before)?;
    params.not_after = epoch + since_1970(request.not_after)?;
    params.serial_number = Some(serial()?);
    // Key identifiers tell a leaf from a self-signed certificate of the same name.
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A DNS name, one with a wildcard as its first label, or an address.
fn host(name: &str) -> Result<(), Error> {
    let plain = name.strip_prefix("*.").unwrap_or(name);
    match ServerName::try_from(plain) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Request(format!("{name:?} is neither a host name nor an address"))),
    }
}

fn common_name(name: &str) -> Result<DistinguishedName, Error> {
    let name: String = name.trim().chars().take(COMMON_NAME_CHARS_MAX).collect();
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Error::Request("a common name must have visible characters only".to_owned()));
    }
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    Ok(distinguished)
}

fn since_1970(at: Timestamp) -> Result<Duration, Error> {
    let seconds = at.0.div_euclid(1_000);
    if !(0..=LAST_SECOND).contains(&seconds) {
        return Err(Error::Request("its dates must lie between 1970 and 9999".to_owned()));
    }
    Ok(Duration::from_secs(seconds.unsigned_abs()))
}

fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    // Positive, not zero, and of one length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Issue)
}

fn key_pem(key: &KeyPair) -> Secret {
    pem("PRIVATE KEY", key.serialized_der())
}

fn signed(params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Issued, Error> {
    let key = new_key()?;
    let certificate = params.signed_by(&key, issuer).map_err(Error::Issue)?;
    Ok(Issued { der: certificate.der().to_vec(), key_pem: key_pem(&key) })
}

/// The issuer, once certificate and key are known to belong together.
fn issuer(der: &[u8], key_pem: &str) -> Result<Issuer<'static, KeyPair>, Error> {
    let because = |why: &str| Error::Issuer(why.to_owned());
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| because("its private key is not in PEM, or is encrypted"))?;
    let key = KeyPair::try_from(&key)
        .map_err(|_| because("its private key is damaged or of an unsupported kind"))?;
    let certificate = x509(der).map_err(|why| Error::Issuer(why.to_string()))?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(because("its certificate and its private key do not belong together"));
    }
    Issuer::from_ca_cert_der(&CertificateDer::from(der), key)
        .map_err(|why| Error::Issuer(why.to_string()))
}
