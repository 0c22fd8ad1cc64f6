//! Makes a key, a certificate and the package for its holder. The key stands in the package and nowhere else.

use std::time::Duration;

use rustls_pki_types::PrivateKeyDer;
use tonic::Status;

use crate::{
    certificates::{self, IssueRequest, Issued, PackageContents, Secret},
    cluster::Registry,
    edge::{Edge, Node, convert, peer_identity::CallContext},
    limits,
    names::{CertificateName, Thumbprint, Timestamp},
};

/// How far back the first moment lies, for clocks that are behind: a week.
const BACKDATED_MS: i64 = 7 * 24 * 3600 * 1000;
/// Shortest lifetime.
const LIFE_MIN: Duration = Duration::from_secs(60);

/// What is to be made.
pub struct Wish {
    /// What people will call it.
    pub name: CertificateName,
    /// From now on.
    pub lifetime: Duration,
    /// The password of the PFX; `None`: one is made.
    pub password: Option<Secret>,
}

/// What was made.
pub struct Made {
    /// The certificate.
    pub der: Vec<u8>,
    /// The zip file; it holds the key.
    pub archive: Vec<u8>,
    /// The password that was made, to be shown once.
    pub password: Option<Secret>,
    /// A file name for the archive.
    pub file_name: String,
}

/// A lifetime in seconds; 0 is the default.
///
/// # Errors
/// Out of bounds.
pub fn lifetime(seconds: u64) -> Result<Duration, Status> {
    let life = match seconds {
        0 => limits::CERTIFICATE_LIFE_DEFAULT,
        seconds => Duration::from_secs(seconds),
    };
    if life < LIFE_MIN || life > limits::CERTIFICATE_LIFE_MAX {
        let (least, most) = (LIFE_MIN.as_secs(), limits::CERTIFICATE_LIFE_MAX.as_secs());
        return Err(convert::invalid("lifetime_seconds", format!("must be {least} to {most}")));
    }
    Ok(life)
}

/// The password that the caller chose; `None` for an empty one.
///
/// # Errors
/// Too long, or not to be typed.
pub fn chosen_password(text: String) -> Result<Option<Secret>, Status> {
    let chosen = Secret::new(text);
    if chosen.expose().is_empty() {
        return Ok(None);
    }
    if chosen.expose().chars().count() > limits::PASSWORD_CHARS_MAX {
        let why = format!("must not be longer than {} characters", limits::PASSWORD_CHARS_MAX);
        return Err(convert::invalid("password", why));
    }
    if chosen.expose().chars().any(char::is_control) {
        return Err(convert::invalid("password", "must not hold control characters"));
    }
    Ok(Some(chosen))
}

/// Makes key, certificate and package. The certificate opens nothing until it is registered.
///
/// # Errors
/// The node's own certificate cannot sign, or there is no randomness.
pub async fn make(edge: &Edge, context: &CallContext, wish: Wish) -> Result<Made, Status> {
    let registry = context.registry.clone();
    let addresses = registry.nodes().map(|node| node.client_address.clone()).collect();
    let node_thumbprints =
        registry.nodes().filter_map(|node| Thumbprint::from_bytes(&node.thumbprint).ok()).collect();
    let ca_pem = edge.node.ca_pem.clone().unwrap_or_else(|| node_certificates(&registry));
    let (node, cluster_id, now) = (edge.node.clone(), registry.cluster_id.clone(), context.at);
    let making =
        move || made(&node, wish, Cluster { addresses, node_thumbprints, cluster_id, ca_pem }, now);
    // The PFX derives keys from the password: tens of milliseconds of CPU.
    tokio::task::spawn_blocking(making)
        .await
        .map_err(|error| convert::internal("The package could not be made", error))?
        .map_err(|error| convert::internal("The package could not be made", error))
}

/// What a package says of the cluster.
struct Cluster {
    addresses: Vec<String>,
    node_thumbprints: Vec<Thumbprint>,
    cluster_id: String,
    ca_pem: String,
}

/// The certificates of the members, one after the other.
fn node_certificates(registry: &Registry) -> String {
    let thumbprints =
        registry.nodes().filter_map(|node| Thumbprint::from_bytes(&node.thumbprint).ok());
    thumbprints
        .filter_map(|thumbprint| registry.certificate(&thumbprint))
        .map(|registration| certificates::certificate_pem(&registration.der))
        .collect()
}

fn made(
    node: &Node,
    wish: Wish,
    cluster: Cluster,
    now: Timestamp,
) -> Result<Made, certificates::Error> {
    let life = i64::try_from(wish.lifetime.as_millis()).unwrap_or(i64::MAX);
    let request = IssueRequest {
        common_name: wish.name.as_str().to_owned(),
        not_before: Timestamp(now.0 - BACKDATED_MS),
        not_after: Timestamp(now.0.saturating_add(life)),
    };
    let Issued { der, key_pem } = issue(node, &request)?;
    let (password, made_password) = match wish.password {
        Some(chosen) => (chosen, None),
        None => {
            let made = certificates::password()?;
            (made.clone(), Some(made))
        }
    };
    let archive = certificates::package(&PackageContents {
        name: wish.name.as_str(),
        der: &der,
        key_pem: &key_pem,
        ca_pem: &cluster.ca_pem,
        password: &password,
        addresses: &cluster.addresses,
        node_thumbprints: &cluster.node_thumbprints,
        cluster_id: &cluster.cluster_id,
    })?;
    let file_name = format!("{}.zip", certificates::file_stem(wish.name.as_str()));
    Ok(Made { der, archive, password: made_password, file_name })
}

/// The node's own certificate is the issuer: nobody trusts the signature, everybody the registration.
fn issue(node: &Node, request: &IssueRequest) -> Result<Issued, certificates::Error> {
    let identity = node.identity.load();
    let key = PrivateKeyDer::try_from(identity.expose_key_der())
        .map_err(|why| certificates::Error::Issuer(why.to_owned()))?;
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        PrivateKeyDer::Pkcs8(_) | _ => "PRIVATE KEY", // The enum is open.
    };
    let key_pem = certificates::pem(label, identity.expose_key_der());
    certificates::issue_client(request, identity.certificate_der(), key_pem.expose())
}
