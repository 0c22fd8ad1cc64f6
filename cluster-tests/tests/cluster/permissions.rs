//! Every RPC, called with every kind of certificate on every node: the whole table of decisions, as a golden file.
//!
//! The table is built by walking the contract, so an RPC without a row fails. Each row names the rule that the
//! specification gives it, and the decisions seen must be those of the rule; the golden file is for readers, and holds
//! what the rule does not say: the reasons, and what the allowed are answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    caller::{Caller, Decision, granted, put_request, request_id},
    cluster::Cluster,
    contract::{self, Rpc},
    golden,
    identity::Identity,
    wait::eventually,
};
use prost::Message;
use rookery_proto::{
    audit::v1 as audit,
    cluster::v1 as cluster,
    database::v1 as database,
    document::v1 as document,
    monitoring::v1 as monitoring,
    security::v1::{self as security, Access, Clearance},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What the specification demands for a call (behaviour.md, part b).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Nothing, not even a certificate.
    Public,
    Registered,
    Operator,
    ClusterAdmin,
    /// Access to the database `sales`, which the three Users of the table have at their levels.
    Sales(Access),
    /// Access to a database, existing or missing, that no User of the table has.
    NotGranted,
    /// Nobody gets through: the call shows a join token that does not exist.
    JoinToken,
    /// The service is not on this listener.
    Absent,
}

/// The columns, in the order of the specification's matrix.
const CALLERS: [&str; 10] = [
    "node",
    "cluster-admin",
    "operator",
    "db-admin",
    "read-write",
    "read",
    "no-grants",
    "expired",
    "unknown",
    "none",
];

impl Rule {
    fn allows(self, caller: &str) -> bool {
        let power = match caller {
            "node" | "cluster-admin" => 3,
            "operator" => 2,
            "db-admin" | "read-write" | "read" | "no-grants" => 1,
            _ => 0,
        };
        let access = match caller {
            "db-admin" => 3,
            "read-write" => 2,
            "read" => 1,
            _ => 0,
        };
        match self {
            Self::Public => true,
            Self::Registered => power >= 1,
            Self::Operator | Self::NotGranted => power >= 2,
            Self::ClusterAdmin => power >= 3,
            Self::Sales(needed) => power >= 2 || access >= needed as i32,
            Self::JoinToken | Self::Absent => false,
        }
    }
}

const DOCUMENTS: &str = "/rookery.document.v1.DocumentService/";
const DATABASES: &str = "/rookery.database.v1.DatabaseService/";
const SECURITY: &str = "/rookery.security.v1.SecurityService/";
const TRUST: &str = "/rookery.security.v1.TrustService/";
const SECOND_FACTOR: &str = "/rookery.security.v1.SecondFactorService/";
const CLUSTER: &str = "/rookery.cluster.v1.ClusterService/";
const KEYS: &str = "/rookery.security.v1.KeyService/";
const MONITORING: &str = "/rookery.monitoring.v1.MonitoringService/";
const SERVERS: &str = "/rookery.security.v1.ServerCertificateService/";

/// A call of the table: its path, what sets it apart from other calls of the same RPC, and its rule.
struct Row {
    path: String,
    variant: &'static str,
    rule: Rule,
}

