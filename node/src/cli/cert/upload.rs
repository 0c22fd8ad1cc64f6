//! `rookery cert upload`: registers the public part of certificates that somebody else made.

use std::path::PathBuf;

use clap::Args;
use rookery_client::proto::security::v1 as proto;

use super::{
    Remarks, Rights,
    files::{PasswordArgs, explain_upload},
    read_bounded, show,
};
use crate::cli::{Result, Session};

/// One file is one entry: the first certificate in it is the primary, the others are its secondaries.
#[derive(Debug, Args)]
pub(in crate::cli) struct Upload {
    /// PEM, DER or PKCS#12 (.pfx, .p12), one certificate or several; `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    password: PasswordArgs,
    /// What it is called
    #[arg(long)]
    name: String,
    #[command(flatten)]
    rights: Rights,
    #[command(flatten)]
    remarks: Remarks,
    /// Where the first certificate is registered already: make its entry what this is
    #[arg(long)]
    overwrite: bool,
    /// Overwrite only where the registration still has this etag
    #[arg(long, requires = "overwrite")]
    etag: Option<String>,
    /// Go ahead where this takes clearance from the certificate in use
    #[arg(long, requires = "overwrite")]
    confirm_self_demotion: bool,
}

impl Upload {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let request = proto::UploadCertificateRequest {
            name: self.name,
            clearance: self.rights.clearance.into(),
            grants: self.rights.databases,
            password: self.password.read(&self.file)?,
            certificate: read_bounded(&self.file)?.to_vec(),
            overwrite: self.overwrite,
            note: self.remarks.note.unwrap_or_default(),
            owner: self.remarks.owner.unwrap_or_default(),
            confirm_self_demotion: self.confirm_self_demotion,
            expected_etag: self.etag.unwrap_or_default(),
            request_id: String::new(),
        };
        let answer = session.client()?.upload_certificate(request).await?;
        explain_upload(&answer);
        show(session, answer.certificate)
    }
}
