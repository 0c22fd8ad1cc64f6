//! Verbs of `rookery cert` around the registry: well-known admins, unused certificates, notifications, the policy.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use rookery_client::proto::security::v1 as proto;

use super::{
    ClearanceArg, Column, Failed, Result, Row, Session, cert, clearance_name, duration,
    effective::Effective,
    output::{column, time, wide},
};

/// Rows a page.
const PAGE_SIZE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Explain what a certificate may do, and what would let it; or list who may
    Effective(Effective),
    /// List certificates that were not used for a time
    Unused {
        /// How long
        #[arg(long = "for", value_parser = duration, value_name = "90d")]
        time: Duration,
    },
    /// List the well-known admins that nodes declare in their configuration
    ListWellKnown,
    /// List certificates that expire or have expired
    Notifications,
    /// The security policy: renewal, and who needs a second factor
    #[command(subcommand)]
    Policy(Policy),
}

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Show the policy
    Show,
    /// Replace the policy; what is not given gets its default
    Set {
        /// How certificates follow each other
        #[arg(long, value_enum, default_value = "explicit")]
        renewal: RenewalArg,
        /// Renew Cluster Admins too
        #[arg(long)]
        renew_cluster_admins: bool,
        /// Clearances that need a second factor
        #[arg(long, value_enum, value_delimiter = ',', value_name = "CLEARANCE")]
        second_factor_for: Vec<ClearanceArg>,
        /// Only where the policy still has this etag
        #[arg(long)]
        etag: Option<String>,
    },
}

/// How certificates follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RenewalArg {
    /// An administrator registers every certificate
    Explicit,
    /// A certificate of a registered one's key and issuer registers itself
    SameKeySameIssuer,
}

const WELL_KNOWN: &[Column] = &[
    column("thumbprint"),
    column("nodes"),
    column("in_force"),
    column("last_used"),
    column("last_used_node"),
];
const UNUSED: &[Column] = &[
    column("name"),
    column("clearance"),
    column("state"),
    column("last_used"),
    column("created"),
    column("expires"),
    column("thumbprint"),
];
const NOTIFICATIONS: &[Column] = &[
    column("severity"),
    column("kind"),
    column("name"),
    column("clearance"),
    column("days_left"),
    column("expires"),
    wide("since"),
    wide("thumbprint"),
    wide("message"),
];

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Effective(effective) => effective.run(session).await,
            Self::Unused { time } => unused(session, time).await,
            Self::ListWellKnown => well_known(session).await,
            Self::Notifications => notifications(session).await,
            Self::Policy(policy) => policy.run(session).await,
        }
    }
}

async fn unused(session: &mut Session, time: Duration) -> Result<()> {
    let client = session.client()?;
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let since_unix_ms = jiff::Timestamp::now().as_millisecond().saturating_sub(ms);
    let page_token = String::new();
    let mut request = proto::ListUnusedRequest { since_unix_ms, page_size: PAGE_SIZE, page_token };
    let mut rows = Vec::new();
    loop {
        let page = client.list_unused(request.clone()).await?;
        rows.extend(page.certificates.iter().map(cert::row));
        if page.next_page_token.is_empty() {
            return session.out.list(UNUSED, "thumbprint", &rows);
        }
        request.page_token = page.next_page_token;
    }
}

async fn well_known(session: &mut Session) -> Result<()> {
    let request = proto::ListWellKnownAdminsRequest {};
    let answer = session.client()?.list_well_known_admins(request).await?;
    let row = |admin: proto::WellKnownAdmin| {
        Row::new()
            .with("thumbprint", admin.thumbprint)
            .with("nodes", admin.nodes)
            .with("in_force", admin.in_force)
            .with("last_used", time(admin.last_used_unix_ms))
            .with("last_used_node", admin.last_used_node)
    };
    let rows: Vec<Row> = answer.admins.into_iter().map(row).collect();
    session.out.list(WELL_KNOWN, "thumbprint", &rows)
}

async fn notifications(session: &mut Session) -> Result<()> {
    let client = session.client()?;
    let page_token = String::new();
    let mut request = proto::ListNotificationsRequest { page_size: PAGE_SIZE, page_token };
    let mut rows = Vec::new();
    loop {
        let page = client.list_notifications(request.clone()).await?;
        rows.extend(page.notifications.into_iter().map(|told| {
            Row::new()
                .with("severity", told.severity)
                .with("kind", told.kind)
                .with("name", told.name)
                .with("clearance", clearance_name(told.clearance))
                .with("days_left", told.days_left)
                .with("expires", time(told.not_after_unix_ms))
                .with("since", time(told.since_unix_ms))
                .with("thumbprint", told.thumbprint)
                .with("message", told.message)
        }));
        if page.next_page_token.is_empty() {
            return session.out.list(NOTIFICATIONS, "thumbprint", &rows);
        }
        request.page_token = page.next_page_token;
    }
}

impl Policy {
    async fn run(self, session: &mut Session) -> Result<()> {
        let client = session.client()?;
        let policy = match self {
            Self::Show => {
                client.get_security_policy(proto::GetSecurityPolicyRequest {}).await?.policy
            }
            Self::Set { renewal, renew_cluster_admins, second_factor_for, etag } => {
                let renewal = match renewal {
                    RenewalArg::Explicit => proto::Renewal::Explicit,
                    RenewalArg::SameKeySameIssuer => proto::Renewal::SameKeySameIssuer,
                };
                if renew_cluster_admins && renewal == proto::Renewal::Explicit {
                    return Err(Failed::usage(
                        "--renew-cluster-admins means nothing without --renewal same-key-same-issuer",
                    ));
                }
                let policy = proto::SecurityPolicy {
                    renewal: renewal.into(),
                    renewal_for_cluster_admin: renew_cluster_admins,
                    second_factor_required_for: second_factor_for
                        .into_iter()
                        .map(i32::from)
                        .collect(),
                    etag: String::new(),
                };
                let request = proto::SetSecurityPolicyRequest {
                    policy: Some(policy),
                    expected_etag: etag.unwrap_or_default(),
                    request_id: String::new(),
                };
                client.set_security_policy(request).await?.policy
            }
        };
        session.out.one("etag", &policy_row(&policy.unwrap_or_default()))
    }
}

fn policy_row(policy: &proto::SecurityPolicy) -> Row {
    let renewal = match policy.renewal() {
        proto::Renewal::Explicit => "explicit",
        proto::Renewal::SameKeySameIssuer => "same-key-same-issuer",
        proto::Renewal::Unspecified => "",
    };
    let clearances = policy.second_factor_required_for.iter();
    let clearances: Vec<&str> = clearances.map(|number| clearance_name(*number)).collect();
    Row::new()
        .with("renewal", renewal)
        .with("renewal_for_cluster_admin", policy.renewal_for_cluster_admin)
        .with("second_factor_required_for", clearances)
        .with("etag", policy.etag.clone())
}
