//! Where the configuration says that this node's certificate comes from.

use std::path::PathBuf;

use rustls_pki_types::CertificateDer;

use crate::{
    certificates::{self, Secret},
    config::Tls,
    tls::{IdentityError, TlsIdentity, read_private_file, run_for_identity},
};

/// One of the three ways to name a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Two PEM files.
    Pem {
        /// The certificate; issuers may follow it.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// A PKCS#12 file.
    Pfx {
        /// The file.
        file: PathBuf,
        /// A file with its password; absent: none.
        password: Option<PathBuf>,
    },
    /// A command that prints certificate and key in PEM on its standard output, within 30 s.
    Exec(Vec<String>),
}

impl Source {
    /// What section `[tls]` names.
    #[must_use]
    pub fn of(tls: &Tls) -> Self {
        if let Some(words) = &tls.certificate_exec {
            return Self::Exec(words.clone());
        }
        match &tls.pfx {
            Some(file) => Self::Pfx { file: file.clone(), password: tls.pfx_password_file.clone() },
            None => Self::Pem { certificate: tls.certificate.clone(), key: tls.key.clone() },
        }
    }

    /// The files whose changes matter.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Pem { certificate, key } => vec![certificate.clone(), key.clone()],
            Self::Pfx { file, password } => [file].into_iter().chain(password).cloned().collect(),
            Self::Exec(_) => Vec::new(),
        }
    }

    /// Reads certificate and key. Blocks.
    ///
    /// # Errors
    /// The first thing that is wrong, with what to do; never a part of what was read.
    pub fn read(&self) -> Result<TlsIdentity, IdentityError> {
        match self {
            Self::Pem { certificate, key } => TlsIdentity::load(certificate, key),
            Self::Pfx { file, password } => {
                let content = read_private_file(file)?;
                let password = match password {
                    Some(path) => {
                        let text = read_private_file(path)?;
                        Secret::new(String::from_utf8_lossy(text.trim_ascii_end()).into_owned())
                    }
                    None => Secret::new(String::new()),
                };
                identity(&content, password.expose(), &file.display().to_string())
            }
            Self::Exec(words) => {
                let content = run_for_identity(words)?;
                identity(&content, "", words.first().map_or("", String::as_str))
            }
        }
    }
}

fn identity(content: &[u8], password: &str, from: &str) -> Result<TlsIdentity, IdentityError> {
    let found = certificates::server_identity(content, password)
        .map_err(|why| IdentityError::Unfit { from: from.to_owned(), why: why.to_string() })?;
    let chain = found.chain.into_iter().map(CertificateDer::from).collect();
    TlsIdentity::new(chain, found.key)
}
