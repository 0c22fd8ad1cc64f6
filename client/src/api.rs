//! One method for each RPC of the services of the client listener.

use rookery_proto::{
    audit::v1 as audit, cluster::v1 as cluster, database::v1 as database, document::v1 as document,
    monitoring::v1 as monitoring, security::v1 as security,
};
use uuid::Uuid;

use crate::{
    Client, Error,
    client::{Kind, message_bytes_max},
};

/// A request that may carry a request id.
pub trait Request: Clone {
    /// The field, for requests that change something.
    fn request_id(&mut self) -> Option<&mut String> {
        None
    }
}

macro_rules! request_ids {
    ($($request:path),* $(,)?) => {$(
        impl Request for $request {
            fn request_id(&mut self) -> Option<&mut String> {
                Some(&mut self.request_id)
            }
        }
    )*};
}

macro_rules! no_request_ids {
    ($($request:path),* $(,)?) => {$(impl Request for $request {})*};
}

request_ids!(
    document::PutDocumentRequest,
    document::DeleteDocumentRequest,
    document::BatchWriteRequest,
    database::CreateDatabaseRequest,
    database::EnableDatabaseRequest,
    database::DisableDatabaseRequest,
    database::DeleteDatabaseRequest,
    security::GenerateCertificateRequest,
    security::UploadCertificateRequest,
    security::EditCertificateRequest,
    security::DeleteCertificateRequest,
    security::CloneCertificateRequest,
    security::DisableCertificateRequest,
    security::EnableCertificateRequest,
    security::PurgeCertificatesRequest,
    security::ReplaceServerCertificatesRequest,
    security::AbortServerCertificateReplacementRequest,
    security::SetSecurityPolicyRequest,
    security::EnrolRequest,
    security::ConfirmRequest,
    security::LogInRequest,
    security::LogOutRequest,
    security::RemoveRequest,
    cluster::CreateJoinTokenRequest,
    cluster::RevokeJoinTokenRequest,
    cluster::JoinRequest,
    cluster::RemoveNodeRequest,
    cluster::PromoteNodeRequest,
    cluster::DemoteNodeRequest,
    audit::ExportRequest,
    monitoring::CloseConnectionsRequest,
);
no_request_ids!(
    document::GetDocumentRequest,
    document::ListDocumentsRequest,
    database::ListDatabasesRequest,
    database::GetDatabaseRequest,
    database::GetDatabaseRecordRequest,
    database::GetDatabaseStatisticsRequest,
    security::InspectCertificateRequest,
    security::ListCertificatesRequest,
    security::GetCertificateRequest,
    security::ExportServerCertificatesRequest,
    security::WhoAmIRequest,
    security::ListServerCertificatesRequest,
    security::GetServerCertificateReplacementRequest,
    security::ReloadServerCertificateRequest,
    security::ExplainRequest,
    security::WhoMayRequest,
    security::ListUnusedRequest,
    security::ListWellKnownAdminsRequest,
    security::GetSecurityPolicyRequest,
    security::ListNotificationsRequest,
    security::GetSecondFactorStatusRequest,
    security::GetKeyStatusRequest,
    security::RotateMasterKeyRequest,
    security::RotateDataKeyRequest,
    cluster::GetTopologyRequest,
    cluster::GetStatusRequest,
    cluster::ListJoinTokensRequest,
    cluster::TransferLeaderRequest,
    cluster::TriggerSnapshotRequest,
    audit::ListRecordsRequest,
    audit::TailRecordsRequest,
    audit::VerifyRequest,
    monitoring::ListConnectionsRequest,
    monitoring::GetMetricsRequest,
);

/// Gives the request an id where it takes one and has none. One that is no UUID is left for the node to refuse, and retried
/// as a read: it is never applied.
fn kind(request: &mut impl Request, secret: bool, next: impl FnOnce() -> Uuid) -> Kind {
    let Some(field) = request.request_id() else { return Kind::Read };
    if field.is_empty() {
        *field = next().to_string();
    }
    match Uuid::try_parse(field) {
        Ok(id) if secret => Kind::Secret(id),
        Ok(id) => Kind::Write(id),
        Err(_) => Kind::Read,
    }
}

