//! `rookery cert`: who is known, and what they may do.

mod files;
mod generate;
mod inspect;
mod list;
mod upload;

use std::{io::Read as _, path::Path};

use clap::{Args, Subcommand};
use rookery_client::proto::security::v1 as proto;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    ClearanceArg, Failed, Result, Row, Session, clearance_name, grant, grants, monitoring,
    output::{Format, time},
    trust,
};
use crate::{limits, names::Thumbprint};

/// Name, clearance and permissions: kept by the cluster, not in the certificate.
#[derive(Debug, Args)]
pub(super) struct Rights {
    /// How much it may do
    #[arg(long, value_enum)]
    clearance: ClearanceArg,
    /// Access of a User to a database: NAME:r, NAME:rw or NAME:admin
    #[arg(long = "db", value_parser = grant, value_name = "NAME:ACCESS", value_delimiter = ',')]
    databases: Vec<proto::Grant>,
}

/// What administrators remark; it decides nothing.
#[derive(Debug, Args)]
pub(super) struct Remarks {
    /// A remark, up to 1,024 characters
    #[arg(long)]
    note: Option<String>,
    /// Who answers for it, such as a team or a mail address
    #[arg(long)]
    owner: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List certificates
    List(list::List),
    /// Show one certificate; a secondary shows its primary
    Show {
        /// SHA-256 thumbprint
        thumbprint: Thumbprint,
    },
    /// Make a key and a certificate, register it, and write the package; the key is kept nowhere else
    Generate(generate::Generate),
    /// Show what the cluster reads in a file of certificates; registers nothing
    Inspect(inspect::Inspect),
    /// Register the public part of existing certificates: one file is one entry
    Upload(upload::Upload),
    /// Make a new certificate with clearance, permissions, note and owner of another one
    Clone(generate::Clone),
    /// Change name, clearance, permissions, note or owner
    Edit(Edit),
    /// Switch a certificate off: it is refused everywhere until it is enabled again
    Disable {
        /// SHA-256 thumbprint
        thumbprint: Thumbprint,
        /// Only where the registration still has this etag
        #[arg(long)]
        etag: Option<String>,
    },
    /// Switch a disabled certificate on again
    Enable {
        /// SHA-256 thumbprint
        thumbprint: Thumbprint,
        /// Only where the registration still has this etag
        #[arg(long)]
        etag: Option<String>,
    },
    /// The certificates of the nodes
    #[command(subcommand)]
    Server(super::cert_server::Verb),
    /// Delete the registration: the certificate is refused everywhere from then on
    Delete {
        /// SHA-256 thumbprint
        thumbprint: Thumbprint,
    },
    /// Delete the registrations of all expired certificates that you may delete
    Purge,
    /// Write the public certificates of all nodes to a file, for another cluster that is to let them in
    ExportServer(files::ExportServer),
    #[command(flatten)]
    Trust(trust::Verb),
    #[command(flatten)]
    Live(monitoring::Verb),
}

/// What is not given stays as it is.
#[derive(Debug, Args)]
pub(super) struct Edit {
    /// SHA-256 thumbprint
    thumbprint: Thumbprint,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// New clearance
    #[arg(long, value_enum)]
    clearance: Option<ClearanceArg>,
    /// All grants it is to have, in place of those it has
    #[arg(long = "db", value_parser = grant, value_name = "NAME:ACCESS", value_delimiter = ',')]
    databases: Vec<proto::Grant>,
    /// Take all grants away
    #[arg(long, conflicts_with = "databases")]
    no_db: bool,
    #[command(flatten)]
    remarks: Remarks,
    /// Only where the registration still has this etag
    #[arg(long)]
    etag: Option<String>,
    /// Go ahead where this takes clearance from the certificate in use
    #[arg(long)]
    confirm_self_demotion: bool,
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::List(list) => list.run(session).await,
            Self::Server(verb) => verb.run(session).await,
            Self::Show { thumbprint } => {
                let certificate = get(session, &thumbprint).await?;
                show(session, Some(certificate))
            }
            Self::Generate(generate) => generate.run(session).await,
            Self::Inspect(inspect) => inspect.run(session).await,
            Self::Upload(upload) => upload.run(session).await,
            Self::Clone(clone) => clone.run(session).await,
            Self::Edit(edit) => edit.run(session).await,
            Self::Disable { thumbprint, etag } => disable(session, &thumbprint, etag).await,
            Self::Enable { thumbprint, etag } => {
                let request = proto::EnableCertificateRequest {
                    thumbprint: thumbprint.to_string(),
                    expected_etag: etag.unwrap_or_default(),
                    request_id: String::new(),
                };
                let answer = session.client()?.enable_certificate(request).await?;
                show(session, answer.certificate)
            }
            Self::Delete { thumbprint } => delete(session, thumbprint).await,
            Self::Purge => purge(session).await,
            Self::ExportServer(export) => export.run(session).await,
            Self::Trust(verb) => verb.run(session).await,
            Self::Live(verb) => verb.run(session).await,
        }
    }
}

impl Edit {
    async fn run(self, session: &mut Session) -> Result<()> {
        let request = proto::EditCertificateRequest {
            thumbprint: self.thumbprint.to_string(),
            name: self.name.unwrap_or_default(),
            clearance: self.clearance.map_or(0, i32::from),
            set_grants: self.no_db || !self.databases.is_empty(),
            grants: self.databases,
            expected_etag: self.etag.unwrap_or_default(),
            request_id: String::new(),
            note: self.remarks.note,
            owner: self.remarks.owner,
            confirm_self_demotion: self.confirm_self_demotion,
        };
        let answer = session.client()?.edit_certificate(request).await?;
        show(session, answer.certificate)
    }
}

