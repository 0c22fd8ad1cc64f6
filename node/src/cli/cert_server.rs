//! `rookery cert server`: the certificates of the nodes, and their replacement in the whole cluster.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use rookery_client::proto::security::v1 as proto;
use zeroize::Zeroizing;

use super::{
    Column, Failed, Result, Row, Session,
    cert::read_bounded,
    duration,
    output::{Format, column, time, wide},
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show the certificates by which every node is known
    Show,
    /// Replace the certificates of all nodes: checked, installed on each node, confirmed, swapped
    Replace(Replace),
    /// Show how far the replacement is, or how the last one ended; exit code 9 while a node has an error
    Status {
        /// Repeat until it has ended
        #[arg(long)]
        watch: bool,
        /// Time between two looks
        #[arg(long, value_parser = duration, default_value = "1s")]
        interval: Duration,
    },
    /// Give a replacement up, as long as no node was told to swap
    Abort,
    /// Have the node that is called look at its certificate's files (or command) now
    Reload,
}

/// One certificate for all nodes, one for each node, or one for all but some.
#[derive(Debug, Args)]
pub(super) struct Replace {
    /// PEM with the certificate for all nodes (issuers may follow); with its key, unless --key names it
    #[arg(long, value_name = "FILE", conflicts_with = "pfx")]
    cert: Option<PathBuf>,
    /// PEM with the private key of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// PKCS#12 with the certificate for all nodes and its key
    #[arg(long, value_name = "FILE")]
    pfx: Option<PathBuf>,
    /// File with the password of every PKCS#12 file given
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// For one node alone: NAME=FILE, PEM with certificate and key, or PKCS#12
    #[arg(long = "node", value_name = "NAME=FILE", value_parser = for_node)]
    nodes: Vec<(String, PathBuf)>,
    /// Do not check that the host names of the nodes are covered
    #[arg(long)]
    force: bool,
    /// Do not wait for nodes that do not confirm
    #[arg(long)]
    immediately: bool,
    /// Take the place of a replacement under way
    #[arg(long)]
    supersede: bool,
}

const CERTIFICATES: &[Column] = &[
    column("node"),
    column("in_force"),
    column("state"),
    column("expires"),
    column("names"),
    column("thumbprint"),
    wide("subject"),
    wide("valid_from"),
];
const NODES: &[Column] = &[
    column("node"),
    column("phase"),
    column("installed"),
    column("swapped"),
    column("error"),
    wide("error_since"),
    wide("thumbprint"),
    wide("swap_reason"),
    wide("started"),
    wide("ended"),
    wide("id"),
];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Show => show(session).await,
            Self::Replace(replace) => replace.run(session).await,
            Self::Status { watch, interval } => status(session, watch, interval).await,
            Self::Abort => {
                let request = proto::AbortServerCertificateReplacementRequest::default();
                let answer =
                    session.client()?.abort_server_certificate_replacement(request).await?;
                let rows = answer.replacement.as_ref().map(rows).unwrap_or_default();
                session.out.list(NODES, "node", &rows)
            }
            Self::Reload => {
                let request = proto::ReloadServerCertificateRequest {};
                let answer = session.client()?.reload_server_certificate(request).await?;
                let row =
                    Row::new().with("thumbprint", answer.thumbprint).with("result", answer.result);
                session.out.one("result", &row)
            }
        }
    }
}

impl Replace {
    async fn run(self, session: &mut Session) -> Result<()> {
        let request = proto::ReplaceServerCertificatesRequest {
            certificates: self.certificates()?,
            force: self.force,
            immediately: self.immediately,
            supersede: self.supersede,
            request_id: String::new(),
        };
        let answer = session.client()?.replace_server_certificates(request).await?;
        if answer.unchanged {
            super::message("the nodes have these certificates already; nothing was done");
            return session.out.one("unchanged", &Row::new().with("unchanged", true));
        }
        let rows = answer.replacement.as_ref().map(rows).unwrap_or_default();
        session.out.list(NODES, "node", &rows)
    }

