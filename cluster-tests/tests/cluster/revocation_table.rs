//! Each way to lose rights, on each way to call, on every node; and rights that are given on an open connection.
//!
//! The database is held by two of three nodes, so that one node forwards every document call.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cluster_tests::{
    authorization_history::{self, Version},
    caller::{Caller, reason, request_id},
    cluster::Cluster,
    identity::Identity,
    lines::{Entrance, Line, Session, Told, Watch},
    probes::{Call, Target},
};
use rookery_proto::{
    database::v1::DeleteDatabaseRequest,
    security::v1::{Access, Clearance, DisableCertificateRequest, EditCertificateRequest},
};
use tonic::Status;

use Line::{Http1, Kept, New, Stream};

const SALES: Target<'_> = Target { database: "sales", id: "planted" };
const ALL: [usize; 3] = [0, 1, 2];
const PAUSE: Duration = Duration::from_millis(2);
const BEFORE: Duration = Duration::from_millis(80);
const AFTER: Duration = Duration::from_millis(300);
/// Longest time from the last moment of a certificate until its quiet streams have ended.
const EXPIRY_LIMIT: Duration = Duration::from_secs(2);

/// What is done to a certificate.
#[derive(Debug, Clone, Copy)]
enum Taken {
    Delete,
    Disable,
    Grants(&'static [(&'static str, Access)]),
    Clearance(Clearance),
    DeleteDatabase,
}

impl Taken {
    async fn from(self, admin: &Caller, thumbprint: &str) -> Result<(), Status> {
        match self {
            Self::Delete => admin.revoke(thumbprint).await,
            Self::Disable => {
                let request = DisableCertificateRequest {
                    thumbprint: thumbprint.to_owned(),
                    request_id: request_id(),
                    ..Default::default()
                };
                admin.security().disable_certificate(request).await.map(drop)
            }
            Self::Grants(grants) => admin.set_grants(thumbprint, grants).await,
            Self::Clearance(clearance) => {
                let request = EditCertificateRequest {
                    thumbprint: thumbprint.to_owned(),
                    clearance: clearance.into(),
                    request_id: request_id(),
                    ..Default::default()
                };
                admin.security().edit_certificate(request).await.map(drop)
            }
            Self::DeleteDatabase => {
                let request =
                    DeleteDatabaseRequest { name: SALES.database.into(), request_id: request_id() };
                admin.databases().delete_database(request).await.map(drop)
            }
        }
    }
}

/// Who had what, what was taken, which lines end by that, and what their holders are told.
struct Row {
    what: &'static str,
    clearance: Clearance,
    grants: &'static [(&'static str, Access)],
    taken: Taken,
    ends: &'static [Line],
    reasons: &'static [&'static str],
}

const READ_WRITE: &[(&str, Access)] = &[("sales", Access::ReadWrite)];
const DENIED: &[&str] = &["DATABASE_ACCESS_DENIED"];

