//! This node's certificate and key: read with care, replaced without a restart.

use std::{
    fmt, fs, io,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    limits,
    names::{Thumbprint, Timestamp},
};

/// A certificate or key that cannot serve as this node's identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Others may read or replace the key.
    #[error("{path} {why}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong, in words that continue the sentence.
        why: String,
    },
    /// The file does not hold what it must.
    #[error("{path} {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, in words that continue the sentence.
        why: &'static str,
    },
    /// A file or command does not give what it must.
    #[error("{from}: {why}")]
    Unfit {
        /// The file or command.
        from: String,
        /// What is wrong.
        why: String,
    },
    /// The certificate or key cannot be used for TLS, or one does not belong to the other.
    #[error("the certificate or its key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
}

/// A certificate chain and the key of its first certificate.
#[derive(Clone)]
pub struct TlsIdentity {
    key: Arc<Zeroizing<Vec<u8>>>,
    thumbprint: Thumbprint,
    not_after: Timestamp,
    certified: Arc<CertifiedKey>,
}

impl TlsIdentity {
    /// Takes a chain (own certificate first) and a private key in DER (PKCS#8, SEC1 or PKCS#1).
    ///
    /// # Errors
    /// No or too many certificates, a key of an unsupported kind, or one that belongs to another certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let unusable = IdentityError::Unusable;
        if chain.len() > limits::CERTIFICATE_CHAIN_MAX {
            return Err(unusable(rustls::Error::General("the chain is too long".into())));
        }
        let leaf = chain.first().ok_or(unusable(rustls::Error::NoCertificatesPresented))?;
        if leaf.len() > limits::CERTIFICATE_BYTES_MAX {
            return Err(unusable(rustls::Error::General("the certificate is too large".into())));
        }
        let thumbprint = Thumbprint::of(leaf);
        let (_, x509) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_| unusable(CertificateError::BadEncoding.into()))?;
        let not_after = Timestamp(x509.validity().not_after.timestamp().saturating_mul(1_000));
        let signing = {
            let der = PrivateKeyDer::try_from(key.as_slice())
                .map_err(|why| unusable(rustls::Error::General(why.into())))?;
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(unusable)?
        };
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(unusable)?;
        Ok(Self { key: Arc::new(key), thumbprint, not_after, certified: Arc::new(certified) })
    }

    /// Reads both from PEM files. The key file must belong to this process' user, be closed to everybody else (0600 or
    /// stricter) and, links followed, lie in the folder that its path names.
    ///
    /// # Errors
    /// The first file that breaks a rule, with the rule.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let pem = read_bounded(certificate, Access::Public)?;
        let chain = CertificateDer::pem_slice_iter(&pem)
            .take(limits::CERTIFICATE_CHAIN_MAX + 1)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| content(certificate, "is not PEM"))?;
        if chain.is_empty() {
            return Err(content(certificate, "holds no certificate"));
        }
        Self::new(chain, read_key(key)?)
    }

    /// SHA-256 of the certificate.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// Last moment of the certificate's validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certified.cert[0] // `new` refuses an empty chain.
    }

    /// The chain in DER, own certificate first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(super) fn signing_key(&self) -> &dyn rustls::sign::SigningKey {
        &*self.certified.key
    }

    /// The private key in DER, for the one caller that signs with it outside TLS.
    #[must_use]
    pub fn expose_key_der(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity({})", self.thumbprint.short())
    }
}

/// The identities that new handshakes show: the current one, and others by which this node is still or already known.
/// Replacing them leaves open connections alone.
///
/// A peer that has not heard of the current certificate yet names the one that it knows: its server name is
/// [`expected_name`] of that certificate. Whoever dials such a peer shows it another identity at the next attempt.
pub struct CurrentIdentity {
    current: ArcSwap<TlsIdentity>,
    others: ArcSwap<Vec<Arc<TlsIdentity>>>,
}

/// What stands behind the digits in a server name that asks for a certificate.
const EXPECTED_SUFFIX: &str = ".certificate.invalid";

/// The server name by which a peer asks for one of a node's certificates (RFC 6066; `.invalid` is no host's).
#[must_use]
pub fn expected_name(thumbprint: &Thumbprint) -> String {
    format!("{}{EXPECTED_SUFFIX}", hex::encode(&thumbprint.as_bytes()[..16]))
}

