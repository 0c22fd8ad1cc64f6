//! Certificates of people, programs and impostors.

use std::{io::Read as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// A certificate with its private key: what somebody presents to a node.
pub struct Identity {
    /// What tests call it.
    pub name: String,
    /// Sent in the handshake; the first is the leaf.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key, unless an impostor's.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// A self-signed P-256 certificate for a client, valid from a day ago for a year.
    ///
    /// # Errors
    /// The key cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        Self::with(name, |_| {})
    }

    /// [`Identity::new`] after `change` has had its way with the parameters.
    ///
    /// # Errors
    /// The key or certificate cannot be made.
    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<Self> {
        let mut params = client_params(name);
        change(&mut params);
        Self::signed(name, &params, &KeyPair::generate().context("a key pair")?)
    }

    /// A certificate with `params`, self-signed by `key`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn signed(name: &str, params: &CertificateParams, key: &KeyPair) -> Result<Self> {
        let certificate = params.self_signed(key).context("a self-signed certificate")?;
        Ok(Self {
            name: name.to_owned(),
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der())
                .map_err(|why| anyhow::anyhow!("a private key: {why}"))?,
        })
    }

    /// A certificate with `params` and a new key, signed by the authority whose certificate and key are in two PEM files.
    ///
    /// # Errors
    /// A file is missing, or the certificate cannot be made.
    pub fn issued(
        name: &str,
        params: &CertificateParams,
        authority: &Path,
        authority_key: &Path,
    ) -> Result<Self> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        let issuer_key = KeyPair::from_pem(&read(authority_key)?).context("the authority's key")?;
        let issuer = rcgen::Issuer::from_ca_cert_pem(&read(authority)?, issuer_key)
            .context("the authority's certificate")?;
        let key = KeyPair::generate().context("a key pair")?;
        let certificate = params.signed_by(&key, &issuer).context("a signed certificate")?;
        Ok(Self {
            name: name.to_owned(),
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der())
                .map_err(|why| anyhow::anyhow!("a private key: {why}"))?,
        })
    }

    /// A certificate that stops being valid after `lifetime`.
    ///
    /// # Errors
    /// As [`Identity::new`].
    pub fn expiring(name: &str, lifetime: Duration) -> Result<Self> {
        Self::with(name, |params| params.not_after = OffsetDateTime::now_utc() + lifetime)
    }

    /// Reads a certificate and its key from PEM files.
    ///
    /// # Errors
    /// A file is missing or no PEM.
    pub fn read(name: &str, certificate: &Path, key: &Path) -> Result<Self> {
        let pem = std::fs::read(certificate)
            .with_context(|| format!("reading {}", certificate.display()))?;
        let key = std::fs::read(key).with_context(|| format!("reading {}", key.display()))?;
        Self::from_pem(name, &pem, &key)
    }

    /// Takes a certificate and its key in PEM.
    ///
    /// # Errors
    /// They are no PEM.
    pub fn from_pem(name: &str, certificate: &[u8], key: &[u8]) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .context("a certificate in PEM")?;
        anyhow::ensure!(!chain.is_empty(), "{name}: no certificate in the PEM");
        let key = PrivateKeyDer::from_pem_slice(key).context("a private key in PEM")?;
        Ok(Self { name: name.to_owned(), chain, key })
    }

    /// Takes the certificate and key out of a client package that the cluster made.
    ///
    /// # Errors
    /// The package is no zip file or lacks an entry.
    pub fn from_package(name: &str, package: &[u8]) -> Result<Self> {
        let entry = |ending: &str| package_entry(package, ending);
        let certificates = ends_in_but(package, ".crt", "ca.crt")?;
        Self::from_pem(name, &certificates, &entry(".key")?)
    }

    /// The leaf.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// SHA-256 of the leaf, 64 hex digits.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        thumbprint(self.leaf())
    }

    /// The leaf in PEM (RFC 7468: 64 characters a line).
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", self.leaf())
    }

    /// The private key in PEM (PKCS#8).
    #[must_use]
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.secret_der())
    }

    /// Its certificate with the key of `thief`: somebody who has only seen the certificate.
    #[must_use]
    pub fn stolen_by(&self, thief: &Self) -> Self {
        Self {
            name: format!("{} without its key", self.name),
            chain: self.chain.clone(),
            key: thief.key.clone_key(),
        }
    }
}

/// SHA-256 of a certificate's DER, 64 hex digits.
#[must_use]
pub fn thumbprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// What a client certificate that the cluster accepts looks like.
#[must_use]
pub fn client_params(name: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - Duration::from_secs(24 * 3600);
    params.not_after = now + Duration::from_secs(365 * 24 * 3600);
    params.serial_number = Some(random_serial());
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// What a node certificate for 127.0.0.1 looks like.
///
/// # Errors
/// Never, as long as 127.0.0.1 is an address.
pub fn node_params(name: &str) -> Result<CertificateParams> {
    let mut params = client_params(name);
    params.subject_alt_names =
        vec![rcgen::SanType::IpAddress("127.0.0.1".parse().context("the loopback address")?)];
    params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    Ok(params)
}

fn random_serial() -> rcgen::SerialNumber {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    rcgen::SerialNumber::from_slice(&serial)
}

/// The content of the one entry of a package whose name ends in `ending`.
///
/// # Errors
/// There is none, or the package is no zip file.
pub fn package_entry(package: &[u8], ending: &str) -> Result<Vec<u8>> {
    ends_in_but(package, ending, "\0")
}

fn ends_in_but(package: &[u8], ending: &str, but: &str) -> Result<Vec<u8>> {
    let mut archive =
        zip::ZipArchive::new(std::io::Cursor::new(package)).context("a client package")?;
    let name = archive
        .file_names()
        .find(|name| name.ends_with(ending) && *name != but)
        .map(str::to_owned)
        .with_context(|| format!("no entry *{ending} in the package"))?;
    let mut content = Vec::new();
    archive.by_name(&name)?.read_to_end(&mut content)?;
    Ok(content)
}
