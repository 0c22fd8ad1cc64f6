//! `rookery admin`: what the owner of a node's files does over its admin socket, without any certificate.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use rookery_client::{
    admin::Admin,
    proto::{admin::v1 as proto, security::v1 as security},
};

use super::{
    Failed, Result, Row, Session, clearance_name,
    contexts::Place,
    grant,
    init::pki,
    output::time,
    server::{SocketOf, read, trusted_by_clients},
};
use crate::names::{CertificateName, Thumbprint};

/// How much a certificate may do. Nodes join with a token, so they are not among these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ClearanceArg {
    /// Documents of the databases it is granted
    User,
    /// Databases, tasks and certificates of Users
    Operator,
    /// Everything
    ClusterAdmin,
}

impl From<ClearanceArg> for security::Clearance {
    fn from(clearance: ClearanceArg) -> Self {
        match clearance {
            ClearanceArg::User => Self::User,
            ClearanceArg::Operator => Self::Operator,
            ClearanceArg::ClusterAdmin => Self::ClusterAdmin,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Register a certificate from this machine: the way back in when no administrator's certificate is left
    Trust {
        /// PEM or DER
        file: PathBuf,
        /// What it is called
        #[arg(long)]
        name: String,
        /// How much it may do
        #[arg(long, value_enum)]
        clearance: ClearanceArg,
        /// Access of a User to a database: NAME:r, NAME:rw or NAME:admin
        #[arg(long = "db", value_parser = grant, value_name = "NAME:ACCESS", value_delimiter = ',')]
        databases: Vec<security::Grant>,
        #[command(flatten)]
        socket: SocketOf,
    },
    /// Make a key and a certificate on this machine, register it, and write the package
    Generate {
        /// What it is called
        name: String,
        /// How much it may do
        #[arg(long, value_enum)]
        clearance: ClearanceArg,
        /// Where to write the package
        #[arg(long, value_name = "ZIP")]
        out: PathBuf,
        #[command(flatten)]
        socket: SocketOf,
    },
    /// Delete a registration
    Delete {
        /// SHA-256 thumbprint
        thumbprint: Thumbprint,
        /// Even that of the last Cluster Admin
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        socket: SocketOf,
    },
    /// Show what this node is and whether it serves
    Status {
        #[command(flatten)]
        socket: SocketOf,
    },
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Trust { file, name, clearance, databases, socket } => {
                let request = proto::TrustCertificateRequest {
                    certificate: read(&file)?,
                    name,
                    clearance: security::Clearance::from(clearance).into(),
                    grants: databases,
                };
                let trusted = socket.connect(session)?.trust_certificate(request).await?;
                if trusted.private_key_dropped {
                    super::message("warning: the file held a private key; it was dropped");
                }
                session.out.one("thumbprint", &trusted_row(&trusted))
            }
            Self::Generate { name, clearance, out, socket } => {
                generate(session, &name, clearance, &out, &socket).await
            }
            Self::Delete { thumbprint, force, socket } => {
                let name = thumbprint.short();
                session.confirm("This deletes the registration of the certificate", &name)?;
                let request =
                    proto::RevokeCertificateRequest { thumbprint: thumbprint.to_string(), force };
                socket.connect(session)?.revoke_certificate(request).await?;
                let row = Row::new().with("thumbprint", thumbprint.to_string());
                session.out.one("thumbprint", &row.with("deleted", true))
            }
            Self::Status { socket } => {
                let state = socket.connect(session)?.node_state().await?;
                session.out.one("state", &state_row(state))
            }
        }
    }
}

/// The key is made here and goes into the package alone; the node sees only the certificate.
async fn generate(
    session: &mut Session,
    name: &str,
    clearance: ClearanceArg,
    out: &std::path::Path,
    socket: &SocketOf,
) -> Result<()> {
    CertificateName::parse(name).map_err(|e| Failed::usage(e.to_string()))?;
    let admin: Admin = socket.connect(session)?;
    let config = socket.file.load()?.config;
    let state = admin.node_state().await?;
    let place = Place::take(out)?;
    let made = pki::administrator(name)?;
    let ca_pem = trusted_by_clients(&config, &state)?;
    let about = pki::About {
        ca_pem: &ca_pem,
        addresses: std::slice::from_ref(&config.advertise.client),
        nodes: &[Thumbprint::of(&state.certificate)],
        cluster_id: &state.cluster_id,
    };
    let package = pki::package(name, &made, &about)?;
    let request = proto::TrustCertificateRequest {
        certificate: made.der.clone(),
        name: name.to_owned(),
        clearance: security::Clearance::from(clearance).into(),
        grants: Vec::new(),
    };
    let trusted = admin.trust_certificate(request).await?;
    let written = place.display();
    place.fill(&package.zip)?;
    super::message("The password of the PFX in the package is shown this once.");
    let row = trusted_row(&trusted).with("password", package.password.expose());
    session.out.one("thumbprint", &row.with("package", written))
}

fn trusted_row(trusted: &proto::TrustCertificateResponse) -> Row {
    Row::new()
        .with("name", trusted.name.clone())
        .with("thumbprint", trusted.thumbprint.clone())
        .with("clearance", clearance_name(trusted.clearance))
        .with("expires", time(trusted.not_after_unix_ms))
}

fn state_row(state: proto::GetNodeStateResponse) -> Row {
    let status = state.status.unwrap_or_default();
    Row::new()
        .with("state", state.state)
        .with("node", state.node_name)
        .with("node_id", state.node_id)
        .with("cluster_id", state.cluster_id)
        .with("thumbprint", state.thumbprint)
        .with("certificate_expires", time(status.certificate_not_after_unix_ms))
        .with("fresh", status.authorization_fresh)
        .with("registry_revision", status.registry_revision)
        .with("version", state.version)
        .with("reason", state.reason)
}