fn rows() -> Vec<Row> {
    use Rule::{Absent, ClusterAdmin, JoinToken, NotGranted, Operator, Public, Registered, Sales};
    let mut rows = Vec::new();
    let mut add = |service: &str, method: &str, variant: &'static str, rule: Rule| {
        rows.push(Row { path: format!("{service}{method}"), variant, rule });
    };
    for (method, access) in [
        ("GetDocument", Access::Read),
        ("ListDocuments", Access::Read),
        ("PutDocument", Access::ReadWrite),
        ("DeleteDocument", Access::ReadWrite),
        ("BatchWrite", Access::ReadWrite),
    ] {
        add(DOCUMENTS, method, "sales", Sales(access));
        add(DOCUMENTS, method, "other", NotGranted);
        add(DOCUMENTS, method, "missing", NotGranted);
    }
    add(DATABASES, "ListDatabases", "", Registered);
    add(DATABASES, "GetDatabase", "sales", Sales(Access::Read));
    add(DATABASES, "GetDatabase", "other", NotGranted);
    add(DATABASES, "GetDatabase", "missing", NotGranted);
    add(DATABASES, "GetDatabaseRecord", "sales", Operator);
    add(DATABASES, "GetDatabaseRecord", "missing", Operator);
    add(DATABASES, "CreateDatabase", "", Operator);
    add(DATABASES, "DisableDatabase", "other", Operator);
    add(DATABASES, "EnableDatabase", "other", Operator);
    add(DATABASES, "DeleteDatabase", "missing", Operator);
    add(SECURITY, "WhoAmI", "", Public);
    add(SECURITY, "ListCertificates", "", Operator);
    add(SECURITY, "GetCertificate", "", Operator);
    add(SECURITY, "ExportServerCertificates", "", Operator);
    for method in
        ["GenerateCertificate", "UploadCertificate", "EditCertificate", "DeleteCertificate"]
    {
        add(SECURITY, method, "user", Operator);
        add(SECURITY, method, "operator", Operator);
        add(SECURITY, method, "cluster-admin", ClusterAdmin);
    }
    add(SECURITY, "EditCertificate", "raise", ClusterAdmin);
    for method in ["CloneCertificate", "DisableCertificate", "EnableCertificate"] {
        add(SECURITY, method, "user", Operator);
        add(SECURITY, method, "operator", Operator);
        add(SECURITY, method, "cluster-admin", ClusterAdmin);
    }
    add(SECURITY, "PurgeCertificates", "", Operator);
    add(TRUST, "Explain", "self", Registered);
    add(TRUST, "Explain", "other", Operator);
    for method in ["WhoMay", "ListUnused", "ListWellKnownAdmins"] {
        add(TRUST, method, "", Operator);
    }
    add(TRUST, "GetSecurityPolicy", "", ClusterAdmin);
    add(TRUST, "SetSecurityPolicy", "", ClusterAdmin);
    add(TRUST, "ListNotifications", "", Registered);
    for method in ["Enrol", "Remove"] {
        add(SECOND_FACTOR, method, "user", Operator);
        add(SECOND_FACTOR, method, "operator", Operator);
        add(SECOND_FACTOR, method, "cluster-admin", ClusterAdmin);
    }
    add(SECOND_FACTOR, "Confirm", "", Registered);
    add(SECOND_FACTOR, "LogIn", "", Registered);
    add(SECOND_FACTOR, "LogOut", "", Registered);
    add(SECOND_FACTOR, "GetSecondFactorStatus", "", Public);
    add(CLUSTER, "GetTopology", "", Registered);
    add(CLUSTER, "GetStatus", "", Operator);
    add(CLUSTER, "CreateJoinToken", "", ClusterAdmin);
    add(CLUSTER, "ListJoinTokens", "", ClusterAdmin);
    add(CLUSTER, "RevokeJoinToken", "missing", ClusterAdmin);
    add(CLUSTER, "Join", "bogus", JoinToken);
    add(CLUSTER, "RemoveNode", "missing", ClusterAdmin);
    add(CLUSTER, "PromoteNode", "missing", ClusterAdmin);
    add(CLUSTER, "DemoteNode", "missing", ClusterAdmin);
    add(CLUSTER, "TransferLeader", "missing", ClusterAdmin);
    add(CLUSTER, "TriggerSnapshot", "", ClusterAdmin);
    for method in [
        "ListServerCertificates",
        "ReplaceServerCertificates",
        "GetServerCertificateReplacement",
        "AbortServerCertificateReplacement",
        "ReloadServerCertificate",
    ] {
        add(SERVERS, method, "", ClusterAdmin);
    }
    add(KEYS, "GetKeyStatus", "", Operator);
    add(KEYS, "RotateMasterKey", "", ClusterAdmin);
    add(KEYS, "RotateDataKey", "", ClusterAdmin);
    add(MONITORING, "ListConnections", "", Operator);
    add(MONITORING, "CloseConnections", "user", Operator);
    add(MONITORING, "CloseConnections", "operator", Operator);
    add(MONITORING, "CloseConnections", "cluster-admin", ClusterAdmin);
    add(MONITORING, "GetMetrics", "", Operator);
    for method in ["ListRecords", "TailRecords", "Verify", "Export"] {
        add("/rookery.audit.v1.AuditService/", method, "", Operator);
    }
    // Served by other listeners only: the unix socket and the peer port.
    for method in [
        "GetNodeState",
        "Bootstrap",
        "JoinCluster",
        "TrustCertificate",
        "RevokeCertificate",
        "ExportRecovery",
    ] {
        add("/rookery.admin.v1.AdminService/", method, "", Absent);
    }
    for method in ["Channel", "InstallSnapshot", "Probe"] {
        add("/rookery.peer.v1.PeerService/", method, "", Absent);
    }
    // No RPC of this contract, and decided all the same.
    add("/grpc.health.v1.Health/", "Check", "", Public);
    for version in ["v1", "v1alpha"] {
        let service = format!("/grpc.reflection.{version}.ServerReflection/");
        add(&service, "ServerReflectionInfo", version, Registered);
    }
    add("/rookery.document.v1.DocumentService/", "NoSuchMethod", "", Absent);
    rows
}

