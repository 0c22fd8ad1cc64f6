//! `rookery cert`: who is known, and what they may do.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use rookery_client::proto::security::v1 as proto;

use super::{
    ClearanceArg, Column, Failed, Result, Row, Session, clearance_name,
    contexts::Place,
    duration, grant, grants,
    output::{Format, column, time, wide},
};
use crate::{certificates::file_stem, names::Thumbprint};

/// Largest certificate file that is sent.
const UPLOAD_BYTES_MAX: u64 = 256 * 1024;
/// Certificates a page.
const PAGE_SIZE: u32 = 500;

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

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List certificates
    List {
        /// Only this clearance
        #[arg(long, value_enum)]
        clearance: Option<ClearanceArg>,
        /// Only certificates with access to this database
        #[arg(long)]
        db: Option<String>,
        /// Only names that contain this
        #[arg(long)]
        name: Option<String>,
        /// Only certificates that expire within this time
        #[arg(long, value_parser = duration, value_name = "30d")]
        expiring: Option<Duration>,
    },
    /// Show one certificate
    Show {
        /// SHA-256 thumbprint
        thumbprint: Thumbprint,
    },
    /// Make a key and a certificate, register it, and write the package; the key is kept nowhere else
    Generate {
        /// What it is called
        name: String,
        #[command(flatten)]
        rights: Rights,
        /// How long it is valid
        #[arg(long, value_parser = duration, value_name = "365d")]
        ttl: Option<Duration>,
        /// File with the password of the PFX; one is made and shown once where none is given
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Where to write the package
        #[arg(long, value_name = "ZIP")]
        out: Option<PathBuf>,
    },
    /// Register the public part of an existing certificate
    Upload {
        /// PEM or DER; `-` is standard input
        file: PathBuf,
        /// What it is called
        #[arg(long)]
        name: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// Change name, clearance or permissions
    Edit {
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
        /// Only where the registration still has this etag
        #[arg(long)]
        etag: Option<String>,
    },
    /// Delete the registration: the certificate is refused everywhere from then on
    Delete {
        /// SHA-256 thumbprint
        thumbprint: Thumbprint,
    },
}

const COLUMNS: &[Column] = &[
    column("name"),
    column("short"),
    column("clearance"),
    column("databases"),
    column("state"),
    column("expires"),
    wide("thumbprint"),
    wide("issuer"),
    wide("key_algorithm"),
    wide("created"),
    wide("created_by"),
];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::List { clearance, db, name, expiring } => {
                let filter = proto::ListCertificatesRequest {
                    page_size: PAGE_SIZE,
                    page_token: String::new(),
                    clearance: clearance.map_or(0, i32::from),
                    database: db.unwrap_or_default(),
                    name_contains: name.unwrap_or_default(),
                };
                list(session, filter, expiring).await
            }
            Self::Show { thumbprint } => {
                let request = proto::GetCertificateRequest { thumbprint: thumbprint.to_string() };
                let answer = session.client()?.get_certificate(request).await?;
                show(session, answer.certificate)
            }
            Self::Generate { name, rights, ttl, password_file, out } => {
                let password = password_file.as_deref().map(password).transpose()?;
                let request = proto::GenerateCertificateRequest {
                    name,
                    clearance: rights.clearance.into(),
                    grants: rights.databases,
                    lifetime_seconds: ttl.map_or(0, |ttl| ttl.as_secs()),
                    password: password.unwrap_or_default(),
                    request_id: String::new(),
                };
                generate(session, request, out).await
            }
            Self::Upload { file, name, rights } => {
                let request = proto::UploadCertificateRequest {
                    name,
                    clearance: rights.clearance.into(),
                    grants: rights.databases,
                    certificate: read_bounded(&file)?,
                    request_id: String::new(),
                };
                let answer = session.client()?.upload_certificate(request).await?;
                if answer.private_key_dropped {
                    super::message("warning: the file held a private key; it was sent and dropped");
                }
                show(session, answer.certificate)
            }
            Self::Edit { thumbprint, name, clearance, databases, no_db, etag } => {
                let request = proto::EditCertificateRequest {
                    thumbprint: thumbprint.to_string(),
                    name: name.unwrap_or_default(),
                    clearance: clearance.map_or(0, i32::from),
                    set_grants: no_db || !databases.is_empty(),
                    grants: databases,
                    expected_etag: etag.unwrap_or_default(),
                    request_id: String::new(),
                };
                let answer = session.client()?.edit_certificate(request).await?;
                show(session, answer.certificate)
            }
            Self::Delete { thumbprint } => delete(session, thumbprint).await,
        }
    }
}

