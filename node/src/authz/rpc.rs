//! Which operation each RPC is. A test walks the contract and fails where an RPC has no row here.

use crate::authz::{DatabaseOperation, ServerOperation};

/// Who may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcRule {
    /// An operation of the server or the cluster.
    Server(ServerOperation),
    /// An operation on the database that the request names.
    Database(DatabaseOperation),
    /// Whoever owns the node's files: the admin socket, and no certificate.
    AdminSocket,
}

/// Every RPC of the contract by its full name and its operation.
///
/// For certificates the operation is the weaker of two; [`super::certificates_rules`] decides by the certificate.
/// Before a cluster is formed there is no registry and so no member: what nodes ask each other then (`Probe`) is held
/// against the thumbprints of the formation, by the peer listener itself.
pub const RPCS: &[(&str, RpcRule)] = {
    use DatabaseOperation as D;
    use RpcRule::{AdminSocket, Database, Server};
    use ServerOperation as S;
    &[
        ("rookery.admin.v1.AdminService/GetNodeState", AdminSocket),
        ("rookery.admin.v1.AdminService/Bootstrap", AdminSocket),
        ("rookery.admin.v1.AdminService/JoinCluster", AdminSocket),
        ("rookery.audit.v1.AuditService/ListRecords", Server(S::ViewAudit)),
        ("rookery.audit.v1.AuditService/TailRecords", Server(S::ViewAudit)),
        ("rookery.audit.v1.AuditService/Verify", Server(S::VerifyAudit)),
        ("rookery.audit.v1.AuditService/Export", Server(S::ExportAudit)),
        ("rookery.admin.v1.AdminService/TrustCertificate", AdminSocket),
        ("rookery.admin.v1.AdminService/RevokeCertificate", AdminSocket),
        ("rookery.admin.v1.AdminService/ExportRecovery", AdminSocket),
        ("rookery.cluster.v1.ClusterService/GetTopology", Server(S::ViewTopology)),
        ("rookery.cluster.v1.ClusterService/GetStatus", Server(S::ViewClusterStatus)),
        ("rookery.cluster.v1.ClusterService/CreateJoinToken", Server(S::CreateJoinToken)),
        ("rookery.cluster.v1.ClusterService/ListJoinTokens", Server(S::ListJoinTokens)),
        ("rookery.cluster.v1.ClusterService/RevokeJoinToken", Server(S::RevokeJoinToken)),
        ("rookery.cluster.v1.ClusterService/Join", Server(S::JoinCluster)),
        ("rookery.cluster.v1.ClusterService/RemoveNode", Server(S::RemoveNode)),
        ("rookery.cluster.v1.ClusterService/PromoteNode", Server(S::PromoteNode)),
        ("rookery.cluster.v1.ClusterService/DemoteNode", Server(S::DemoteNode)),
        ("rookery.cluster.v1.ClusterService/TransferLeader", Server(S::TransferLeader)),
        ("rookery.cluster.v1.ClusterService/TriggerSnapshot", Server(S::TriggerSnapshot)),
        ("rookery.database.v1.DatabaseService/CreateDatabase", Server(S::CreateDatabase)),
        ("rookery.database.v1.DatabaseService/ListDatabases", Server(S::ListDatabases)),
        ("rookery.database.v1.DatabaseService/GetDatabase", Database(D::ViewDatabase)),
        ("rookery.database.v1.DatabaseService/GetDatabaseRecord", Server(S::ViewDatabaseRecord)),
        ("rookery.database.v1.DatabaseService/EnableDatabase", Server(S::EnableDatabase)),
        ("rookery.database.v1.DatabaseService/DisableDatabase", Server(S::DisableDatabase)),
        ("rookery.database.v1.DatabaseService/DeleteDatabase", Server(S::DeleteDatabase)),
        ("rookery.document.v1.DocumentService/PutDocument", Database(D::PutDocument)),
        ("rookery.document.v1.DocumentService/GetDocument", Database(D::ReadDocument)),
        ("rookery.document.v1.DocumentService/DeleteDocument", Database(D::DeleteDocument)),
        ("rookery.document.v1.DocumentService/ListDocuments", Database(D::ListDocuments)),
        ("rookery.document.v1.DocumentService/BatchWrite", Database(D::BatchWrite)),
        ("rookery.monitoring.v1.MonitoringService/ListConnections", Server(S::ViewConnections)),
        ("rookery.monitoring.v1.MonitoringService/CloseConnections", Server(S::CloseConnections)),
        ("rookery.monitoring.v1.MonitoringService/GetMetrics", Server(S::ViewMetrics)),
        ("rookery.peer.v1.PeerService/Channel", Server(S::PeerCall)),
        ("rookery.peer.v1.PeerService/InstallSnapshot", Server(S::PeerCall)),
        ("rookery.peer.v1.PeerService/Probe", Server(S::PeerCall)),
        ("rookery.security.v1.KeyService/GetKeyStatus", Server(S::ListSecretKeys)),
        ("rookery.security.v1.KeyService/RotateMasterKey", Server(S::OverwriteSecretKey)),
        ("rookery.security.v1.KeyService/RotateDataKey", Server(S::OverwriteSecretKey)),
        ("rookery.security.v1.SecondFactorService/Enrol", Server(S::EnrolTwoFactor)),
        ("rookery.security.v1.SecondFactorService/Confirm", Server(S::ConfirmTwoFactor)),
        ("rookery.security.v1.SecondFactorService/LogIn", Server(S::TwoFactorLogIn)),
        ("rookery.security.v1.SecondFactorService/LogOut", Server(S::TwoFactorLogOut)),
        ("rookery.security.v1.SecondFactorService/Remove", Server(S::RemoveTwoFactor)),
        ("rookery.security.v1.SecondFactorService/GetSecondFactorStatus", Server(S::ViewTwoFactor)),
        ("rookery.security.v1.SecurityService/GenerateCertificate", Server(S::GenerateCertificate)),
        ("rookery.security.v1.SecurityService/InspectCertificate", Server(S::UploadCertificate)),
        ("rookery.security.v1.SecurityService/UploadCertificate", Server(S::UploadCertificate)),
        ("rookery.security.v1.SecurityService/ListCertificates", Server(S::ListCertificates)),
        ("rookery.security.v1.SecurityService/GetCertificate", Server(S::ViewCertificate)),
        ("rookery.security.v1.SecurityService/EditCertificate", Server(S::EditCertificate)),
        ("rookery.security.v1.SecurityService/DeleteCertificate", Server(S::DeleteCertificate)),
        ("rookery.security.v1.SecurityService/CloneCertificate", Server(S::GenerateCertificate)),
        ("rookery.security.v1.SecurityService/DisableCertificate", Server(S::DisableCertificate)),
        ("rookery.security.v1.SecurityService/EnableCertificate", Server(S::DisableCertificate)),
        ("rookery.security.v1.SecurityService/PurgeCertificates", Server(S::PurgeCertificates)),
        (
            "rookery.security.v1.SecurityService/ExportServerCertificates",
            Server(S::ExportServerCertificates),
        ),
        ("rookery.security.v1.SecurityService/WhoAmI", Server(S::WhoAmI)),
        (
            "rookery.security.v1.ServerCertificateService/ListServerCertificates",
            Server(S::ViewServerCertificateReplacement),
        ),
        (
            "rookery.security.v1.ServerCertificateService/ReplaceServerCertificates",
            Server(S::ReplaceServerCertificate),
        ),
        (
            "rookery.security.v1.ServerCertificateService/GetServerCertificateReplacement",
            Server(S::ViewServerCertificateReplacement),
        ),
        (
            "rookery.security.v1.ServerCertificateService/AbortServerCertificateReplacement",
            Server(S::ResetServerCertificateReplacement),
        ),
        (
            "rookery.security.v1.ServerCertificateService/ReloadServerCertificate",
            Server(S::RefreshServerCertificate),
        ),
        ("rookery.security.v1.TrustService/Explain", Server(S::ExplainAccess)),
        ("rookery.security.v1.TrustService/WhoMay", Server(S::ListCertificates)),
        ("rookery.security.v1.TrustService/ListUnused", Server(S::ListCertificates)),
        ("rookery.security.v1.TrustService/ListWellKnownAdmins", Server(S::ListCertificates)),
        ("rookery.security.v1.TrustService/GetSecurityPolicy", Server(S::ViewSecurityPolicy)),
        ("rookery.security.v1.TrustService/SetSecurityPolicy", Server(S::SetSecurityPolicy)),
        ("rookery.security.v1.TrustService/ListNotifications", Server(S::WatchNotifications)),
    ]
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_rpc_of_the_contract_has_a_row_and_every_row_an_rpc() {
        let contract = prost_types::FileDescriptorSet::decode(rookery_proto::DESCRIPTORS).unwrap();
        let mut rpcs = BTreeSet::new();
        for file in &contract.file {
            for service in &file.service {
                for method in &service.method {
                    rpcs.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let rows: BTreeSet<String> = RPCS.iter().map(|(rpc, _)| (*rpc).to_owned()).collect();
        assert!(rpcs.len() >= 40, "the contract was not read");
        assert_eq!(rows.len(), RPCS.len(), "an RPC has two rows");
        assert_eq!(rows, rpcs);
    }
}