/// The encoded message of a row's call; certificates that it edits or deletes are
/// registered first, by an administrator on the same node.
async fn message(row: &Row, admin: &Caller) -> Result<Vec<u8>> {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let variant = row.variant.to_owned();
    let clearance = match row.variant {
        "operator" => Clearance::Operator,
        "cluster-admin" => Clearance::ClusterAdmin,
        _ => Clearance::User,
    };
    let target = async || -> Result<String> {
        let identity = Identity::new(&format!("target-{unique}"))?;
        admin.register(&identity, clearance, &[]).await.context("a certificate to act on")?;
        Ok(identity.thumbprint())
    };
    let (_, method) = row.path.rsplit_once('/').context("a path")?;
    Ok(match method {
        "GetDocument" => bytes(&document::GetDocumentRequest {
            database: variant,
            id: "planted".into(),
            ..Default::default()
        }),
        "ListDocuments" => {
            bytes(&document::ListDocumentsRequest { database: variant, ..Default::default() })
        }
        "PutDocument" => bytes(&put_request(row.variant, &unique, "{}")),
        "DeleteDocument" => bytes(&document::DeleteDocumentRequest {
            database: variant,
            id: unique,
            request_id: request_id(),
            ..Default::default()
        }),
        "BatchWrite" => {
            let put = document::PutWrite { json: b"{}".to_vec(), ..Default::default() };
            let write = document::Write {
                id: unique,
                operation: Some(document::write::Operation::Put(put)),
                ..Default::default()
            };
            let request_id = request_id();
            bytes(&document::BatchWriteRequest {
                database: variant,
                writes: vec![write],
                request_id,
            })
        }
        "ListDatabases" => bytes(&database::ListDatabasesRequest::default()),
        "GetDatabase" => bytes(&database::GetDatabaseRequest { name: variant }),
        "GetDatabaseRecord" => bytes(&database::GetDatabaseRecordRequest { name: variant }),
        // Refused after the decision, so that the table does not fill the cluster with databases.
        "CreateDatabase" => bytes(&database::CreateDatabaseRequest {
            name: format!("d{unique}"),
            nodes: vec!["no-such-node".into()],
            request_id: request_id(),
            ..Default::default()
        }),
        "EnableDatabase" => {
            bytes(&database::EnableDatabaseRequest { name: variant, request_id: request_id() })
        }
        "DisableDatabase" => {
            bytes(&database::DisableDatabaseRequest { name: variant, request_id: request_id() })
        }
        "DeleteDatabase" => {
            bytes(&database::DeleteDatabaseRequest { name: variant, request_id: request_id() })
        }
        "WhoAmI" => bytes(&security::WhoAmIRequest {}),
        "ExportServerCertificates" => bytes(&security::ExportServerCertificatesRequest::default()),
        "ListCertificates" => bytes(&security::ListCertificatesRequest::default()),
        "GetCertificate" => bytes(&security::GetCertificateRequest { thumbprint: target().await? }),
        "GenerateCertificate" => bytes(&security::GenerateCertificateRequest {
            name: format!("generated-{unique}"),
            clearance: clearance.into(),
            request_id: request_id(),
            ..Default::default()
        }),
        "UploadCertificate" => bytes(&security::UploadCertificateRequest {
            name: format!("uploaded-{unique}"),
            clearance: clearance.into(),
            grants: granted(&[]),
            certificate: Identity::new(&unique)?.leaf().to_vec(),
            request_id: request_id(),
            ..Default::default()
        }),
        "EditCertificate" => bytes(&security::EditCertificateRequest {
            thumbprint: target().await?,
            name: format!("edited-{unique}"),
            clearance: if row.variant == "raise" { Clearance::ClusterAdmin.into() } else { 0 },
            request_id: request_id(),
            ..Default::default()
        }),
        "DeleteCertificate" => bytes(&security::DeleteCertificateRequest {
            thumbprint: target().await?,
            request_id: request_id(),
        }),
        "CloneCertificate" => bytes(&security::CloneCertificateRequest {
            thumbprint: target().await?,
            name: format!("clone-{unique}"),
            request_id: request_id(),
            ..Default::default()
        }),
        "DisableCertificate" => bytes(&security::DisableCertificateRequest {
            thumbprint: target().await?,
            request_id: request_id(),
            ..Default::default()
        }),
        "EnableCertificate" => bytes(&security::EnableCertificateRequest {
            thumbprint: target().await?,
            request_id: request_id(),
            ..Default::default()
        }),
        // Refused after the decision: a purge would take the expired caller of the table along.
        "PurgeCertificates" => {
            bytes(&security::PurgeCertificatesRequest { limit: u32::MAX, request_id: request_id() })
        }
        "Explain" => bytes(&security::ExplainRequest {
            thumbprint: if row.variant == "other" { target().await? } else { String::new() },
            operation: "view-topology".into(),
            ..Default::default()
        }),
        "WhoMay" => bytes(&security::WhoMayRequest {
            operation: "view-topology".into(),
            page_size: 1,
            ..Default::default()
        }),
        "ListUnused" => {
            bytes(&security::ListUnusedRequest { since_unix_ms: 1, ..Default::default() })
        }
        "ListWellKnownAdmins" => bytes(&security::ListWellKnownAdminsRequest {}),
        "GetSecurityPolicy" => bytes(&security::GetSecurityPolicyRequest {}),
        "SetSecurityPolicy" => {
            let renewal = security::Renewal::Explicit.into();
            let policy = security::SecurityPolicy { renewal, ..Default::default() };
            bytes(&security::SetSecurityPolicyRequest {
                policy: Some(policy),
                request_id: request_id(),
                ..Default::default()
            })
        }
        "ListNotifications" => {
            bytes(&security::ListNotificationsRequest { page_size: 1, ..Default::default() })
        }
        "Enrol" => {
            bytes(&security::EnrolRequest { thumbprint: target().await?, request_id: request_id() })
        }
        "Remove" => bytes(&security::RemoveRequest {
            thumbprint: target().await?,
            request_id: request_id(),
        }),
        "Confirm" => bytes(&security::ConfirmRequest {
            code: "123456".into(),
            request_id: request_id(),
            ..Default::default()
        }),
        "LogIn" => bytes(&security::LogInRequest {
            proof: Some(security::log_in_request::Proof::Code("123456".into())),
            request_id: request_id(),
            ..Default::default()
        }),
        "LogOut" => bytes(&security::LogOutRequest { request_id: request_id() }),
        "GetSecondFactorStatus" => bytes(&security::GetSecondFactorStatusRequest {}),
        "ListConnections" => bytes(&monitoring::ListConnectionsRequest::default()),
        "CloseConnections" => bytes(&monitoring::CloseConnectionsRequest {
            thumbprint: target().await?,
            request_id: request_id(),
            ..Default::default()
        }),
        "GetMetrics" => bytes(&monitoring::GetMetricsRequest::default()),
        "GetTopology" => bytes(&cluster::GetTopologyRequest {}),
        "GetStatus" => bytes(&cluster::GetStatusRequest { local_only: true }),
        "CreateJoinToken" => bytes(&cluster::CreateJoinTokenRequest {
            lifetime_seconds: 60,
            request_id: request_id(),
        }),
        "ListJoinTokens" => bytes(&cluster::ListJoinTokensRequest {}),
        "RevokeJoinToken" => {
            bytes(&cluster::RevokeJoinTokenRequest { id: unique, request_id: request_id() })
        }
        "Join" => bytes(&cluster::JoinRequest {
            token_id: unique,
            token_secret: vec![7; 32],
            node_name: "intruder".into(),
            client_address: "127.0.0.1:9".into(),
            peer_address: "127.0.0.1:10".into(),
            incarnation: vec![1; 16],
            request_id: request_id(),
        }),
        "RemoveNode" => {
            bytes(&cluster::RemoveNodeRequest { node_id: 999, request_id: request_id() })
        }
        "PromoteNode" => {
            bytes(&cluster::PromoteNodeRequest { node_id: 999, request_id: request_id() })
        }
        "DemoteNode" => {
            bytes(&cluster::DemoteNodeRequest { node_id: 999, request_id: request_id() })
        }
        "TransferLeader" => {
            bytes(&cluster::TransferLeaderRequest { group: "cluster".into(), node_id: 999 })
        }
        "TriggerSnapshot" => bytes(&cluster::TriggerSnapshotRequest { group: "cluster".into() }),
        "ListRecords" => bytes(&audit::ListRecordsRequest::default()),
        // Refused after the decision, because a stream without end has no answer.
        "TailRecords" => bytes(&audit::TailRecordsRequest {
            filter: Some(audit::Filter { actor: "no hex".into(), ..audit::Filter::default() }),
            after_sequence: 0,
        }),
        "Verify" => bytes(&audit::VerifyRequest {}),
        "Export" => bytes(&audit::ExportRequest { request_id: request_id() }),
        // ServerReflectionRequest { list_services = 7: "*" }.
        "ServerReflectionInfo" => vec![0x3a, 1, b'*'],
        // An empty message is a valid one of each of these.
        "Check" | "GetNodeState" | "Bootstrap" | "JoinCluster" | "Channel" | "InstallSnapshot"
        | "TrustCertificate" | "RevokeCertificate" | "ExportRecovery" | "Probe"
        | "GetKeyStatus" | "RotateMasterKey" | "RotateDataKey" | "NoSuchMethod" => Vec::new(),
        "ListServerCertificates"
        | "ReplaceServerCertificates"
        | "GetServerCertificateReplacement"
        | "AbortServerCertificateReplacement"
        | "ReloadServerCertificate" => Vec::new(),
        method => anyhow::bail!("the table has no message for {method}"),
    })
}