async fn list(
    session: &mut Session,
    mut filter: proto::ListCertificatesRequest,
    expiring: Option<Duration>,
) -> Result<()> {
    let client = session.client()?;
    let until = expiring.map(|within| {
        let within = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        jiff::Timestamp::now().as_millisecond().saturating_add(within)
    });
    let mut rows = Vec::new();
    loop {
        let page = client.list_certificates(filter.clone()).await?;
        let kept = |c: &&proto::Certificate| until.is_none_or(|until| c.not_after_unix_ms <= until);
        rows.extend(page.certificates.iter().filter(kept).map(row));
        if page.next_page_token.is_empty() || page.next_page_token == filter.page_token {
            break;
        }
        filter.page_token = page.next_page_token;
    }
    session.out.list(COLUMNS, "thumbprint", &rows)
}

async fn generate(
    session: &mut Session,
    request: proto::GenerateCertificateRequest,
    out: Option<PathBuf>,
) -> Result<()> {
    // Where the package goes is settled before a key is made that would otherwise be lost.
    let out = out.unwrap_or_else(|| free_path(&file_stem(&request.name)));
    let place = Place::take(&out)?;
    let answer = session.client()?.generate_certificate(request).await?;
    let package = zeroize::Zeroizing::new(answer.package);
    let certificate = answer.certificate.unwrap_or_default();
    let described = row(&certificate).with("package", place.display());
    place.fill(&package)?;
    let described = if answer.password.is_empty() {
        described
    } else {
        super::message("The password of the PFX in the package is shown this once.");
        described.with("password", answer.password)
    };
    session.out.one("thumbprint", &described)
}

/// A file of this name in the current folder; never one that exists.
fn free_path(stem: &str) -> PathBuf {
    (0..1000)
        .map(|n| if n == 0 { format!("{stem}.zip") } else { format!("{stem}-{n}.zip") })
        .map(PathBuf::from)
        .find(|path| !path.exists())
        .unwrap_or_else(|| PathBuf::from(format!("{stem}-{}.zip", uuid::Uuid::now_v7())))
}

async fn delete(session: &mut Session, thumbprint: Thumbprint) -> Result<()> {
    let client = session.client()?;
    let request = proto::GetCertificateRequest { thumbprint: thumbprint.to_string() };
    let certificate = client.get_certificate(request).await?.certificate.unwrap_or_default();
    session.confirm("This deletes the registration of the certificate", &certificate.name)?;
    let request = proto::DeleteCertificateRequest {
        thumbprint: thumbprint.to_string(),
        request_id: String::new(),
    };
    client.delete_certificate(request).await?;
    let row = Row::new()
        .with("thumbprint", thumbprint.to_string())
        .with("name", certificate.name)
        .with("deleted", true);
    session.out.one("thumbprint", &row)
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
    Row::new()
        .with("name", c.name)
        .with("thumbprint", c.thumbprint)
        .with("short", short)
        .with("thumbprint_sha1", c.thumbprint_sha1)
        .with("clearance", clearance_name(c.clearance))
        .with("databases", grants(&c.grants))
        .with("state", c.state)
        .with("valid_from", time(c.not_before_unix_ms))
        .with("expires", time(c.not_after_unix_ms))
        .with("subject", c.subject)
        .with("issuer", c.issuer)
        .with("serial", c.serial_hex)
        .with("key_algorithm", c.key_algorithm)
        .with("created", time(c.created_unix_ms))
        .with("created_by", c.created_by)
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

fn password(path: &Path) -> Result<String> {
    let bytes = read_bounded(path)?;
    let text = String::from_utf8(bytes).map_err(|_| Failed::usage("the password is not UTF-8"))?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() { Err(Failed::usage("the password file is empty")) } else { Ok(text) }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let failed = |e: std::io::Error| Failed::file(path, &e);
    if path == Path::new("-") {
        std::io::stdin().take(UPLOAD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(UPLOAD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > UPLOAD_BYTES_MAX {
        return Err(Failed::usage(format!("{} is too large", path.display())));
    }
    Ok(bytes)
}
