//! The README of a client package: how its holder uses the certificate in a browser, curl, Python and Rust.

use crate::{
    certificates::{HolderKey, PackageContents, Protection},
    names::Thumbprint,
};

/// How the holder uses what is in the package, in Markdown. It holds no secret.
pub(super) fn readme(contents: &PackageContents<'_>, stem: &str) -> String {
    let address = contents.addresses.first().map_or("HOST:PORT", String::as_str);
    let mut text = match contents.key {
        HolderKey::Made { protection, .. } => with_key(stem, protection),
        HolderKey::WithHolder => without_key(stem),
    };
    text.push_str(&cluster(contents));
    text.push_str(match contents.key {
        HolderKey::Made { .. } => COMMAND_LINE,
        HolderKey::WithHolder => COMMAND_LINE_WITHOUT_KEY,
    });
    text.push_str(USES);
    text.replace("{stem}", stem).replace("{address}", address)
}

fn with_key(stem: &str, protection: Protection) -> String {
    let pfx = match protection {
        Protection::Modern => {
            "certificate and key in one file with a password, for browsers and operating systems"
        }
        Protection::Compatible => {
            "certificate and key in one file with a password, for browsers and old operating systems; its protection \
             (3DES, SHA-1) is weak, so delete the file once it is imported"
        }
    };
    format!(
        "# Client certificate `{stem}`

Whoever holds `{stem}.key` or `{stem}.pfx` with its password is you. Keep them like a password. The server kept no
copy of the key: if these files are lost or seen by others, ask an administrator to delete the certificate and to
generate another one.

| file | what it is |
| --- | --- |
| `{stem}.pfx` | {pfx} |
| `{stem}.crt` | the certificate, PEM |
| `{stem}.key` | the private key, PEM, without a password |
| `ca.crt` | what the servers are verified with, PEM |
| `context.toml` | addresses and file names, for the command line and client libraries |
"
    )
}

fn without_key(stem: &str) -> String {
    format!(
        "# Client certificate `{stem}`

This certificate belongs to the private key that made its request. The key never left its owner and is not in this
package: copy it here as `{stem}.key` (PEM, readable by you alone). Whoever holds it is you. If it is lost or seen by
others, ask an administrator to delete the certificate, and make a new key and request.

| file | what it is |
| --- | --- |
| `{stem}.crt` | the certificate, PEM |
| `ca.crt` | what the servers are verified with, PEM |
| `context.toml` | addresses and file names, for the command line and client libraries |

A PFX for browsers is made of both, with a password that you choose:

```
openssl pkcs12 -export -in {stem}.crt -inkey {stem}.key -name {stem} -out {stem}.pfx
```
"
    )
}

fn cluster(contents: &PackageContents<'_>) -> String {
    let list = |lines: Vec<String>| -> String {
        lines.iter().map(|line| format!("- `{line}`\n")).collect()
    };
    let servers = list(contents.addresses.to_vec());
    let nodes = list(contents.node_thumbprints.iter().map(Thumbprint::to_string).collect());
    let thumbprint = Thumbprint::of(contents.der);
    format!(
        "
Thumbprint (SHA-256): `{thumbprint}`

Servers:

{servers}
Thumbprints of their certificates:

{nodes}"
    )
}

const COMMAND_LINE: &str = "
## Command line

```
rookery context import {stem}.zip
rookery whoami
```
";

const COMMAND_LINE_WITHOUT_KEY: &str = "
## Command line

In the folder of these files:

```
rookery --context-file context.toml whoami
```
";

/// The same for all; `{stem}` and `{address}` are replaced.
const USES: &str = r#"
## Browser

1. Import `{stem}.pfx` with its password. Firefox: Settings, Privacy & Security, View Certificates, Your Certificates,
   Import. Chrome and Edge on Linux: Settings, Privacy and security, Security, Manage certificates. Windows: open the
   file. macOS: open the file, add it to the login keychain.
2. If the browser warns of an unknown issuer, import `ca.crt` as an authority, for this purpose alone.
3. Open <https://{address}/> and choose the certificate. If none is asked for, use a new private window.

## curl

```
curl --cert {stem}.crt --key {stem}.key --cacert ca.crt https://{address}/
curl --cert-type P12 --cert {stem}.pfx --cacert ca.crt https://{address}/     # asks for the password
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
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

let tls = ClientTlsConfig::new()
    .ca_certificate(Certificate::from_pem(std::fs::read("ca.crt")?))
    .identity(Identity::from_pem(std::fs::read("{stem}.crt")?, std::fs::read("{stem}.key")?));
let channel = Channel::from_static("https://{address}").tls_config(tls)?.connect().await?;
```
"#;
