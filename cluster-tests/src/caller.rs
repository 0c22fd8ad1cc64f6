//! The typed calls of one identity on one node, and what a status decided.

use std::fmt;

use rookery_proto::{
    audit::v1::audit_service_client::AuditServiceClient,
    cluster::v1::cluster_service_client::ClusterServiceClient,
    database::v1::database_service_client::DatabaseServiceClient,
    document::v1::{self as document, document_service_client::DocumentServiceClient},
    monitoring::v1::monitoring_service_client::MonitoringServiceClient,
    security::v1::{
        Access, Clearance, Grant, UploadCertificateRequest, key_service_client::KeyServiceClient,
        security_service_client::SecurityServiceClient, trust_service_client::TrustServiceClient,
    },
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::identity::Identity;

/// Largest answer that tests take: the limit of the contract.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One identity that speaks to one node.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The channel, for calls without types.
    pub channel: Channel,
}

impl Caller {
    /// The document service.
    #[must_use]
    pub fn documents(&self) -> DocumentServiceClient<Channel> {
        DocumentServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The database service.
    #[must_use]
    pub fn databases(&self) -> DatabaseServiceClient<Channel> {
        DatabaseServiceClient::new(self.channel.clone())
    }

    /// The security service.
    #[must_use]
    pub fn security(&self) -> SecurityServiceClient<Channel> {
        SecurityServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The trust service.
    #[must_use]
    pub fn trust(&self) -> TrustServiceClient<Channel> {
        TrustServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The cluster service.
    #[must_use]
    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    /// The service of keys.
    #[must_use]
    pub fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel.clone())
    }

    /// The monitoring service.
    #[must_use]
    pub fn monitoring(&self) -> MonitoringServiceClient<Channel> {
        MonitoringServiceClient::new(self.channel.clone())
    }

    /// The audit service.
    #[must_use]
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Stores a document; gives its etag.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn put(&self, database: &str, id: &str, json: &str) -> Result<String, Status> {
        let answer = self.documents().put_document(put_request(database, id, json)).await?;
        Ok(answer.into_inner().etag)
    }

    /// Reads a document's bytes, linearizably.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn get(&self, database: &str, id: &str) -> Result<Vec<u8>, Status> {
        Ok(self.document(database, id).await?.json)
    }

    /// Reads a document, linearizably.
    ///
    /// # Errors
    /// The status of the call, or NOT_FOUND for an answer without a document.
    pub async fn document(&self, database: &str, id: &str) -> Result<document::Document, Status> {
        let request = document::GetDocumentRequest {
            database: database.to_owned(),
            id: id.to_owned(),
            stale_ok: false,
        };
        let answer = self.documents().get_document(request).await?.into_inner();
        answer.document.ok_or_else(|| Status::not_found("the answer holds no document"))
    }

    /// Creates a database on `replicas` nodes.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn create_database(&self, name: &str, replicas: u32) -> Result<(), Status> {
        let request = rookery_proto::database::v1::CreateDatabaseRequest {
            name: name.to_owned(),
            replicas,
            nodes: Vec::new(),
            request_id: request_id(),
        };
        self.databases().create_database(request).await.map(drop)
    }

    /// Registers the certificate of `identity`.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn register(
        &self,
        identity: &Identity,
        clearance: Clearance,
        grants: &[(&str, Access)],
    ) -> Result<(), Status> {
        let request = UploadCertificateRequest {
            name: identity.name.clone(),
            clearance: clearance.into(),
            grants: granted(grants),
            certificate: identity.leaf().to_vec(),
            request_id: request_id(),
            ..Default::default()
        };
        self.security().upload_certificate(request).await.map(drop)
    }

    /// Deletes the registration of a thumbprint.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn revoke(&self, thumbprint: &str) -> Result<(), Status> {
        let request = rookery_proto::security::v1::DeleteCertificateRequest {
            thumbprint: thumbprint.to_owned(),
            request_id: request_id(),
        };
        self.security().delete_certificate(request).await.map(drop)
    }

    /// Replaces the grants of a thumbprint.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn set_grants(
        &self,
        thumbprint: &str,
        grants: &[(&str, Access)],
    ) -> Result<(), Status> {
        let request = rookery_proto::security::v1::EditCertificateRequest {
            thumbprint: thumbprint.to_owned(),
            grants: granted(grants),
            set_grants: true,
            request_id: request_id(),
            ..Default::default()
        };
        self.security().edit_certificate(request).await.map(drop)
    }
}

/// A request that stores `json` under `id`, with a new request id.
#[must_use]
pub fn put_request(database: &str, id: &str, json: &str) -> document::PutDocumentRequest {
    document::PutDocumentRequest {
        database: database.to_owned(),
        id: id.to_owned(),
        collection: String::new(),
        json: json.as_bytes().to_vec(),
        precondition: None,
        request_id: request_id(),
    }
}

/// Grants by database name.
#[must_use]
pub fn granted(grants: &[(&str, Access)]) -> Vec<Grant> {
    grants
        .iter()
        .map(|(database, access)| Grant {
            database: (*database).to_owned(),
            access: (*access).into(),
        })
        .collect()
}

/// A new request id.
#[must_use]
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// What a call was told, as far as authorization goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It was let through: with OK, or with an error that only those hear who may ask, such as NOT_FOUND.
    Allowed(Code),
    /// The caller's certificate is not good enough to ask anything, with the reason.
    Unauthenticated(String),
    /// The caller is known and may not, with the reason.
    Denied(String),
    /// No decision: the node could not serve, or has no such call.
    None(Code),
}

impl Decision {
    /// What the outcome of a call decided.
    #[must_use]
    pub fn of<T>(outcome: &Result<T, Status>) -> Self {
        let Err(status) = outcome else { return Self::Allowed(Code::Ok) };
        match status.code() {
            Code::Unauthenticated => Self::Unauthenticated(reason(status)),
            Code::PermissionDenied => Self::Denied(reason(status)),
            code @ (Code::NotFound
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::ResourceExhausted) => Self::Allowed(code),
            code @ (Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss) => Self::None(code),
        }
    }

    /// Whether the call was let through.
    #[must_use]
    pub fn allows(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(Code::Ok) => f.write_str("allow"),
            Self::Allowed(code) => write!(f, "allow:{code:?}"),
            Self::Unauthenticated(reason) => write!(f, "who? {reason}"),
            Self::Denied(reason) => write!(f, "deny {reason}"),
            Self::None(code) => write!(f, "none:{code:?}"),
        }
    }
}

/// The stable reason of a status (`ErrorInfo.reason`); empty where it carries none.
#[must_use]
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