    fn certificates(&self) -> Result<Vec<proto::NewServerCertificate>> {
        let password = match &self.password_file {
            Some(path) => {
                let content = read_bounded(path)?;
                let text = String::from_utf8_lossy(content.trim_ascii_end()).into_owned();
                Zeroizing::new(text)
            }
            None => Zeroizing::new(String::new()),
        };
        let new = |node: &str, content: &[u8]| proto::NewServerCertificate {
            node: node.to_owned(),
            content: content.to_vec(),
            password: password.to_string(),
        };
        let mut all = Vec::new();
        if let Some(path) = self.cert.as_ref().or(self.pfx.as_ref()) {
            let mut content = read_bounded(path)?;
            if let Some(key) = &self.key {
                content = Zeroizing::new([&content[..], b"\n", &read_bounded(key)?[..]].concat());
            }
            all.push(new("", &content));
        }
        for (name, path) in &self.nodes {
            all.push(new(name, &read_bounded(path)?));
        }
        if all.is_empty() {
            return Err(Failed::usage("give --cert, --pfx or --node NAME=FILE"));
        }
        Ok(all)
    }
}

fn for_node(text: &str) -> std::result::Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write NAME=FILE, such as n1=n1.pem")?;
    crate::names::NodeName::parse(name).map_err(|e| e.to_string())?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

async fn show(session: &mut Session) -> Result<()> {
    let request = proto::ListServerCertificatesRequest {};
    let all = session.client()?.list_server_certificates(request).await?.certificates;
    let row = |certificate: proto::ServerCertificate| {
        Row::new()
            .with("node", certificate.node_name)
            .with("node_id", certificate.node_id)
            .with("in_force", certificate.in_force)
            .with("state", certificate.state)
            .with("valid_from", time(certificate.not_before_unix_ms))
            .with("expires", time(certificate.not_after_unix_ms))
            .with("names", certificate.names)
            .with("subject", certificate.subject)
            .with("thumbprint", certificate.thumbprint)
    };
    let rows: Vec<Row> = all.into_iter().map(row).collect();
    session.out.list(CERTIFICATES, "thumbprint", &rows)
}

async fn status(session: &mut Session, watch: bool, interval: Duration) -> Result<()> {
    let client = session.client()?;
    loop {
        let request = proto::GetServerCertificateReplacementRequest {};
        let answer = match client.get_server_certificate_replacement(request).await {
            Ok(answer) => answer,
            // Someone who watches wants to see the cluster come back.
            Err(error) if watch => {
                super::message(&format!("error: {error}"));
                tokio::time::sleep(interval).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(replacement) = answer.replacement else {
            return Err(Failed::not_found("the server certificates were never replaced"));
        };
        if watch && matches!(session.out.format, Format::Table | Format::Wide) {
            session.out.bytes(b"\x1b[2J\x1b[H")?;
        }
        session.out.list(NODES, "node", &rows(&replacement))?;
        let running = matches!(replacement.phase.as_str(), "installing" | "swapping");
        if !watch || !running {
            let failing = replacement.nodes.iter().any(|node| !node.error.is_empty());
            return match running && failing {
                true => Err(Failed::wanting("a node cannot go on; see its error")),
                false => Ok(()),
            };
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn rows(replacement: &proto::ServerCertificateReplacement) -> Vec<Row> {
    let row = |node: &proto::NodeReplacement| {
        Row::new()
            .with("node", node.node_name.clone())
            .with("node_id", node.node_id)
            .with("phase", replacement.phase.clone())
            .with("installed", time(node.installed_unix_ms))
            .with("swapped", time(node.swapped_unix_ms))
            .with("error", node.error.clone())
            .with("error_since", time(node.error_unix_ms))
            .with("thumbprint", node.thumbprint.clone())
            .with("swap_reason", replacement.swap_reason.clone())
            .with("started", time(replacement.started_unix_ms))
            .with("not_before", time(replacement.not_before_unix_ms))
            .with("ended", time(replacement.ended_unix_ms))
            .with("id", replacement.id.clone())
    };
    replacement.nodes.iter().map(row).collect()
}