fn bytes(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// The decision in a few letters; the legend of the golden file says which.
fn cell(outcome: &Result<(), Status>) -> String {
    match Decision::of(outcome) {
        Decision::Allowed(Code::Ok) => "Y".into(),
        Decision::Allowed(code) => format!("Y {code:?}"),
        Decision::Denied(reason) | Decision::Unauthenticated(reason) => match reason.as_str() {
            "CERTIFICATE_REQUIRED" => "?required".into(),
            "CERTIFICATE_UNKNOWN" => "?unknown".into(),
            "CERTIFICATE_EXPIRED" => "?expired".into(),
            "CLEARANCE_TOO_LOW" => "-clearance".into(),
            "DATABASE_ACCESS_DENIED" => "-database".into(),
            "MANAGE_FORBIDDEN" => "-manage".into(),
            "JOIN_TOKEN_REFUSED" => "-token".into(),
            other => format!("!{other}"),
        },
        Decision::None(Code::Unimplemented) => "absent".into(),
        Decision::None(code) => format!("!{code:?}"),
    }
}

const LEGEND: &str = "\
Who may call what: each RPC of the contract, called with each kind of certificate, the same on every node.
Y allowed (with the answer, where it is not OK)   absent: not served by the client listener
? the certificate is not good enough to ask: required, unknown, expired
- denied: by clearance, for want of access to the database, by who may manage whom, for want of a token
Databases: sales (granted to db-admin, read-write, read), other (granted to nobody), missing (does not exist).

";

/// What is wrong with one outcome, judged by the rule alone.
fn judge(row: &Row, caller: &str, outcome: &Result<(), Status>) -> Option<String> {
    let decision = Decision::of(outcome);
    if row.rule == Rule::Absent {
        let absent = decision == Decision::None(Code::Unimplemented);
        // A service that does not exist may also be refused before it is looked for.
        let refused = matches!(decision, Decision::Unauthenticated(_) | Decision::Denied(_));
        return (!absent && !refused).then(|| "is served by the client listener".to_owned());
    }
    if row.rule == Rule::JoinToken {
        return outcome.is_ok().then(|| "joined without a token".to_owned());
    }
    if decision.allows() != row.rule.allows(caller) {
        return Some(format!("{decision}, against the rule {:?}", row.rule));
    }
    let (Decision::Denied(_) | Decision::Unauthenticated(_), Err(status)) = (&decision, outcome)
    else {
        return matches!(decision, Decision::None(_)).then(|| decision.to_string());
    };
    let Some(info) = status.get_details_error_info() else {
        return Some("a refusal without ErrorInfo".to_owned());
    };
    if info.domain != "rookery" {
        return Some(format!("a refusal of the domain {:?}", info.domain));
    }
    let untold =
        ["required", "have", "rule"].into_iter().find(|key| !info.metadata.contains_key(*key));
    untold
        .filter(|_| matches!(decision, Decision::Denied(_)))
        .map(|key| format!("a denial without {key:?}"))
}

/// Everyone in the table but those without a certificate.
async fn people(cluster: &mut Cluster) -> Result<BTreeMap<&'static str, Identity>> {
    let mut people = BTreeMap::new();
    people.insert("node", cluster.nodes[0].identity.clone());
    people.insert("cluster-admin", cluster.administrator.clone());
    people.insert("operator", cluster.register("operator", Clearance::Operator, &[]).await?);
    for (name, access) in
        [("db-admin", Access::Admin), ("read-write", Access::ReadWrite), ("read", Access::Read)]
    {
        people.insert(name, cluster.register(name, Clearance::User, &[("sales", access)]).await?);
    }
    people.insert("no-grants", cluster.register("no-grants", Clearance::User, &[]).await?);
    people.insert("unknown", Identity::new("unknown")?);
    // With the clearance of an administrator, so that only the date can refuse it.
    let expired = Identity::expiring("expired", Duration::from_secs(4))?;
    cluster.admin(0)?.register(&expired, Clearance::ClusterAdmin, &[]).await?;
    people.insert("expired", expired);
    Ok(people)
}

