//! `rookery cert list`: search, filters, order.

use std::time::Duration;

use clap::{Args, ValueEnum};
use rookery_client::proto::security::v1 as proto;

use super::row;
use crate::cli::{
    ClearanceArg, Column, Failed, Result, Session, duration,
    output::{column, wide},
};

/// Certificates a page.
const PAGE_SIZE: u32 = 500;

/// Filters; an entry is listed where all of them hold.
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// Only this clearance
    #[arg(long, value_enum)]
    clearance: Option<ClearanceArg>,
    /// Only certificates with access to this database
    #[arg(long)]
    db: Option<String>,
    /// Only names that contain this, letter case aside
    #[arg(long)]
    name: Option<String>,
    /// Only thumbprints (SHA-256) that begin so; colons, blanks and upper case are taken
    #[arg(long, value_name = "PREFIX")]
    thumbprint: Option<String>,
    /// Only certificates in this state
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// Only certificates in force that expire within this time; exit code 9 where there are any
    #[arg(long, value_parser = duration, value_name = "30d")]
    expiring: Option<Duration>,
    /// The order
    #[arg(long, value_enum, default_value = "name")]
    sort: SortArg,
    /// Turn the order round
    #[arg(long)]
    descending: bool,
}

/// Where a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateArg {
    /// In force
    Valid,
    /// In force for less than 30 days
    Expiring,
    /// Its last moment has passed
    Expired,
    /// Its first moment has not come
    NotYetValid,
    /// Switched off
    Disabled,
}

/// What the list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortArg {
    /// Name, letter case aside
    Name,
    /// The next to expire first
    Expiry,
    /// The oldest registration first
    Created,
}

const COLUMNS: &[Column] = &[
    column("name"),
    column("short"),
    column("clearance"),
    column("databases"),
    column("state"),
    column("expires"),
    wide("thumbprint"),
    wide("certificates"),
    wide("owner"),
    wide("note"),
    wide("issuer"),
    wide("key_algorithm"),
    wide("created"),
    wide("created_by"),
];

impl List {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let expiring = self.expiring;
        let mut request = self.request();
        let client = session.client()?;
        let mut rows = Vec::new();
        loop {
            let page = client.list_certificates(request.clone()).await?;
            rows.extend(page.certificates.iter().map(row));
            if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
                break;
            }
            request.page_token = page.next_page_token;
        }
        session.out.list(COLUMNS, "thumbprint", &rows)?;
        if expiring.is_some() && !rows.is_empty() {
            let found = match rows.len() {
                1 => "1 certificate expires".to_owned(),
                several => format!("{several} certificates expire"),
            };
            return Err(Failed::wanting(format!("{found} within the time that was asked for")));
        }
        Ok(())
    }

    fn request(self) -> proto::ListCertificatesRequest {
        let seconds = |within: Duration| within.as_secs().max(1);
        proto::ListCertificatesRequest {
            page_size: PAGE_SIZE,
            page_token: String::new(),
            clearance: self.clearance.map_or(0, i32::from),
            database: self.db.unwrap_or_default(),
            name_contains: self.name.unwrap_or_default(),
            thumbprint_prefix: self.thumbprint.unwrap_or_default(),
            state: self.state.map_or(0, i32::from),
            expiring_within_seconds: self.expiring.map_or(0, seconds),
            sort: self.sort.into(),
            descending: self.descending,
        }
    }
}

impl From<StateArg> for i32 {
    fn from(state: StateArg) -> Self {
        use proto::CertificateState as State;
        (match state {
            StateArg::Valid => State::Valid,
            StateArg::Expiring => State::Expiring,
            StateArg::Expired => State::Expired,
            StateArg::NotYetValid => State::NotYetValid,
            StateArg::Disabled => State::Disabled,
        }) as Self
    }
}

impl From<SortArg> for i32 {
    fn from(sort: SortArg) -> Self {
        use proto::CertificateSort as Sort;
        (match sort {
            SortArg::Name => Sort::Name,
            SortArg::Expiry => Sort::Expiry,
            SortArg::Created => Sort::Created,
        }) as Self
    }
}