/// A new way to lose rights is a new row.
const ROWS: &[Row] = &[
    Row {
        what: "deleted",
        clearance: Clearance::User,
        grants: READ_WRITE,
        taken: Taken::Delete,
        ends: &[
            Kept(Call::Read),
            Kept(Call::StaleRead),
            Kept(Call::Write),
            Kept(Call::Topology),
            New(Call::Read),
            Http1,
            Stream,
        ],
        // A running stream ends with the first; what comes after it is refused with the second.
        reasons: &["RIGHTS_CHANGED", "CERTIFICATE_UNKNOWN"],
    },
    Row {
        what: "disabled",
        clearance: Clearance::User,
        grants: READ_WRITE,
        taken: Taken::Disable,
        ends: &[
            Kept(Call::Read),
            Kept(Call::StaleRead),
            Kept(Call::Write),
            Kept(Call::Topology),
            New(Call::Read),
            Http1,
            Stream,
        ],
        reasons: &["RIGHTS_CHANGED", "CERTIFICATE_DISABLED"],
    },
    Row {
        what: "narrowed to reading",
        clearance: Clearance::User,
        grants: READ_WRITE,
        taken: Taken::Grants(&[("sales", Access::Read)]),
        ends: &[Kept(Call::Write), New(Call::Write)],
        reasons: DENIED,
    },
    Row {
        what: "its grant removed",
        clearance: Clearance::User,
        grants: READ_WRITE,
        taken: Taken::Grants(&[]),
        ends: &[Kept(Call::Read), Kept(Call::StaleRead), Kept(Call::Write), New(Call::Read), Http1],
        reasons: DENIED,
    },
    Row {
        what: "demoted to User",
        clearance: Clearance::Operator,
        grants: &[],
        taken: Taken::Clearance(Clearance::User),
        ends: &[
            Kept(Call::Read),
            Kept(Call::Write),
            Kept(Call::Certificates),
            New(Call::Certificates),
            Http1,
        ],
        reasons: &["DATABASE_ACCESS_DENIED", "CLEARANCE_TOO_LOW"],
    },
    Row {
        what: "demoted to Operator",
        clearance: Clearance::ClusterAdmin,
        grants: &[],
        taken: Taken::Clearance(Clearance::Operator),
        ends: &[Kept(Call::JoinTokens), New(Call::JoinTokens)],
        reasons: &["CLEARANCE_TOO_LOW"],
    },
    // The last: it takes the database along.
    Row {
        what: "its database deleted",
        clearance: Clearance::User,
        grants: READ_WRITE,
        taken: Taken::DeleteDatabase,
        ends: &[Kept(Call::Read), Kept(Call::StaleRead), Kept(Call::Write), New(Call::Read), Http1],
        reasons: DENIED,
    },
];

/// Runs one row through the administrator on `through`; gives the time of the acknowledgement.
async fn check(cluster: &mut Cluster, through: usize, row: &Row) -> Result<(Identity, Duration)> {
    let holder = cluster.register(row.what, row.clearance, row.grants).await?;
    let admin = cluster.admin(through)?;
    let watch = Watch::start(cluster, &ALL, &holder, SALES, row.ends, PAUSE).await?;
    tokio::time::sleep(BEFORE).await;
    let invoked = watch.now();
    row.taken.from(&admin, &holder.thumbprint()).await?;
    let acknowledged = watch.now();
    tokio::time::sleep(AFTER).await;
    for told in watch.finish().await? {
        judge(&told, row.reasons, invoked, acknowledged)?;
    }
    Ok((holder, acknowledged - invoked))
}

fn judge(told: &Told, reasons: &[&str], invoked: Duration, acknowledged: Duration) -> Result<()> {
    let versions = [
        Version { invoked: Duration::ZERO, acknowledged: Some(Duration::ZERO), allows: true },
        Version { invoked, acknowledged: Some(acknowledged), allows: false },
    ];
    let line = told.line;
    authorization_history::check(&versions, &told.requests)
        .with_context(|| format!("{line:?}, revoked at {invoked:.1?} to {acknowledged:.1?}"))?;
    let late = told.requests.iter().filter(|request| request.start > acknowledged).count();
    anyhow::ensure!(late > 0, "{line:?}: nobody asked after the acknowledgement; {:?}", told.last);
    let last = told.last.as_ref().map(reason).unwrap_or_default();
    anyhow::ensure!(reasons.contains(&last.as_str()), "{line:?}: told {:?}", told.last);
    Ok(())
}

