//! `rookery cert generate` and `rookery cert clone`: a key and a certificate, in a package that is written once.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use rookery_client::proto::security::v1 as proto;

use super::{Remarks, Rights, files::KeyArgs, read_bounded, row};
use crate::{
    certificates::file_stem,
    cli::{Failed, Result, Session, contexts::Place, duration, message},
    names::Thumbprint,
};

/// How the package is made and where it goes.
#[derive(Debug, Args)]
pub(in crate::cli) struct Package {
    /// How long it is valid
    #[arg(long, value_parser = duration, value_name = "365d")]
    ttl: Option<Duration>,
    /// File with the password of the PFX; one is made and shown once where none is given
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where to write the package
    #[arg(long, value_name = "ZIP")]
    out: Option<PathBuf>,
}

/// A new certificate with the rights that are named.
#[derive(Debug, Args)]
pub(in crate::cli) struct Generate {
    /// What it is called
    name: String,
    #[command(flatten)]
    rights: Rights,
    #[command(flatten)]
    remarks: Remarks,
    #[command(flatten)]
    package: Package,
    #[command(flatten)]
    key: KeyArgs,
}

/// A new certificate with the rights of another one.
#[derive(Debug, Args)]
pub(in crate::cli) struct Clone {
    /// SHA-256 thumbprint of the certificate whose rights, note and owner it gets
    thumbprint: Thumbprint,
    /// What it is called
    #[arg(long)]
    name: String,
    #[command(flatten)]
    package: Package,
}

impl Generate {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let (place, password) = self.package.prepare(&self.name)?;
        let request = proto::GenerateCertificateRequest {
            name: self.name,
            clearance: self.rights.clearance.into(),
            grants: self.rights.databases,
            lifetime_seconds: self.package.lifetime_seconds(),
            password,
            csr: self.key.csr()?,
            pfx_compat: self.key.pfx_compat,
            note: self.remarks.note.unwrap_or_default(),
            owner: self.remarks.owner.unwrap_or_default(),
            ..Default::default()
        };
        let answer = session.client()?.generate_certificate(request).await?;
        write(session, place, answer.package, answer.certificate, answer.password)
    }
}

impl Clone {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let (place, password) = self.package.prepare(&self.name)?;
        let request = proto::CloneCertificateRequest {
            thumbprint: self.thumbprint.to_string(),
            name: self.name,
            lifetime_seconds: self.package.lifetime_seconds(),
            password,
            request_id: String::new(),
        };
        let answer = session.client()?.clone_certificate(request).await?;
        write(session, place, answer.package, answer.certificate, answer.password)
    }
}

impl Package {
    /// Where the package goes is settled before a key is made that would otherwise be lost.
    fn prepare(&self, name: &str) -> Result<(Place, String)> {
        let password = self.password_file.as_deref().map(password).transpose()?;
        let out = self.out.clone().unwrap_or_else(|| free_path(&file_stem(name)));
        Ok((Place::take(&out)?, password.unwrap_or_default()))
    }

    fn lifetime_seconds(&self) -> u64 {
        self.ttl.map_or(0, |ttl| ttl.as_secs())
    }
}

fn write(
    session: &mut Session,
    place: Place,
    package: Vec<u8>,
    certificate: Option<proto::Certificate>,
    password: String,
) -> Result<()> {
    let package = zeroize::Zeroizing::new(package);
    let described = row(&certificate.unwrap_or_default()).with("package", place.display());
    place.fill(&package)?;
    let described = if password.is_empty() {
        described
    } else {
        message("The password of the PFX in the package is shown this once.");
        described.with("password", password)
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

pub(super) fn password(path: &Path) -> Result<String> {
    let bytes = read_bounded(path)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Failed::usage("the password is not UTF-8"))?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() { Err(Failed::usage("the password file is empty")) } else { Ok(text) }
}
