//! The formation file: the members and administrators a new cluster starts with, the same on all nodes.
//!
//! ```toml
//! cluster_id = "0198c0de-0000-7000-8000-000000000001"
//! [[nodes]]                      # the order gives the node ids 1 to N
//! name = "n1"
//! client_address = "n1.example:7443"
//! peer_address = "n1.example:7444"
//! thumbprint = "…"               # SHA-256 of the certificate
//! certificate = "…"              # PEM, or the path of a PEM file
//! [[administrators]]
//! name = "admin"
//! certificate = "…"
//! ```

use std::path::{Path, PathBuf};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};

use crate::{
    limits,
    names::{CertificateName, NodeName, Thumbprint},
};

/// The members and administrators a new cluster starts with. Checked: ids, names and addresses are unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formation {
    /// A UUID.
    pub cluster_id: String,
    /// The first members, in the order of their ids from 1.
    pub nodes: Vec<Member>,
    /// Who is registered as Cluster Admin.
    pub administrators: Vec<Administrator>,
}

/// A member of the first membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// From 1, in the order of the file.
    pub id: u64,
    /// The node's name.
    pub name: String,
    /// `host:port` of the client listener.
    pub client_address: String,
    /// `host:port` of the peer listener.
    pub peer_address: String,
    /// SHA-256 of the certificate.
    pub thumbprint: Thumbprint,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
}

/// A Cluster Admin of the new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administrator {
    /// What the certificate is called.
    pub name: String,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
}

/// Why a formation file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FormationError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong and where.
    pub problem: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster_id: String,
    nodes: Vec<FileNode>,
    #[serde(default)]
    administrators: Vec<FileAdministrator>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileNode {
    name: String,
    client_address: String,
    peer_address: String,
    thumbprint: String,
    certificate: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct FileAdministrator {
    name: String,
    certificate: String,
}

impl Formation {
    /// Reads a formation file; certificates given as paths are taken from its folder.
    ///
    /// # Errors
    /// What is wrong, with the file's name.
    pub fn load(path: &Path) -> Result<Self, FormationError> {
        let failed = |problem: String| FormationError { path: path.to_owned(), problem };
        let text = super::read_bounded(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("."))).map_err(failed)
    }

    /// [`Formation::load`] for a text at hand.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        uuid::Uuid::try_parse(&file.cluster_id).map_err(|_| "cluster_id must be a UUID")?;
        if file.nodes.is_empty() || file.nodes.len() > limits::NODES_MAX {
            return Err(format!("there must be 1 to {} nodes", limits::NODES_MAX));
        }
        let nodes = (1..)
            .zip(file.nodes)
            .map(|(id, node)| member(id, node, folder))
            .collect::<Result<Vec<_>, _>>()?;
        unique("name", nodes.iter().map(|n| n.name.to_ascii_lowercase()))?;
        unique("client_address", nodes.iter().map(|n| n.client_address.clone()))?;
        unique("peer_address", nodes.iter().map(|n| n.peer_address.clone()))?;
        unique("certificate", nodes.iter().map(|n| n.thumbprint.to_string()))?;
        let administrators = file
            .administrators
            .into_iter()
            .map(|admin| administrator(admin, folder))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { cluster_id: file.cluster_id, nodes, administrators })
    }

    /// The file's text, with the certificates in PEM.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let file = File {
            cluster_id: self.cluster_id.clone(),
            nodes: self.nodes.iter().map(Member::to_file).collect(),
            administrators: self
                .administrators
                .iter()
                .map(|a| FileAdministrator {
                    name: a.name.clone(),
                    certificate: pem(&a.certificate),
                })
                .collect(),
        };
        toml::to_string(&file).unwrap_or_default()
    }
}

impl Member {
    fn to_file(&self) -> FileNode {
        FileNode {
            name: self.name.clone(),
            client_address: self.client_address.clone(),
            peer_address: self.peer_address.clone(),
            thumbprint: self.thumbprint.to_string(),
            certificate: pem(&self.certificate),
        }
    }
}

fn member(id: u64, node: FileNode, folder: &Path) -> Result<Member, String> {
    let at = |what: &str| format!("node {id} ({}): {what}", node.name);
    NodeName::parse(&node.name).map_err(|e| at(&e.to_string()))?;
    for (key, address) in
        [("client_address", &node.client_address), ("peer_address", &node.peer_address)]
    {
        super::host_and_port(address).map_err(|why| at(&format!("{key} {why}")))?;
    }
    let certificate = certificate(&node.certificate, folder).map_err(|e| at(&e))?;
    let thumbprint: Thumbprint =
        node.thumbprint.parse().map_err(|e: crate::names::Invalid| at(&e.to_string()))?;
    if thumbprint != Thumbprint::of(&certificate) {
        return Err(at("thumbprint is not that of the certificate"));
    }
    let FileNode { name, client_address, peer_address, .. } = node;
    Ok(Member { id, name, client_address, peer_address, thumbprint, certificate })
}

fn administrator(admin: FileAdministrator, folder: &Path) -> Result<Administrator, String> {
    let at = |what: &str| format!("administrator {}: {what}", admin.name);
    CertificateName::parse(&admin.name).map_err(|e| at(&e.to_string()))?;
    let certificate = certificate(&admin.certificate, folder).map_err(|e| at(&e))?;
    Ok(Administrator { name: admin.name, certificate })
}

/// The DER of a certificate given as PEM text, or as the path of a PEM file.
fn certificate(text: &str, folder: &Path) -> Result<Vec<u8>, String> {
    let pem = if text.contains("-----BEGIN") {
        text.to_owned()
    } else {
        let path = folder.join(text);
        super::read_bounded(&path)
            .map_err(|e| format!("certificate {} cannot be read: {e}", path.display()))?
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| format!("certificate is no PEM: {e}"))?;
    if der.len() > limits::CERTIFICATE_BYTES_MAX {
        return Err(format!("certificate is larger than {} bytes", limits::CERTIFICATE_BYTES_MAX));
    }
    Ok(der.to_vec())
}

fn unique(what: &str, values: impl Iterator<Item = String>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for value in values {
        if !seen.insert(value.clone()) {
            return Err(format!("two nodes have the {what} {value}"));
        }
    }
    Ok(())
}

/// PEM of a certificate (RFC 7468: 64 characters a line).
fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
