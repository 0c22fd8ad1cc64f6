//! What the holder of a generated certificate gets, once: a zip with key, certificate and how to use them.

use std::io::{Cursor, Write as _};

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Serialize;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    certificates::{Error, Secret, certificate_pem},
    limits,
    names::Thumbprint,
};

/// Rounds of PBKDF2 and of the MAC's key derivation; far below what OpenSSL, NSS and Chromium take at most.
const PFX_ITERATIONS: u32 = 100_000;
/// Longest file name stem.
const STEM_CHARS_MAX: usize = 64;

/// What goes into a package.
#[derive(Debug)]
pub struct PackageContents<'a> {
    /// The certificate's display name; [`file_stem`] of it names the files.
    pub name: &'a str,
    /// The certificate.
    pub der: &'a [u8],
    /// Its private key, PKCS#8 in PEM.
    pub key_pem: &'a Secret,
    /// PEM bundle that a client verifies servers with.
    pub ca_pem: &'a str,
    /// Password of the PFX.
    pub password: &'a Secret,
    /// host:port of the client listeners.
    pub addresses: &'a [String],
    /// Thumbprints of the nodes' certificates.
    pub node_thumbprints: &'a [Thumbprint],
    /// The cluster's id.
    pub cluster_id: &'a str,
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

/// Packs `<stem>.pfx`, `<stem>.crt`, `<stem>.key`, `ca.crt`, `context.toml` and `README.md`, each with mode 0600.
///
/// # Errors
/// An address that is not host:port, a key that is not PKCS#8, or an encoding that fails.
pub fn package(contents: &PackageContents<'_>) -> Result<Vec<u8>, Error> {
    for address in contents.addresses {
        check_address(address)?;
    }
    let stem = file_stem(contents.name);
    let pfx = pfx(contents, &stem)?;
    let certificate = certificate_pem(contents.der);
    let context = context(contents, &stem)?;
    let readme = readme(contents, &stem);
    archive(&[
        (format!("{stem}.pfx"), &pfx),
        (format!("{stem}.crt"), certificate.as_bytes()),
        (format!("{stem}.key"), contents.key_pem.expose().as_bytes()),
        ("ca.crt".to_owned(), contents.ca_pem.as_bytes()),
        ("context.toml".to_owned(), context.as_bytes()),
        ("README.md".to_owned(), readme.as_bytes()),
    ])
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

/// The leaf and its key, nothing else: no chain means anything here.
fn pfx(contents: &PackageContents<'_>, stem: &str) -> Result<Vec<u8>, Error> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(contents.key_pem.expose().as_bytes())
        .map_err(|_| Error::Issuer("the private key is not PKCS#8 in PEM".to_owned()))?;
    let key = PrivateKey::from_der(key.secret_pkcs8_der()).map_err(Error::Pfx)?;
    let leaf = Certificate::from_der(contents.der).map_err(Error::Pfx)?;
    let id = Thumbprint::of(contents.der).as_bytes()[..20].to_vec();
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(id, key, [leaf]);
    store.add_entry(stem, KeyStoreEntry::PrivateKeyChain(chain));
    store
        .writer(contents.password.expose())
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .encryption_iterations(PFX_ITERATIONS)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(PFX_ITERATIONS)
        .write()
        .map_err(Error::Pfx)
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

fn archive(entries: &[(String, &[u8])]) -> Result<Vec<u8>, Error> {
    let options = SimpleFileOptions::default()
        .unix_permissions(0o600)
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(name, options).map_err(Error::Archive)?;
        archive.write_all(bytes)?;
    }
    Ok(archive.finish().map_err(Error::Archive)?.into_inner())
}

fn readme(contents: &PackageContents<'_>, stem: &str) -> String {
    let thumbprint = Thumbprint::of(contents.der);
    let address = contents.addresses.first().map_or("HOST:PORT", String::as_str);
    let servers: String =
        contents.addresses.iter().map(|address| format!("- `{address}`\n")).collect();
    let nodes: String =
        contents.node_thumbprints.iter().map(|node| format!("- `{node}`\n")).collect();
    format!(
        r#"# Client certificate `{stem}`

Whoever holds `{stem}.key` or `{stem}.pfx` with its password is you. Keep them like a password. The server kept no
copy of the key: if these files are lost or seen by others, ask an administrator to delete the certificate and to
generate another one.

| file | what it is |
| --- | --- |
| `{stem}.pfx` | certificate and key in one file with a password, for browsers and operating systems |
| `{stem}.crt` | the certificate, PEM |
| `{stem}.key` | the private key, PEM, without a password |
| `ca.crt` | what the servers are verified with, PEM |
| `context.toml` | addresses and file names, for the command line and client libraries |

Thumbprint (SHA-256): `{thumbprint}`

Servers:

{servers}
Thumbprints of their certificates:

{nodes}
## Command line

```
rookery context import {stem}.zip
rookery whoami
```

## Browser

1. Import `{stem}.pfx` with its password. Firefox: Settings, Privacy & Security, View Certificates, Your Certificates,
   Import. Chrome and Edge on Linux: Settings, Privacy and security, Security, Manage certificates. Windows: open the
   file. macOS: open the file, add it to the login keychain.
2. If the browser warns of an unknown issuer, import `ca.crt` as an authority, for this purpose alone.
3. Open <https://{address}/> and choose the certificate. If none is asked for, use a new private window.

## curl

```
curl --cert {stem}.crt --key {stem}.key --cacert ca.crt https://{address}/
```

## Python

```python
import grpc

def read(name):
    with open(name, "rb") as file:
        return file.read()

credentials = grpc.ssl_channel_credentials(
    root_certificates=read("ca.crt"),
    private_key=read("{stem}.key"),
    certificate_chain=read("{stem}.crt"),
)
channel = grpc.secure_channel("{address}", credentials)
```

## Rust

```rust
use tonic::transport::{{Certificate, Channel, ClientTlsConfig, Identity}};

let tls = ClientTlsConfig::new()
    .ca_certificate(Certificate::from_pem(std::fs::read("ca.crt")?))
    .identity(Identity::from_pem(std::fs::read("{stem}.crt")?, std::fs::read("{stem}.key")?));
let channel = Channel::from_static("https://{address}").tls_config(tls)?.connect().await?;
```
"#
    )
}