macro_rules! methods {
    ($service:ident :: $client_module:ident :: $client:ident {
        $($(#[doc = $doc:literal])* $method:ident($request:ident) -> $response:ident $($secret:ident)?;)*
    }) => {
        impl Client {$(
            $(#[doc = $doc])*
            ///
            /// # Errors
            /// [`Error`], one variant for each thing a caller would do differently.
            pub async fn $method(
                &self,
                mut request: $service::$request,
            ) -> Result<$service::$response, Error> {
                let secret = methods!(@secret $($secret)?);
                let kind = kind(&mut request, secret, || self.next_request_id());
                self.call(kind, request, |channel, request| async move {
                    $service::$client_module::$client::new(channel)
                        .max_decoding_message_size(message_bytes_max())
                        .max_encoding_message_size(message_bytes_max())
                        .$method(request)
                        .await
                })
                .await
            }
        )*}
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

methods!(monitoring::monitoring_service_client::MonitoringServiceClient {
    /// The open connections of all nodes, one page a call; nodes that did not answer are named.
    list_connections(ListConnectionsRequest) -> ListConnectionsResponse;
    /// Cuts connections of a certificate; its holder may connect again.
    close_connections(CloseConnectionsRequest) -> CloseConnectionsResponse;
    /// Calls and latencies of the last hour by node.
    get_metrics(GetMetricsRequest) -> GetMetricsResponse;
});

methods!(document::document_service_client::DocumentServiceClient {
    /// Stores one document, new or over the old one.
    put_document(PutDocumentRequest) -> PutDocumentResponse;
    /// Reads one document.
    get_document(GetDocumentRequest) -> GetDocumentResponse;
    /// Deletes one document.
    delete_document(DeleteDocumentRequest) -> DeleteDocumentResponse;
    /// Lists documents in the byte order of their ids, one page a call.
    list_documents(ListDocumentsRequest) -> ListDocumentsResponse;
    /// Applies several writes, all or none.
    batch_write(BatchWriteRequest) -> BatchWriteResponse;
});

methods!(database::database_service_client::DatabaseServiceClient {
    /// Creates a database.
    create_database(CreateDatabaseRequest) -> CreateDatabaseResponse;
    /// Lists the databases that the caller may read, one page a call.
    list_databases(ListDatabasesRequest) -> ListDatabasesResponse;
    /// Shows one database.
    get_database(GetDatabaseRequest) -> GetDatabaseResponse;
    /// Counts the documents of a database and of its collections, one page of collections a call.
    get_database_statistics(GetDatabaseStatisticsRequest) -> GetDatabaseStatisticsResponse;
    /// The whole record, for Operators.
    get_database_record(GetDatabaseRecordRequest) -> GetDatabaseRecordResponse;
    /// Lets a disabled database answer again.
    enable_database(EnableDatabaseRequest) -> EnableDatabaseResponse;
    /// Stops a database from answering.
    disable_database(DisableDatabaseRequest) -> DisableDatabaseResponse;
    /// Deletes a database, every grant on it, and its data key.
    delete_database(DeleteDatabaseRequest) -> DeleteDatabaseResponse;
});

methods!(security::security_service_client::SecurityServiceClient {
    /// Makes, registers and returns a certificate; its key is given once.
    generate_certificate(GenerateCertificateRequest) -> GenerateCertificateResponse secret;
    /// What an upload holds; registers nothing.
    inspect_certificate(InspectCertificateRequest) -> InspectCertificateResponse;
    /// Registers the public part of an existing certificate.
    upload_certificate(UploadCertificateRequest) -> UploadCertificateResponse;
    /// Lists certificates, one page a call.
    list_certificates(ListCertificatesRequest) -> ListCertificatesResponse;
    /// One certificate.
    get_certificate(GetCertificateRequest) -> GetCertificateResponse;
    /// Changes name, clearance or permissions.
    edit_certificate(EditCertificateRequest) -> EditCertificateResponse;
    /// Deletes the registration.
    delete_certificate(DeleteCertificateRequest) -> DeleteCertificateResponse;
    /// Generates a certificate with the rights of another one; its key is given once.
    clone_certificate(CloneCertificateRequest) -> CloneCertificateResponse secret;
    /// Switches a certificate off.
    disable_certificate(DisableCertificateRequest) -> DisableCertificateResponse;
    /// Switches a certificate on again.
    enable_certificate(EnableCertificateRequest) -> EnableCertificateResponse;
    /// Deletes expired certificates that the caller may delete.
    purge_certificates(PurgeCertificatesRequest) -> PurgeCertificatesResponse;
    /// The public certificates of all nodes, as a PFX and as PEM.
    export_server_certificates(ExportServerCertificatesRequest) -> ExportServerCertificatesResponse;
    /// Tells who the caller is.
    who_am_i(WhoAmIRequest) -> WhoAmIResponse;
});

methods!(security::trust_service_client::TrustServiceClient {
    /// Says what a certificate may do, by which rule, and what would let it.
    explain(ExplainRequest) -> ExplainResponse;
    /// Lists the certificates that may do an operation, one page a call.
    who_may(WhoMayRequest) -> WhoMayResponse;
    /// Lists certificates that were not used for a time, one page a call.
    list_unused(ListUnusedRequest) -> ListUnusedResponse;
    /// Lists the thumbprints that nodes declare as Cluster Admins.
    list_well_known_admins(ListWellKnownAdminsRequest) -> ListWellKnownAdminsResponse;
    /// The security policy.
    get_security_policy(GetSecurityPolicyRequest) -> GetSecurityPolicyResponse;
    /// Replaces the security policy.
    set_security_policy(SetSecurityPolicyRequest) -> SetSecurityPolicyResponse;
    /// Certificates that expire or have expired, one page a call.
    list_notifications(ListNotificationsRequest) -> ListNotificationsResponse;
});

methods!(security::second_factor_service_client::SecondFactorServiceClient {
    /// Makes a second factor; its secret and recovery codes are given once.
    enrol(EnrolRequest) -> EnrolResponse secret;
    /// Makes the own second factor count, with a first code.
    confirm(ConfirmRequest) -> ConfirmResponse secret;
    /// Opens a session with a code; its token is given once.
    log_in(LogInRequest) -> LogInResponse secret;
    /// Ends the caller's session.
    log_out(LogOutRequest) -> LogOutResponse;
    /// Takes the second factor off a certificate.
    remove(RemoveRequest) -> RemoveResponse;
    /// Whether the caller needs a session, and has one.
    get_second_factor_status(GetSecondFactorStatusRequest) -> GetSecondFactorStatusResponse;
});

methods!(security::key_service_client::KeyServiceClient {
    /// The keys of the node that is called, and how they are kept. All three are best sent to one node by name.
    get_key_status(GetKeyStatusRequest) -> GetKeyStatusResponse;
    /// Seals the node's keyring by the next master key of its configuration.
    rotate_master_key(RotateMasterKeyRequest) -> RotateMasterKeyResponse;
    /// Makes a new data key and has everything sealed with it.
    rotate_data_key(RotateDataKeyRequest) -> RotateDataKeyResponse;
});

methods!(cluster::cluster_service_client::ClusterServiceClient {
    /// Groups as every node sees them.
    get_status(GetStatusRequest) -> GetStatusResponse;
    /// Makes a single-use join token; it is given once.
    create_join_token(CreateJoinTokenRequest) -> CreateJoinTokenResponse secret;
    /// Lists open join tokens.
    list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensResponse;
    /// Revokes a join token.
    revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenResponse;
    /// Registers a passive node that holds a token.
    join(JoinRequest) -> JoinResponse;
    /// Removes a node and revokes its certificate.
    remove_node(RemoveNodeRequest) -> RemoveNodeResponse;
    /// Makes a learner a voter.
    promote_node(PromoteNodeRequest) -> PromoteNodeResponse;
    /// Makes a voter a learner.
    demote_node(DemoteNodeRequest) -> DemoteNodeResponse;
    /// Hands leadership of one group to a node.
    transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse;
    /// Builds a snapshot of one group on the node that is asked.
    trigger_snapshot(TriggerSnapshotRequest) -> TriggerSnapshotResponse;
});

methods!(audit::audit_service_client::AuditServiceClient {
    /// Lists audit records that fit a filter, one page a call.
    list_records(ListRecordsRequest) -> ListRecordsResponse;
    /// Walks the audit chain on one node and compares its head with the others.
    verify(VerifyRequest) -> VerifyResponse;
});

/// Streams of the audit log. Only their beginning is retried and bounded in time.
impl Client {
    /// Audit records as they are written.
    ///
    /// # Errors
    /// As any call; the stream ends with a status of its own.
    pub async fn tail_records(
        &self,
        request: audit::TailRecordsRequest,
    ) -> Result<tonic::Streaming<audit::TailRecordsResponse>, Error> {
        self.call(Kind::Read, request, |channel, request| async move {
            audit::audit_service_client::AuditServiceClient::new(channel)
                .max_decoding_message_size(message_bytes_max())
                .tail_records(request)
                .await
        })
        .await
    }

    /// The whole audit log as JSON lines.
    ///
    /// # Errors
    /// As any call; the stream ends with a status of its own.
    pub async fn export_audit(
        &self,
        mut request: audit::ExportRequest,
    ) -> Result<tonic::Streaming<audit::ExportResponse>, Error> {
        let kind = kind(&mut request, false, || self.next_request_id());
        self.call(kind, request, |channel, request| async move {
            audit::audit_service_client::AuditServiceClient::new(channel)
                .max_decoding_message_size(message_bytes_max())
                .export(request)
                .await
        })
        .await
    }
}

/// Short forms of the calls that programs make most.
impl Client {
    /// The nodes and their addresses.
    ///
    /// # Errors
    /// As any call.
    pub async fn topology(&self) -> Result<cluster::GetTopologyResponse, Error> {
        self.get_topology(cluster::GetTopologyRequest {}).await
    }

    /// Stores a document without a precondition.
    ///
    /// # Errors
    /// As any call.
    pub async fn put(
        &self,
        database: &str,
        id: &str,
        collection: &str,
        json: Vec<u8>,
    ) -> Result<document::PutDocumentResponse, Error> {
        self.put_document(document::PutDocumentRequest {
            database: database.to_owned(),
            id: id.to_owned(),
            collection: collection.to_owned(),
            json,
            precondition: None,
            request_id: String::new(),
        })
        .await
    }

    /// Reads a document, linearizable; `None` where there is none.
    ///
    /// # Errors
    /// As any call.
    pub async fn get(&self, database: &str, id: &str) -> Result<Option<document::Document>, Error> {
        let request = document::GetDocumentRequest {
            database: database.to_owned(),
            id: id.to_owned(),
            stale_ok: false,
        };
        match self.get_document(request).await {
            Ok(answer) => Ok(answer.document),
            Err(Error::NotFound(failure))
                if failure.metadata.get("kind").is_none_or(|kind| kind == "document") =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Deletes a document without a precondition.
    ///
    /// # Errors
    /// As any call.
    pub async fn delete(
        &self,
        database: &str,
        id: &str,
    ) -> Result<document::DeleteDocumentResponse, Error> {
        self.delete_document(document::DeleteDocumentRequest {
            database: database.to_owned(),
            id: id.to_owned(),
            precondition: None,
            request_id: String::new(),
        })
        .await
    }

    /// Who the caller is.
    ///
    /// # Errors
    /// As any call.
    pub async fn whoami(&self) -> Result<security::WhoAmIResponse, Error> {
        self.who_am_i(security::WhoAmIRequest {}).await
    }
}

methods!(security::server_certificate_service_client::ServerCertificateServiceClient {
    /// The certificates by which every node is known.
    list_server_certificates(ListServerCertificatesRequest) -> ListServerCertificatesResponse;
    /// Starts the replacement of the certificates of all nodes.
    replace_server_certificates(ReplaceServerCertificatesRequest) -> ReplaceServerCertificatesResponse;
    /// How far the replacement is, or how the last one ended.
    get_server_certificate_replacement(GetServerCertificateReplacementRequest) -> GetServerCertificateReplacementResponse;
    /// Gives a replacement up.
    abort_server_certificate_replacement(AbortServerCertificateReplacementRequest) -> AbortServerCertificateReplacementResponse;
    /// Has the called node look at the source of its certificate.
    reload_server_certificate(ReloadServerCertificateRequest) -> ReloadServerCertificateResponse;
});