async fn until_expired(cluster: &Cluster, expired: &Identity) -> Result<()> {
    for node in &cluster.nodes {
        let caller = node.caller(Some(expired))?;
        eventually("the certificate expires", Duration::from_secs(15), async || {
            let outcome = caller.cluster().get_topology(cluster::GetTopologyRequest {}).await;
            let decision = Decision::of(&outcome);
            anyhow::ensure!(matches!(decision, Decision::Unauthenticated(_)), "{decision}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[test]
fn every_rpc_of_the_contract_has_a_row() {
    let called: BTreeSet<String> = rows().into_iter().map(|row| row.path).collect();
    let without: Vec<String> = contract::rpcs()
        .unwrap()
        .iter()
        .map(Rpc::path)
        .filter(|path| !called.contains(path))
        .collect();
    assert!(without.is_empty(), "add rows to the table for {without:?}");
    assert!(called.len() > 30, "the contract was not read");
}

#[tokio::test]
async fn every_rpc_is_decided_by_its_rule_and_alike_on_every_node() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let admin = cluster.admin(0)?;
    for database in ["sales", "other"] {
        admin.create_database(database, 3).await?;
        admin.put(database, "planted", "{}").await?;
    }
    let people = people(&mut cluster).await?;
    until_expired(&cluster, &people["expired"]).await?;
    let mut channels: BTreeMap<&str, Vec<Caller>> = BTreeMap::new();
    for name in CALLERS {
        channels.insert(name, cluster.everywhere(people.get(name))?);
    }
    let mut problems = Vec::new();
    let mut table = format!("{LEGEND}{:<46}", "");
    for name in CALLERS {
        write!(table, "{name:<20}")?;
    }
    table.push('\n');
    for row in rows() {
        let (service, method) =
            row.path.trim_start_matches('/').split_once('/').context("a path")?;
        let area = service.rsplit('.').next().unwrap_or_default().trim_end_matches("Service");
        let label = format!("{area}.{method} {}", row.variant);
        write!(table, "{label:<45} ")?;
        for name in CALLERS {
            let mut cells = BTreeSet::new();
            for (at, caller) in channels[name].iter().enumerate() {
                let messages = vec![message(&row, &cluster.admin(at)?).await?];
                let outcome = contract::call(&caller.channel, &row.path, messages).await.map(drop);
                if let Some(problem) = judge(&row, name, &outcome) {
                    problems
                        .push(format!("{label} by {name} on n{}: {problem}: {outcome:?}", at + 1));
                }
                cells.insert(cell(&outcome));
            }
            if cells.len() != 1 {
                problems.push(format!("{label} by {name}: the nodes differ: {cells:?}"));
            }
            write!(table, "{:<20}", cells.into_iter().collect::<Vec<_>>().join(" / "))?;
        }
        table.truncate(table.trim_end().len());
        table.push('\n');
    }
    anyhow::ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    golden::check("golden/permissions.txt", &table)?;
    a_caller_without_a_grant_cannot_tell_missing_from_forbidden(&channels).await?;
    lists_hold_only_what_the_caller_may_see(&channels).await?;
    cluster.same_state().await?;
    cluster.finish().await
}

/// The whole status, not only its code, is the same for a database that exists and one that does not.
async fn a_caller_without_a_grant_cannot_tell_missing_from_forbidden(
    channels: &BTreeMap<&str, Vec<Caller>>,
) -> Result<()> {
    for name in ["db-admin", "read", "no-grants", "unknown", "none"] {
        for caller in &channels[name] {
            let mut seen = BTreeSet::new();
            for database in ["other", "absent"] {
                let status = caller.get(database, "planted").await.err().context("was allowed")?;
                let info = status.get_details_error_info().context("no ErrorInfo")?;
                let metadata: BTreeMap<_, _> = info.metadata.into_iter().collect();
                let told = format!("{:?} {} {metadata:?}", status.code(), status.message());
                seen.insert(told.replace(database, "DATABASE"));
            }
            anyhow::ensure!(seen.len() == 1, "{name} can tell them apart: {seen:#?}");
        }
    }
    Ok(())
}

async fn lists_hold_only_what_the_caller_may_see(
    channels: &BTreeMap<&str, Vec<Caller>>,
) -> Result<()> {
    let expected: [(&str, &[&str]); 6] = [
        ("cluster-admin", &["other", "sales"]),
        ("operator", &["other", "sales"]),
        ("db-admin", &["sales"]),
        ("read-write", &["sales"]),
        ("read", &["sales"]),
        ("no-grants", &[]),
    ];
    for (name, expected) in expected {
        for caller in &channels[name] {
            let request = database::ListDatabasesRequest::default();
            let answer = caller.databases().list_databases(request).await?.into_inner();
            let mut seen: Vec<_> = answer.databases.into_iter().map(|d| d.name).collect();
            seen.sort();
            anyhow::ensure!(seen == expected, "{name} sees {seen:?}");
        }
    }
    Ok(())
}
