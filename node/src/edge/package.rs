//! Makes a certificate and the package for its holder: over a key that is made here and stands in the package and nowhere
//! else, or over the key of a request, which never was here.

use std::time::Duration;

use rookery_proto::security::v1::GenerateCertificateRequest;
use rustls_pki_types::PrivateKeyDer;
use tonic::Status;
use zeroize::Zeroizing;

use crate::{
    certificates::{
        self, HolderKey, IssueRequest, PackageContents, Protection, Secret, SigningRequest,
    },
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
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// Whose key is certified.
    pub key: Key,
}

/// The key of a certificate that is to be made.
pub enum Key {
    /// A new one.
    New {
        /// The password of the PFX; `None`: one is made.
        password: Option<Secret>,
        /// How the PFX is protected.
        protection: Protection,
    },
    /// That of a request.
    Of(SigningRequest),
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

/// Whose key a request asks to be certified.
///
/// # Errors
/// A signing request or a password that cannot be used, or a wish for a PFX that will not be made.
pub fn key(asked: &mut GenerateCertificateRequest) -> Result<Key, Status> {
    let password = password(std::mem::take(&mut asked.password))?;
    let password = (!password.expose().is_empty()).then_some(password);
    if asked.csr.is_empty() {
        let protection = if asked.pfx_compat { Protection::Compatible } else { Protection::Modern };
        return Ok(Key::New { password, protection });
    }
    let without = "is for a PFX, and none is made for a request: the key stays with its owner";
    if password.is_some() {
        return Err(convert::invalid("password", without));
    }
    if asked.pfx_compat {
        return Err(convert::invalid("pfx_compat", without));
    }
    let csr = Zeroizing::new(std::mem::take(&mut asked.csr)); // Somebody may have added the key.
    SigningRequest::parse(&csr).map(Key::Of).map_err(|why| convert::invalid("csr", why))
}

/// The last moment of validity, out of a lifetime in seconds or as it is.
///
/// # Errors
/// Both, or out of bounds: a minute to 20 years from now.
pub fn not_after(asked: &GenerateCertificateRequest, now: Timestamp) -> Result<Timestamp, Status> {
    let (least, most) = (LIFE_MIN.as_secs(), limits::CERTIFICATE_LIFE_MAX.as_secs());
    let after = |life: Duration| {
        Timestamp(now.0.saturating_add(i64::try_from(life.as_millis()).unwrap_or(i64::MAX)))
    };
    match (asked.lifetime_seconds, asked.not_after_unix_ms) {
        (0, 0) => Ok(after(limits::CERTIFICATE_LIFE_DEFAULT)),
        (seconds, 0) if (least..=most).contains(&seconds) => {
            Ok(after(Duration::from_secs(seconds)))
        }
        (_, 0) => Err(convert::invalid("lifetime_seconds", format!("must be {least} to {most}"))),
        (0, moment) if moment <= now.0 => {
            Err(convert::invalid("not_after_unix_ms", "must be in the future"))
        }
        (0, moment)
            if (after(LIFE_MIN).0..=after(limits::CERTIFICATE_LIFE_MAX).0).contains(&moment) =>
        {
            Ok(Timestamp(moment))
        }
        (0, _) => {
            let why = format!("must be {least} to {most} seconds from now");
            Err(convert::invalid("not_after_unix_ms", why))
        }
        (_, _) => {
            let why = "cannot be given together with lifetime_seconds";
            Err(convert::invalid("not_after_unix_ms", why))
        }
    }
}

/// The password of a PFX as the caller chose it, the empty one too.
///
/// # Errors
/// Too long, or not to be typed, or not to be carried by a PFX.
pub fn password(text: String) -> Result<Secret, Status> {
    let chosen = Secret::new(text);
    let invalid = |why: &str| Err(convert::invalid("password", why));
    if chosen.expose().chars().count() > limits::PASSWORD_CHARS_MAX {
        let max = limits::PASSWORD_CHARS_MAX;
        return invalid(&format!("must not be longer than {max} characters"));
    }
    if chosen.expose().chars().any(char::is_control) {
        return invalid("must not hold control characters");
    }
    // The key derivation of PKCS#12 takes text of the Basic Multilingual Plane.
    if chosen.expose().chars().any(|c| u32::from(c) > 0xffff) {
        return invalid(
            "must not hold characters beyond U+FFFF, such as emoji: a PFX cannot carry them",
        );
    }
    Ok(chosen)
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
    let made = edge.work.run(making).await?;
    made.map_err(|error| convert::internal("The package could not be made", error))
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
    let request = IssueRequest {
        common_name: wish.name.as_str().to_owned(),
        not_before: Timestamp(now.0 - BACKDATED_MS),
        not_after: wish.not_after,
    };
    match wish.key {
        Key::Of(signing_request) => {
            let der = issue(node, |issuer, key| {
                certificates::issue_for_request(&request, &signing_request, issuer, key)
            })?;
            packed(&wish.name, der, HolderKey::WithHolder, &cluster, None)
        }
        Key::New { password, protection } => {
            let issued =
                issue(node, |issuer, key| certificates::issue_client(&request, issuer, key))?;
            let (password, made) = match password {
                Some(chosen) => (chosen, None),
                None => {
                    let made = certificates::password()?;
                    (made.clone(), Some(made))
                }
            };
            let key = HolderKey::Made { pem: &issued.key_pem, password: &password, protection };
            packed(&wish.name, issued.der, key, &cluster, made)
        }
    }
}

fn packed(
    name: &CertificateName,
    der: Vec<u8>,
    key: HolderKey<'_>,
    cluster: &Cluster,
    password: Option<Secret>,
) -> Result<Made, certificates::Error> {
    let archive = certificates::package(&PackageContents {
        name: name.as_str(),
        der: &der,
        key,
        ca_pem: &cluster.ca_pem,
        addresses: &cluster.addresses,
        node_thumbprints: &cluster.node_thumbprints,
        cluster_id: &cluster.cluster_id,
    })?;
    let file_name = format!("{}.zip", certificates::file_stem(name.as_str()));
    Ok(Made { der, archive, password, file_name })
}

/// Lets the node's own certificate be the issuer: nobody trusts the signature, everybody the registration.
fn issue<T>(
    node: &Node,
    sign: impl FnOnce(&[u8], &str) -> Result<T, certificates::Error>,
) -> Result<T, certificates::Error> {
    let identity = node.identity.load();
    let key = PrivateKeyDer::try_from(identity.expose_key_der())
        .map_err(|why| certificates::Error::Issuer(why.to_owned()))?;
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        PrivateKeyDer::Pkcs8(_) | _ => "PRIVATE KEY", // The enum is open.
    };
    let key_pem = certificates::pem(label, identity.expose_key_der());
    sign(identity.certificate_der(), key_pem.expose())
}