#[tokio::test]
async fn each_loss_of_rights_ends_each_line_on_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    cluster.admin(0)?.create_database("sales", 2).await?;
    cluster.admin(0)?.put("sales", "planted", "{}").await?;
    let mut old = None;
    for (number, row) in ROWS.iter().enumerate() {
        let (holder, took) = check(&mut cluster, number % 3, row)
            .await
            .with_context(|| format!("a certificate that was {}", row.what))?;
        anyhow::ensure!(took < Duration::from_secs(2), "{}: acknowledged after {took:?}", row.what);
        old = Some(holder);
    }
    // The grant died with its database, and does not open the next one of that name.
    let admin = cluster.admin(0)?;
    admin.create_database("Sales", 2).await?;
    admin.put("sales", "planted", "{}").await?;
    let old = old.context("a last row")?;
    for node in &cluster.nodes {
        for line in [Kept(Call::Read), Kept(Call::StaleRead), Kept(Call::Write), Http1] {
            let outcome = Session::new(line, &Entrance::of(node, &old))?.make(SALES).await;
            let denied =
                outcome.as_ref().is_err_and(|status| DENIED.contains(&reason(status).as_str()));
            anyhow::ensure!(denied, "an old grant opened a new database to {line:?}: {outcome:?}");
        }
    }
    cluster.finish().await
}

#[tokio::test]
async fn rights_that_are_given_work_at_once_on_the_connection_that_is_open() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 2).await?;
    admin.put("sales", "planted", "{}").await?;
    let newcomer = Identity::new("newcomer")?;
    let mut sessions = Vec::new();
    for node in &cluster.nodes {
        let mut session = Session::new(Http1, &Entrance::of(node, &newcomer))?;
        let refused = session.make(SALES).await;
        anyhow::ensure!(refused.is_err_and(|status| reason(&status) == "CERTIFICATE_UNKNOWN"));
        sessions.push(session);
    }
    admin.register(&newcomer, Clearance::User, &[]).await?;
    for session in &mut sessions {
        let refused = session.make(SALES).await;
        anyhow::ensure!(refused.is_err_and(|status| reason(&status) == "DATABASE_ACCESS_DENIED"));
    }
    admin.set_grants(&newcomer.thumbprint(), &[("sales", Access::Read)]).await?;
    for session in &mut sessions {
        session.make(SALES).await?;
        anyhow::ensure!(session.opened == 1, "it took another connection");
    }
    cluster.finish().await
}

#[tokio::test]
#[allow(clippy::disallowed_methods)] // The nodes hold a certificate's dates against this clock.
async fn a_certificate_that_expires_is_refused_and_its_streams_end() -> Result<()> {
    /// How far nodes may differ about the leader's clock.
    const TOLERANCE: Duration = Duration::from_millis(250);
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    admin.create_database("sales", 2).await?;
    admin.put("sales", "planted", "{}").await?;
    let holder = Identity::expiring("short-lived", Duration::from_secs(8))?;
    admin.register(&holder, Clearance::User, READ_WRITE).await?;
    cluster.known_everywhere(&holder).await?;

    let lines =
        [Kept(Call::Read), Kept(Call::Write), Kept(Call::Topology), New(Call::Read), Http1, Stream];
    let watch = Watch::start(&cluster, &ALL, &holder, SALES, &lines, PAUSE).await?;
    let mut quiet = Vec::new();
    for caller in cluster.everywhere(Some(&holder))? {
        let mut client = tonic_health::pb::health_client::HealthClient::new(caller.channel.clone());
        let mut stream =
            client.watch(tonic_health::pb::HealthCheckRequest::default()).await?.into_inner();
        stream.message().await?;
        quiet.push((stream, caller));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let last = Duration::from_secs(not_after(&holder)?);
    let left = last.checked_sub(now).context("it has expired already")?;
    let expires = watch.now() + left;
    for (mut stream, _caller) in quiet {
        let ended = tokio::time::timeout(left + EXPIRY_LIMIT, stream.message()).await;
        let status = ended.context("a quiet stream goes on")?.err().context("it ended well")?;
        anyhow::ensure!(reason(&status) == "CERTIFICATE_EXPIRED", "told {status:?}");
    }
    tokio::time::sleep(AFTER).await;
    for told in watch.finish().await? {
        judge(&told, &["CERTIFICATE_EXPIRED"], expires - TOLERANCE, expires + TOLERANCE)?;
    }
    cluster.finish().await
}

/// The last second of a certificate's life, since 1970.
fn not_after(identity: &Identity) -> Result<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(identity.leaf())?;
    Ok(u64::try_from(certificate.validity().not_after.timestamp())?)
}
