//! What the holder of a generated certificate gets, once: a zip with certificate, how to use it, and the key where it was
//! made here.

use std::io::{Cursor, Write as _};

use serde::Serialize;
use zeroize::Zeroizing;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    certificates::{Error, Protection, Secret, certificate_pem, pfx, readme::readme},
    limits,
    names::Thumbprint,
};

/// Longest file name stem.
const STEM_CHARS_MAX: usize = 64;

/// What goes into a package.
#[derive(Debug)]
pub struct PackageContents<'a> {
    /// The certificate's display name; [`file_stem`] of it names the files.
    pub name: &'a str,
    /// The certificate.
    pub der: &'a [u8],
    /// Its private key, where it was made here.
    pub key: HolderKey<'a>,
    /// PEM bundle that a client verifies servers with.
    pub ca_pem: &'a str,
    /// host:port of the client listeners.
    pub addresses: &'a [String],
    /// Thumbprints of the nodes' certificates.
    pub node_thumbprints: &'a [Thumbprint],
    /// The cluster's id.
    pub cluster_id: &'a str,
}

/// Who has the private key of a package's certificate.
#[derive(Debug, Clone, Copy)]
pub enum HolderKey<'a> {
    /// It goes into the package.
    Made {
        /// PKCS#8 in PEM.
        pem: &'a Secret,
        /// Password of the PFX.
        password: &'a Secret,
        /// How the PFX is protected.
        protection: Protection,
    },
    /// Its holder, who made a request with it: it never was here.
    WithHolder,
}

/// What the client and the command line read.
#[derive(Debug, Serialize)]
struct Context<'a> {
    name: &'a str,
    addresses: &'a [String],
    certificate: String,
    key: String,
    ca: &'static str,
    thumbprint: String,
    cluster_id: &'a str,
}

/// Packs `<stem>.pfx`, `<stem>.crt`, `<stem>.key`, `ca.crt`, `context.toml` and `README.md`, each with mode 0600; where
/// the holder has the key, neither `.pfx` nor `.key`.
///
/// # Errors
/// An address that is not host:port, a key that is not PKCS#8, or an encoding that fails.
pub fn package(contents: &PackageContents<'_>) -> Result<Vec<u8>, Error> {
    for address in contents.addresses {
        check_address(address)?;
    }
    let stem = file_stem(contents.name);
    let certificate = certificate_pem(contents.der);
    let context = context(contents, &stem)?;
    let readme = readme(contents, &stem);
    let mut entries = Vec::new();
    if let HolderKey::Made { pem, password, protection } = contents.key {
        let pfx = pfx::with_key(&stem, contents.der, pem, password, protection)?;
        entries.push((format!("{stem}.pfx"), Zeroizing::new(pfx)));
        entries.push((format!("{stem}.key"), Zeroizing::new(pem.expose().as_bytes().to_vec())));
    }
    for (name, text) in [
        (format!("{stem}.crt"), certificate),
        ("ca.crt".to_owned(), contents.ca_pem.to_owned()),
        ("context.toml".to_owned(), context),
        ("README.md".to_owned(), readme),
    ] {
        entries.push((name, Zeroizing::new(text.into_bytes())));
    }
    archive(&entries)
}

/// A name as it may stand in a file name on any system: `[A-Za-z0-9._-]`, at most 64, never a path, a device, or the
/// name of another file of the package.
#[must_use]
pub fn file_stem(name: &str) -> String {
    let mut stem = String::new();
    for c in name.chars() {
        let plain = c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let next = if plain { c } else { '-' };
        // No `..`, no `--`: a run of them says nothing more than one.
        let repeats = matches!(next, '-' | '.') && stem.ends_with(['-', '.']);
        if !repeats {
            stem.push(next);
        }
        if stem.len() == STEM_CHARS_MAX {
            break;
        }
    }
    let stem = stem.trim_matches(['-', '.']);
    let lower = stem.to_ascii_lowercase();
    let first = lower.split('.').next().unwrap_or_default();
    let device = matches!(first, "con" | "prn" | "aux" | "nul")
        || (first.len() == 4
            && (first.starts_with("com") || first.starts_with("lpt"))
            && first.ends_with(|c: char| c.is_ascii_digit()));
    match lower.as_str() {
        "" => "certificate".to_owned(),
        "ca" => "ca-client".to_owned(),
        _ if device => format!("client-{stem}"),
        _ => stem.to_owned(),
    }
}

/// A password of 24 characters and 120 random bits, in groups, without characters that look alike.
///
/// # Errors
/// The operating system gave no random bytes.
pub fn password() -> Result<Secret, Error> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = zeroize::Zeroizing::new([0_u8; 24]);
    getrandom::fill(&mut *bytes).map_err(Error::Random)?;
    let mut text = String::with_capacity(29);
    for (place, byte) in bytes.iter().enumerate() {
        if place > 0 && place % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(byte & 31)]));
    }
    Ok(Secret::new(text))
}

/// Addresses stand in commands that people copy, so they hold nothing that a shell would read.
fn check_address(address: &str) -> Result<(), Error> {
    let host =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let parts = address.rsplit_once(':');
    let plain = parts.is_some_and(|(name, port)| {
        !name.is_empty()
            && name.chars().all(host)
            && !name.starts_with('-')
            && port.parse::<u16>().is_ok()
    });
    if plain && address.len() <= 300 { Ok(()) } else { Err(Error::Address(address.to_owned())) }
}

fn context(contents: &PackageContents<'_>, stem: &str) -> Result<String, Error> {
    let context = Context {
        name: stem,
        addresses: contents.addresses.get(..limits::NODES_MAX).unwrap_or(contents.addresses),
        certificate: format!("{stem}.crt"),
        key: format!("{stem}.key"),
        ca: "ca.crt",
        thumbprint: Thumbprint::of(contents.der).to_string(),
        cluster_id: contents.cluster_id,
    };
    toml::to_string(&context).map_err(Error::Context)
}

fn archive(entries: &[(String, Zeroizing<Vec<u8>>)]) -> Result<Vec<u8>, Error> {
    let options = SimpleFileOptions::default()
        .unix_permissions(0o600)
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(name.as_str(), options).map_err(Error::Archive)?;
        archive.write_all(bytes)?;
    }
    Ok(archive.finish().map_err(Error::Archive)?.into_inner())
}
