//! `rookery cert`, the parts about files of keys and certificates: requests, PFX, passwords, export.

use std::{
    io::{BufRead as _, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;
use rookery_client::proto::security::v1 as proto;

use super::{generate::password, read_bounded};
use crate::cli::{Failed, Result, Row, Session, contexts::Place, message};

/// Longest password that is read from standard input, in bytes.
const PASSWORD_BYTES_MAX: u64 = 1_024;

/// Whose key a generated certificate is for, and how its PFX is protected.
#[derive(Debug, Args)]
pub(in crate::cli) struct KeyArgs {
    /// Certify the key of this request (PKCS#10, PEM or DER; `-` is standard input); the key stays with its owner
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pfx_compat", "password_file"])]
    csr: Option<PathBuf>,
    /// Make the PFX with 3DES and SHA-1, for old Windows
    #[arg(long)]
    pub(in crate::cli) pfx_compat: bool,
}

impl KeyArgs {
    /// The request; empty where a new key is wanted.
    pub(in crate::cli) fn csr(&self) -> Result<Vec<u8>> {
        let csr = self.csr.as_deref().map(read_bounded).transpose()?;
        if csr.as_ref().is_some_and(|csr| csr.is_empty()) {
            return Err(Failed::usage("the file of the request is empty"));
        }
        Ok(csr.map_or_else(Vec::new, |csr| csr.to_vec()))
    }
}

/// The password of an uploaded PFX. Never an argument: others on the machine can read those.
#[derive(Debug, Args)]
pub(in crate::cli) struct PasswordArgs {
    /// File with the password of a PFX
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Read the password of a PFX from the first line of standard input
    #[arg(long, conflicts_with = "password_file")]
    password_stdin: bool,
}

impl PasswordArgs {
    /// The password; empty where none was given. `file` is what is uploaded.
    pub(in crate::cli) fn read(&self, file: &Path) -> Result<String> {
        if let Some(path) = &self.password_file {
            return password(path);
        }
        if !self.password_stdin {
            return Ok(String::new());
        }
        if file == Path::new("-") {
            return Err(Failed::usage("standard input is the certificate; use --password-file"));
        }
        let mut line = String::new();
        let mut input = std::io::stdin().lock().take(PASSWORD_BYTES_MAX);
        input.read_line(&mut line).map_err(|e| Failed::file(Path::new("-"), &e))?;
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }
}

/// Says what became of the rest of an upload.
pub(in crate::cli) fn explain_upload(answer: &proto::UploadCertificateResponse) {
    explain_left_out(answer.private_key_dropped, answer.authorities_skipped);
    if let [_, others @ ..] = answer.thumbprints.as_slice()
        && !others.is_empty()
    {
        message(&format!(
            "registered together, with the same rights, {} more: {}",
            others.len(),
            others.join(", ")
        ));
    }
}

/// Says what of a file was not looked at.
pub(in crate::cli) fn explain_left_out(private_key_dropped: bool, authorities_skipped: u32) {
    if private_key_dropped {
        message("warning: the file held a private key; it was sent and dropped");
    }
    if authorities_skipped > 0 {
        let skipped = authorities_skipped;
        message(&format!("{skipped} certificates that only issue others in it were skipped"));
    }
}

/// What `rookery cert export-server` takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportServer {
    /// Where to write them: PEM for a name that ends in .pem or .crt, PKCS#12 otherwise
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File with a password for the PFX; it needs none, because nothing in it is secret
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl ExportServer {
    pub(in crate::cli) async fn run(self, session: &mut Session) -> Result<()> {
        let password = self.password_file.as_deref().map(password).transpose()?;
        let place = Place::take(&self.out)?;
        let request =
            proto::ExportServerCertificatesRequest { password: password.unwrap_or_default() };
        let answer = session.client()?.export_server_certificates(request).await?;
        let extension = self.out.extension().and_then(|extension| extension.to_str());
        let pem = extension.is_some_and(|it| matches!(it.to_lowercase().as_str(), "pem" | "crt"));
        let row = Row::new()
            .with("file", place.display())
            .with("format", if pem { "PEM" } else { "PKCS#12" })
            .with("certificates", answer.thumbprints.len())
            .with("thumbprints", answer.thumbprints);
        place.fill(if pem { answer.pem.as_bytes() } else { &answer.pfx })?;
        message(
            "The file holds public certificates alone. The cluster that RECEIVES connections of these servers uploads \
             it: rookery cert upload FILE --name … --clearance …",
        );
        session.out.one("file", &row)
    }
}
