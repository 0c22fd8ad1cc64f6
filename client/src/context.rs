//! Who calls, where, and what the server is verified with: `context.toml` and the package it comes in.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Cursor, Read as _},
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::session::Session;

/// Largest file of a context, and largest file inside a package, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most files of one package.
const PACKAGE_FILES_MAX: usize = 32;
/// Most addresses of one context.
const ADDRESSES_MAX: usize = 64;
/// The name of the file that describes a context.
pub const CONTEXT_FILE: &str = "context.toml";

/// Why a context or a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text of `context.toml` is not what it should be.
    #[error("{CONTEXT_FILE}: {0}")]
    Parse(String),
    /// A certificate or key cannot be used.
    #[error("{what}: {problem}")]
    Credential {
        /// Which one: "certificate", "key" or "ca".
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The package is no package.
    #[error("package: {0}")]
    Package(String),
}

/// The text of `context.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ContextFile {
    /// What the certificate is called.
    pub name: String,
    /// `host:port` of the client listeners.
    pub addresses: Vec<String>,
    /// PEM file of the certificate, relative to this file.
    pub certificate: PathBuf,
    /// PEM file of the private key, relative to this file.
    pub key: PathBuf,
    /// PEM bundle the server is verified with, relative to this file.
    pub ca: PathBuf,
    /// SHA-256 of the certificate, for people.
    #[serde(default)]
    pub thumbprint: String,
    /// The cluster, for people.
    #[serde(default)]
    pub cluster_id: String,
}

/// Everything a client needs to call a cluster.
#[derive(Clone)]
pub struct Context {
    /// What the certificate is called.
    pub name: String,
    /// `host:port` of the client listeners, in the order in which they are tried.
    pub addresses: Vec<String>,
    /// The cluster's id, where the context tells it.
    pub cluster_id: String,
    /// The name in the servers' certificates, where it is not the host that is dialled.
    pub server_name: Option<String>,
    /// The second-factor session that calls belong to.
    pub session: Option<Session>,
    /// Where the files of the context stand, and its session is kept; `None` for one that stands in no folder.
    pub folder: Option<PathBuf>,
    certificate: Vec<CertificateDer<'static>>,
    key_pem: Zeroizing<Vec<u8>>,
    ca: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .field("thumbprint", &self.thumbprint())
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Loads `context.toml` and the files it names.
    ///
    /// # Errors
    /// [`Error`], with the file it is about.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = Zeroizing::new(read(path)?);
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut context = Self::assemble(&text, |name| read(&folder.join(name)))?;
        context.session = Session::load(folder);
        context.folder = Some(folder.to_owned());
        Ok(context)
    }

    /// Takes a context out of a package (a zip file) without writing anything.
    ///
    /// # Errors
    /// [`Error`]; a package with paths in its names is refused as a whole.
    pub fn from_package(bytes: &[u8]) -> Result<Self, Error> {
        let files = package_files(bytes)?;
        let text = files
            .get(CONTEXT_FILE)
            .ok_or_else(|| Error::Package(format!("holds no {CONTEXT_FILE}")))?;
        Self::assemble(text, |name| {
            let file = name.to_str().and_then(|name| files.get(name));
            file.map(|bytes| bytes.to_vec())
                .ok_or_else(|| Error::Package(format!("holds no {}", name.display())))
        })
    }

    /// Puts a context together from PEM at hand. An empty `certificate` means: without a certificate.
    ///
    /// # Errors
    /// [`Error::Credential`] where something is no PEM or does not fit.
    pub fn from_pem(
        name: &str,
        addresses: Vec<String>,
        certificate: &[u8],
        key: &[u8],
        ca: &[u8],
    ) -> Result<Self, Error> {
        let context = Self {
            name: name.to_owned(),
            addresses,
            cluster_id: String::new(),
            server_name: None,
            session: None,
            folder: None,
            certificate: if certificate.is_empty() {
                Vec::new()
            } else {
                certificates("certificate", certificate)?
            },
            key_pem: Zeroizing::new(key.to_vec()),
            ca: certificates("ca", ca)?,
        };
        if !context.certificate.is_empty() {
            context.key()?;
        }
        Ok(context)
    }

    /// The same context without a certificate: what a caller is who shows none.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self {
            certificate: Vec::new(),
            key_pem: Zeroizing::default(),
            session: None,
            ..self.clone()
        }
    }

    /// The same context in a second-factor session.
    #[must_use]
    pub fn with_session(&self, session: Session) -> Self {
        Self { session: Some(session), ..self.clone() }
    }

    /// The same context for servers whose certificate names this host, wherever they are dialled.
    #[must_use]
    pub fn with_server_name(&self, name: &str) -> Self {
        Self { server_name: Some(name.to_owned()), ..self.clone() }
    }

    /// The client's certificate chain, leaf first; empty without a certificate.
    #[must_use]
    pub fn certificate(&self) -> &[CertificateDer<'static>] {
        &self.certificate
    }

    /// What the server is verified with.
    #[must_use]
    pub fn ca(&self) -> &[CertificateDer<'static>] {
        &self.ca
    }

    /// The private key of the certificate.
    ///
    /// # Errors
    /// [`Error::Credential`] where it is no PEM key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(&self.key_pem)
            .map_err(|e| Error::Credential { what: "key", problem: e.to_string() })
    }

    /// SHA-256 of the certificate, 64 hex digits; empty without a certificate.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        self.certificate.first().map(|der| hex::encode(Sha256::digest(der))).unwrap_or_default()
    }

    fn assemble(
        text: &[u8],
        mut file: impl FnMut(&Path) -> Result<Vec<u8>, Error>,
    ) -> Result<Self, Error> {
        let described = ContextFile::parse(text)?;
        let certificate = file(&described.certificate)?;
        let key = Zeroizing::new(file(&described.key)?);
        let ca = file(&described.ca)?;
        let mut context =
            Self::from_pem(&described.name, described.addresses, &certificate, &key, &ca)?;
        context.cluster_id = described.cluster_id;
        Ok(context)
    }
}

