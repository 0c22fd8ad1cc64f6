//! `rookery cert inspect`: what the cluster reads in a file, before anything of it is registered.

use std::path::PathBuf;

use clap::Args;
use rookery_client::proto::security::v1 as proto;

use super::{
    files::{PasswordArgs, explain_left_out},
    read_bounded, row,
};
use crate::cli::{
    Column, Result, Session,
    output::{column, wide},
};

/// The same file and password as for `upload`; nothing is changed.
#[derive(Debug, Args)]
pub(in crate::cli) struct Inspect {
    /// PEM, DER or PKCS#12 (.pfx, .p12), one certificate or several; `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    password: PasswordArgs,
}

const COLUMNS: &[Column] = &[
    column("subject"),
    column("short"),
    column("issuer"),
    column("key_algorithm"),
    column("state"),
    column("expires"),
    wide("valid_from"),
    wide("serial"),
    wide("thumbprint"),
];

impl Inspect {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let request = proto::InspectCertificateRequest {
            password: self.password.read(&self.file)?,
            certificate: read_bounded(&self.file)?.to_vec(),
        };
        let answer = session.client()?.inspect_certificate(request).await?;
        explain_left_out(answer.private_key_dropped, answer.authorities_skipped);
        let read = |certificate| {
            row(certificate).only(&[
                "subject",
                "thumbprint",
                "short",
                "thumbprint_sha1",
                "issuer",
                "serial",
                "key_algorithm",
                "state",
                "valid_from",
                "expires",
            ])
        };
        let rows: Vec<_> = answer.certificates.iter().map(read).collect();
        session.out.list(COLUMNS, "thumbprint", &rows)
    }
}