async fn get(session: &Session, thumbprint: &Thumbprint) -> Result<proto::Certificate> {
    let request = proto::GetCertificateRequest { thumbprint: thumbprint.to_string() };
    Ok(session.client()?.get_certificate(request).await?.certificate.unwrap_or_default())
}

async fn disable(
    session: &mut Session,
    thumbprint: &Thumbprint,
    etag: Option<String>,
) -> Result<()> {
    let certificate = get(session, thumbprint).await?;
    let what = format!("This switches off the certificate{}", with_secondaries(&certificate));
    session.confirm(&what, &certificate.name)?;
    let request = proto::DisableCertificateRequest {
        thumbprint: thumbprint.to_string(),
        expected_etag: etag.unwrap_or_default(),
        request_id: String::new(),
    };
    let answer = session.client()?.disable_certificate(request).await?;
    show(session, answer.certificate)
}

async fn delete(session: &mut Session, thumbprint: Thumbprint) -> Result<()> {
    let certificate = get(session, &thumbprint).await?;
    let secondaries = with_secondaries(&certificate);
    let what = format!("This deletes the registration of the certificate{secondaries}");
    session.confirm(&what, &certificate.name)?;
    let request = proto::DeleteCertificateRequest {
        thumbprint: thumbprint.to_string(),
        request_id: String::new(),
    };
    session.client()?.delete_certificate(request).await?;
    let row = Row::new()
        .with("thumbprint", thumbprint.to_string())
        .with("name", certificate.name)
        .with("deleted", true);
    session.out.one("thumbprint", &row)
}

/// Deletes until nothing is left that the caller may delete; each call of the cluster is bounded.
async fn purge(session: &mut Session) -> Result<()> {
    session.confirm("This deletes the registrations of all expired certificates", "expired")?;
    let client = session.client()?;
    let mut thumbprints = Vec::new();
    let kept = loop {
        let answer = client.purge_certificates(proto::PurgeCertificatesRequest::default()).await?;
        let nothing = answer.thumbprints.is_empty();
        thumbprints.extend(answer.thumbprints);
        if !answer.more || nothing {
            break answer.kept;
        }
    };
    if kept > 0 {
        super::message(&format!("{kept} expired certificates are not yours to delete"));
    }
    let row = Row::new()
        .with("purged", thumbprints.len())
        .with("kept", kept)
        .with("thumbprints", thumbprints);
    session.out.one("thumbprints", &row)
}

fn with_secondaries(certificate: &proto::Certificate) -> String {
    match certificate.secondaries.len() {
        0 => String::new(),
        1 => " and its secondary".to_owned(),
        several => format!(" and its {several} secondaries"),
    }
}

fn show(session: &mut Session, certificate: Option<proto::Certificate>) -> Result<()> {
    let certificate = certificate.unwrap_or_default();
    let described = row(&certificate);
    let described = match session.out.format {
        Format::Json | Format::Jsonl | Format::Yaml => {
            described.with("der", hex::encode(&certificate.der))
        }
        Format::Table | Format::Wide | Format::Name => described,
    };
    session.out.one("thumbprint", &described)
}

pub(super) fn row(certificate: &proto::Certificate) -> Row {
    let c = certificate.clone();
    let short = c.thumbprint.get(..12).unwrap_or_default().to_owned();
    let secondaries: Vec<_> = c.secondaries.iter().map(secondary).collect();
    Row::new()
        .with("name", c.name)
        .with("thumbprint", c.thumbprint)
        .with("short", short)
        .with("thumbprint_sha1", c.thumbprint_sha1)
        .with("clearance", clearance_name(c.clearance))
        .with("databases", grants(&c.grants))
        .with("state", c.state)
        .with("disabled", c.disabled)
        .with("valid_from", time(c.not_before_unix_ms))
        .with("expires", time(c.not_after_unix_ms))
        .with("subject", c.subject)
        .with("issuer", c.issuer)
        .with("serial", c.serial_hex)
        .with("key_algorithm", c.key_algorithm)
        .with("generated", c.generated)
        .with("certificates", 1 + secondaries.len())
        .with("secondaries", secondaries)
        .with("note", c.note)
        .with("owner", c.owner)
        .with("created", time(c.created_unix_ms))
        .with("created_by", c.created_by)
        .with("last_used", time(c.last_used_unix_ms))
        .with("last_used_node", c.last_used_node)
        .with("etag", c.etag)
        .with("second_factor", second_factor(certificate))
}

fn second_factor(certificate: &proto::Certificate) -> &'static str {
    match (certificate.has_second_factor, certificate.session_expires_unix_ms > 0) {
        (true, true) => "logged in",
        (true, false) => "confirmed",
        (false, _) if certificate.second_factor_pending => "pending",
        (false, _) => "",
    }
}

fn secondary(secondary: &proto::SecondaryCertificate) -> serde_json::Value {
    json!({
        "thumbprint": secondary.thumbprint,
        "state": secondary.state,
        "expires": time(secondary.not_after_unix_ms),
        "subject": secondary.subject,
    })
}

/// A file with certificates, keys or a password, `-` for standard input; within the bound of what can be sent.
pub(in crate::cli) fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let bytes_max = limits::UPLOAD_BYTES_MAX as u64;
    // Its buffer never grows, so that no copy is left anywhere.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limits::UPLOAD_BYTES_MAX + 1));
    let failed = |e: std::io::Error| Failed::file(path, &e);
    if path == Path::new("-") {
        std::io::stdin().take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > bytes_max {
        let why = format!("{} is larger than the {bytes_max} bytes that are taken", path.display());
        return Err(Failed::usage(why));
    }
    Ok(bytes)
}