impl CurrentIdentity {
    /// Starts with `identity`.
    #[must_use]
    pub fn new(identity: TlsIdentity) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(identity), others: ArcSwap::default() })
    }

    /// Shows `identity` from the next handshake on.
    pub fn replace(&self, identity: TlsIdentity) {
        self.current.store(Arc::new(identity));
    }

    /// By which identities this node is known besides.
    pub fn set_others(&self, others: Vec<Arc<TlsIdentity>>) {
        self.others.store(Arc::new(others));
    }

    /// The identity to show at an attempt to reach a peer: the current one first, then the others in turn.
    #[must_use]
    pub fn for_attempt(&self, attempt: usize) -> Arc<TlsIdentity> {
        let others = self.others.load();
        match attempt % (others.len() + 1) {
            0 => self.load(),
            place => others.get(place - 1).cloned().unwrap_or_else(|| self.load()),
        }
    }

    /// The identity that a peer asks for by name; the current one where it asks for none that is held.
    fn asked_for(&self, name: Option<&str>) -> Arc<TlsIdentity> {
        let asked = name.filter(|name| name.ends_with(EXPECTED_SUFFIX));
        let others = self.others.load();
        let held = others.iter().find(|held| asked == Some(&expected_name(&held.thumbprint)));
        held.cloned().unwrap_or_else(|| self.load())
    }

    /// The identity of now.
    #[must_use]
    pub fn load(&self) -> Arc<TlsIdentity> {
        self.current.load_full()
    }
}

impl fmt::Debug for CurrentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current.load().fmt(f)
    }
}

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.asked_for(hello.server_name()).certified.clone())
    }
}

impl ResolvesClientCert for TlsIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Largest PEM file that is read.
const PEM_BYTES_MAX: u64 = 256 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Public,
    Private,
}

fn content(path: &Path, why: &'static str) -> IdentityError {
    IdentityError::Content { path: path.to_owned(), why }
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let pem = read_bounded(path, Access::Private)?;
    let mut keys = Vec::new();
    for key in PrivateKeyDer::pem_slice_iter(&pem).take(2) {
        let mut key = key.map_err(|_| content(path, "is not PEM"))?;
        keys.push(Zeroizing::new(key.secret_der().to_vec()));
        key.zeroize();
    }
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok(key),
        (Some(_), false) => Err(content(path, "holds more than one private key")),
        (None, _) => Err(content(path, "holds no unencrypted private key")),
    }
}

/// Reads a file that must be as private as a key file.
///
/// # Errors
/// As [`TlsIdentity::load`] for keys.
pub fn read_private_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    read_bounded(path, Access::Private)
}

fn read_bounded(path: &Path, access: Access) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let read = |source| IdentityError::Read { path: path.to_owned(), source };
    let real = path.canonicalize().map_err(read)?;
    if access == Access::Private {
        within_its_folder(path, &real)?;
    }
    let mut file = fs::OpenOptions::new()
        .read(true)
        // A path swapped for a link or a pipe after the check above is refused, and never waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(&real)
        .map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(content(path, "is not a regular file"));
    }
    if metadata.len() > PEM_BYTES_MAX {
        return Err(content(path, "is larger than 256 KiB"));
    }
    if access == Access::Private {
        closed_to_others(path, &metadata)?;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(PEM_BYTES_MAX as usize));
    file.by_ref().take(PEM_BYTES_MAX).read_to_end(&mut bytes).map_err(read)?;
    Ok(bytes)
}

fn within_its_folder(path: &Path, real: &Path) -> Result<(), IdentityError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder
        .canonicalize()
        .map_err(|source| IdentityError::Read { path: path.to_owned(), source })?;
    if real.starts_with(&folder) {
        return Ok(());
    }
    let why = "is a link that leads out of its folder; give the key's own path".to_owned();
    Err(IdentityError::Exposed { path: path.to_owned(), why })
}

fn closed_to_others(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    let exposed = |why| Err(IdentityError::Exposed { path: path.to_owned(), why });
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return exposed(format!("is open to other users (mode {mode:04o}); run `chmod 600` on it"));
    }
    let user = crate::os::effective_user();
    if metadata.uid() != user {
        return exposed(format!(
            "belongs to user {}, not to user {user} whom this process runs as",
            metadata.uid()
        ));
    }
    Ok(())
}