impl ContextFile {
    /// Parses the text of `context.toml`.
    ///
    /// # Errors
    /// [`Error::Parse`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(text).map_err(|_| Error::Parse("is not UTF-8".into()))?;
        let file: Self =
            toml::from_str(text).map_err(|e| Error::Parse(e.to_string().trim_end().to_owned()))?;
        if file.addresses.is_empty() || file.addresses.len() > ADDRESSES_MAX {
            return Err(Error::Parse(format!("addresses must name 1 to {ADDRESSES_MAX} nodes")));
        }
        Ok(file)
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why = format!("is larger than {FILE_BYTES_MAX} bytes, which no file of a context is");
        return Err(failed(std::io::Error::other(why)));
    }
    Ok(bytes)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::Credential { what, problem: e.to_string() })?;
    if found.is_empty() {
        return Err(Error::Credential { what, problem: "holds no PEM certificate".into() });
    }
    Ok(found)
}

/// The files of a package by name. Bounded in number and size.
///
/// # Errors
/// [`Error::Package`]; any name that is not a plain file name refuses the whole package.
pub fn package_files(bytes: &[u8]) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>, Error> {
    let refused = |e: zip::result::ZipError| Error::Package(e.to_string());
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(refused)?;
    if archive.len() > PACKAGE_FILES_MAX {
        return Err(Error::Package(format!("holds more than {PACKAGE_FILES_MAX} files")));
    }
    let mut files = BTreeMap::new();
    for at in 0..archive.len() {
        let file = archive.by_index(at).map_err(refused)?;
        let name = plain_name(file.name())?.to_owned();
        if !file.is_file() {
            return Err(Error::Package(format!("{name:?} is not a plain file")));
        }
        let mut content = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut content)
            .map_err(|e| Error::Package(format!("{name}: {e}")))?;
        if content.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::Package(format!("{name} is larger than {FILE_BYTES_MAX} bytes")));
        }
        if files.insert(name.clone(), content).is_some() {
            return Err(Error::Package(format!("holds {name} twice")));
        }
    }
    Ok(files)
}

/// A name that stays in the folder it is written to, on every operating system.
fn plain_name(name: &str) -> Result<&str, Error> {
    let plain = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && !name.contains(['/', '\\', ':', '\0'])
        && !name.chars().any(char::is_control);
    plain.then_some(name).ok_or_else(|| Error::Package(format!("the name {name:?} is refused")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::io::Write as _;

    use super::*;

    fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    const CONTEXT: &str = "name = \"alice\"\naddresses = [\"n1:7443\"]\ncertificate = \"alice.crt\"\n\
        key = \"alice.key\"\nca = \"ca.crt\"\nthumbprint = \"00\"\ncluster_id = \"c\"\n";

    fn certificate_and_key() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_package_becomes_a_context() {
        let (certificate, key) = certificate_and_key();
        let package = zip_of(&[
            ("context.toml", CONTEXT.as_bytes()),
            ("alice.crt", certificate.as_bytes()),
            ("alice.key", key.as_bytes()),
            ("ca.crt", certificate.as_bytes()),
            ("README.md", b"hello"),
        ]);
        let context = Context::from_package(&package).unwrap();
        assert_eq!(context.name, "alice");
        assert_eq!(context.addresses, ["n1:7443"]);
        assert_eq!(context.cluster_id, "c");
        assert_eq!(context.thumbprint().len(), 64);
        assert_eq!(context.anonymous().thumbprint(), "");
        assert!(!format!("{context:?}").contains("PRIVATE"));
    }

    #[test]
    fn packages_that_write_elsewhere_or_do_not_fit_are_refused() {
        let (certificate, key) = certificate_and_key();
        let check = |entries: &[(&str, &[u8])], words: &str| {
            let error = Context::from_package(&zip_of(entries)).unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} is not in {error}");
        };
        let name = |name: &str| check(&[(name, b"x")], "is refused");
        for bad in ["../evil", "/etc/passwd", "a/b", "..\\evil", "C:evil", ".bashrc", "a\nb"] {
            name(bad);
        }
        check(&[("README.md", b"x")], "holds no context.toml");
        check(&[("context.toml", CONTEXT.as_bytes())], "holds no alice.crt");
        check(&[("context.toml", b"name = 1")], "invalid type");
        check(&[("context.toml", b"nam = 1")], "unknown field");
        let outside = CONTEXT.replace("\"alice.key\"", "\"../../id_rsa\"");
        let crt = certificate.as_bytes();
        check(&[("context.toml", outside.as_bytes()), ("alice.crt", crt)], "holds no ../../id_rsa");
        check(
            &[
                ("context.toml", CONTEXT.as_bytes()),
                ("alice.crt", b"x"),
                ("alice.key", key.as_bytes()),
                ("ca.crt", crt),
            ],
            "certificate: holds no PEM",
        );
        let large = vec![0_u8; 2 * 1024 * 1024];
        check(&[("large", &large)], "is larger than");
        let names: Vec<String> = (0..40).map(|n| format!("f{n}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
        check(&many, "holds more than");
        let error = Context::from_package(b"no zip").unwrap_err().to_string();
        assert!(error.starts_with("package: "), "{error}");
    }
}
