//! The certificates that `init`, `bootstrap` and `dev` make on this machine.

use std::path::Path;

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::super::{Failed, Result};
use crate::{
    certificates::{
        self, Error, HolderKey, IssueRequest, Issued, PackageContents, Protection, Secret,
        certificate_pem,
    },
    names::{Thumbprint, Timestamp},
};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// A certificate is valid from a week ago, for clocks that are behind.
const BACKDATED_MS: i64 = 7 * DAY_MS;
/// How long the CA and the certificates of nodes are valid.
const NODE_LIFE_MS: i64 = 10 * 365 * DAY_MS;
/// How long the certificate of the first Cluster Admin is valid.
const ADMIN_LIFE_MS: i64 = 5 * 365 * DAY_MS;

/// A certificate with its key.
pub(in crate::cli) struct Made {
    /// The certificate.
    pub(in crate::cli) der: Vec<u8>,
    /// The private key in PEM (PKCS#8).
    pub(in crate::cli) key_pem: Secret,
}

impl Made {
    /// The certificate in PEM.
    pub(in crate::cli) fn certificate_pem(&self) -> String {
        certificate_pem(&self.der)
    }
}

impl From<Issued> for Made {
    fn from(issued: Issued) -> Self {
        Self { der: issued.der, key_pem: issued.key_pem }
    }
}

fn failed(error: Error) -> Failed {
    let message = format!("making certificates: {error}");
    if matches!(error, Error::Request(_) | Error::Issuer(_) | Error::Address(_)) {
        Failed::usage(message)
    } else {
        Failed::unexpected(message)
    }
}

fn request(name: &str, life_ms: i64) -> IssueRequest {
    let now = jiff::Timestamp::now().as_millisecond();
    IssueRequest {
        common_name: name.to_owned(),
        not_before: Timestamp(now - BACKDATED_MS),
        not_after: Timestamp(now + life_ms),
    }
}

/// A new CA.
pub(in crate::cli) fn authority() -> Result<Made> {
    let ca = certificates::issue_ca(&request("Rookery CA", NODE_LIFE_MS));
    ca.map(Made::from).map_err(failed)
}

/// A certificate for a node, good for these hosts.
pub(in crate::cli) fn node(name: &str, hosts: &[String], ca: &Made) -> Result<Made> {
    let request = request(name, NODE_LIFE_MS);
    let node = certificates::issue_node(&request, hosts, &ca.der, ca.key_pem.expose());
    node.map(Made::from).map_err(failed)
}

/// A certificate for a client, signed by the CA. What it may do is registered, not signed.
pub(in crate::cli) fn client(name: &str, ca: &Made) -> Result<Made> {
    let request = request(name, ADMIN_LIFE_MS);
    let client = certificates::issue_client(&request, &ca.der, ca.key_pem.expose());
    client.map(Made::from).map_err(failed)
}

/// A certificate for a Cluster Admin where no CA is at hand: its issuer's key is forgotten at once.
pub(in crate::cli) fn administrator(name: &str) -> Result<Made> {
    client(name, &authority()?)
}

/// Reads a certificate and its key from PEM files.
pub(in crate::cli) fn load(certificate: &Path, key: &Path) -> Result<Made> {
    let der = self::certificate(certificate)?;
    let key_pem = std::fs::read_to_string(key).map_err(|e| Failed::file(key, &e))?;
    Ok(Made { der, key_pem: Secret::new(key_pem) })
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
    /// The password of the PFX in it.
    pub(in crate::cli) password: Secret,
}

/// What a package tells about the cluster.
pub(in crate::cli) struct About<'a> {
    /// What servers are verified with.
    pub(in crate::cli) ca_pem: &'a str,
    /// host:port of the client listeners.
    pub(in crate::cli) addresses: &'a [String],
    /// Thumbprints of the nodes.
    pub(in crate::cli) nodes: &'a [Thumbprint],
    /// The cluster's id.
    pub(in crate::cli) cluster_id: &'a str,
}

/// Packs a client's certificate and key, with a new password for the PFX.
pub(in crate::cli) fn package(name: &str, made: &Made, about: &About<'_>) -> Result<Package> {
    let password = certificates::password().map_err(failed)?;
    let contents = PackageContents {
        name,
        der: &made.der,
        key: HolderKey::Made {
            pem: &made.key_pem,
            password: &password,
            protection: Protection::Modern,
        },
        ca_pem: about.ca_pem,
        addresses: about.addresses,
        node_thumbprints: about.nodes,
        cluster_id: about.cluster_id,
    };
    let zip = certificates::package(&contents).map_err(failed)?;
    Ok(Package { zip: Zeroizing::new(zip), password })
}
