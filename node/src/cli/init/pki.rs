//! The certificates that `init`, `bootstrap` and `dev` make on this machine: ECDSA P-256, random serials.

use std::{io::Write as _, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rookery_client::context::{CONTEXT_FILE, ContextFile};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::super::{Failed, Result};
use crate::names::Thumbprint;

/// How long the CA and the certificates of nodes are valid.
const NODE_YEARS: i16 = 10;
/// How long the certificate of the first Cluster Admin is valid.
const ADMIN_YEARS: i16 = 5;

/// A certificate with its key.
pub(in crate::cli) struct Made {
    /// The certificate.
    pub(in crate::cli) der: Vec<u8>,
    /// The certificate in PEM.
    pub(in crate::cli) certificate_pem: String,
    /// The private key in PEM (PKCS#8).
    pub(in crate::cli) key_pem: Zeroizing<String>,
}

fn failed(error: rcgen::Error) -> Failed {
    Failed::unexpected(format!("making a certificate: {error}"))
}

/// A new CA.
pub(in crate::cli) fn authority() -> Result<Made> {
    let mut params = params("Rookery CA", &[], NODE_YEARS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    self_signed(&params)
}

/// A certificate for a node, good for these hosts.
pub(in crate::cli) fn node(name: &str, hosts: &[String], ca: &Made) -> Result<Made> {
    let mut params = params(name, hosts, NODE_YEARS)?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    signed(&params, ca)
}

/// A certificate for a client, signed by the CA. What it may do is registered, not signed.
pub(in crate::cli) fn client(name: &str, ca: &Made) -> Result<Made> {
    signed(&client_params(name)?, ca)
}

/// A self-signed certificate for a Cluster Admin, for a node whose CA key is elsewhere.
pub(in crate::cli) fn administrator(name: &str) -> Result<Made> {
    self_signed(&client_params(name)?)
}

fn client_params(name: &str) -> Result<CertificateParams> {
    let mut params = params(name, &[], ADMIN_YEARS)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(name: &str, hosts: &[String], years: i16) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.to_vec()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let date = |date: jiff::civil::Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    let later = jiff::Span::new().years(years);
    let yesterday = today.yesterday().map_err(|e| Failed::unexpected(e.to_string()))?;
    params.not_before = date(yesterday);
    params.not_after =
        date(today.checked_add(later).map_err(|e| Failed::unexpected(e.to_string()))?);
    let mut serial = [0_u8; 16];
    getrandom::fill(&mut serial).map_err(|e| Failed::unexpected(format!("no randomness: {e}")))?;
    serial[0] = serial[0] & 0x7f | 0x40; // Positive, and always 16 bytes long (RFC 5280, 4.1.2.2).
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn self_signed(params: &CertificateParams) -> Result<Made> {
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(made(&certificate, &key))
}

fn signed(params: &CertificateParams, ca: &Made) -> Result<Made> {
    let ca_key = KeyPair::from_pem(&ca.key_pem).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate_pem, ca_key).map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok(made(&certificate, &key))
}

fn made(certificate: &rcgen::Certificate, key: &KeyPair) -> Made {
    Made {
        der: certificate.der().to_vec(),
        certificate_pem: certificate.pem(),
        key_pem: Zeroizing::new(key.serialize_pem()),
    }
}

/// Reads a certificate and its key from PEM files.
pub(in crate::cli) fn load(certificate: &Path, key: &Path) -> Result<Made> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Failed::file(path, &e));
    Ok(Made {
        der: self::certificate(certificate)?,
        certificate_pem: read(certificate)?,
        key_pem: Zeroizing::new(read(key)?),
    })
}

/// The DER of the first certificate of a PEM file.
pub(in crate::cli) fn certificate(path: &Path) -> Result<Vec<u8>> {
    let pem = std::fs::read(path).map_err(|e| Failed::file(path, &e))?;
    let der = CertificateDer::from_pem_slice(&pem)
        .map_err(|e| Failed::usage(format!("{}: {e}", path.display())))?;
    Ok(der.to_vec())
}

/// A client package.
pub(in crate::cli) struct Package {
    /// The zip file.
    pub(in crate::cli) zip: Zeroizing<Vec<u8>>,
    /// The password of the PFX in it; empty where there is none.
    pub(in crate::cli) password: String,
}

/// A package for a client: certificate, key, what servers are verified with, and `context.toml`.
pub(in crate::cli) fn package(
    name: &str,
    made: &Made,
    ca_pem: &[u8],
    addresses: Vec<String>,
    cluster_id: &str,
) -> Result<Package> {
    let stem = file_stem(name);
    let (certificate, key) = (format!("{stem}.crt"), format!("{stem}.key"));
    let context = ContextFile {
        name: stem,
        addresses,
        certificate: certificate.clone().into(),
        key: key.clone().into(),
        ca: "ca.crt".into(),
        thumbprint: Thumbprint::of(&made.der).to_string(),
        cluster_id: cluster_id.to_owned(),
    };
    let context = context.to_toml();
    let files: [(&str, &[u8]); 4] = [
        (CONTEXT_FILE, context.as_bytes()),
        (&certificate, made.certificate_pem.as_bytes()),
        (&key, made.key_pem.as_bytes()),
        ("ca.crt", ca_pem),
    ];
    let write = || -> zip::result::ZipResult<Vec<u8>> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o600);
        for (name, content) in files {
            writer.start_file(name, options)?;
            writer.write_all(content)?;
        }
        Ok(writer.finish()?.into_inner())
    };
    let zip = write().map_err(|e| Failed::unexpected(format!("writing the package: {e}")))?;
    Ok(Package { zip: Zeroizing::new(zip), password: String::new() })
}

/// A name that is a plain file name on every system.
fn file_stem(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' })
        .take(60)
        .collect();
    if plain.is_empty() || plain.eq_ignore_ascii_case("ca") { "client".to_owned() } else { plain }
}
