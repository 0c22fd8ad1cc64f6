//! Around the registry: explain, who may, unused, well-known admins, the security policy, notifications.
//!
//! Everything here is read from the registry of the decision; only the policy is changed, through the log.

mod explain;
mod lists;
mod policy;

use std::sync::Arc;

use rookery_proto::security::v1::{
    ExplainRequest, ExplainResponse, GetSecurityPolicyRequest, GetSecurityPolicyResponse,
    ListNotificationsRequest, ListNotificationsResponse, ListUnusedRequest, ListUnusedResponse,
    ListWellKnownAdminsRequest, ListWellKnownAdminsResponse, SetSecurityPolicyRequest,
    SetSecurityPolicyResponse, WhoMayRequest, WhoMayResponse, trust_service_server::TrustService,
};
use tonic::{Request, Response, Status};

use crate::{
    authz::ServerOperation,
    edge::{Edge, peer_identity::CallContext},
};

/// The trust service.
pub struct Trust(pub Arc<Edge>);

impl Trust {
    async fn listing<T>(&self, request: &Request<T>) -> Result<CallContext, Status> {
        let operation = ServerOperation::ListCertificates;
        self.0.authorize_server(request, operation).await.map(|(_, context)| context)
    }
}

#[tonic::async_trait]
impl TrustService for Trust {
    /// Everybody who is registered may ask about themselves; about others, those who may view certificates.
    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let operation = ServerOperation::ExplainAccess;
        let (_, mut context) = self.0.authorize_server(&request, operation).await?;
        let subject = explain::subject(&request.get_ref().thumbprint, &context)?;
        if Some(subject) != context.thumbprint() {
            let operation = ServerOperation::ViewCertificate;
            (_, context) = self.0.authorize_server(&request, operation).await?;
        }
        explain::explain(request.get_ref(), subject, &context).map(Response::new)
    }

    async fn who_may(
        &self,
        request: Request<WhoMayRequest>,
    ) -> Result<Response<WhoMayResponse>, Status> {
        let context = self.listing(&request).await?;
        explain::who_may(request.get_ref(), &context).map(Response::new)
    }

    async fn list_unused(
        &self,
        request: Request<ListUnusedRequest>,
    ) -> Result<Response<ListUnusedResponse>, Status> {
        let context = self.listing(&request).await?;
        lists::unused(request.get_ref(), &context).map(Response::new)
    }

    async fn list_well_known_admins(
        &self,
        request: Request<ListWellKnownAdminsRequest>,
    ) -> Result<Response<ListWellKnownAdminsResponse>, Status> {
        let context = self.listing(&request).await?;
        Ok(Response::new(lists::well_known(&context)))
    }

    async fn get_security_policy(
        &self,
        request: Request<GetSecurityPolicyRequest>,
    ) -> Result<Response<GetSecurityPolicyResponse>, Status> {
        let operation = ServerOperation::ViewSecurityPolicy;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let policy = Some(policy::shown(context.registry.policy()));
        Ok(Response::new(GetSecurityPolicyResponse { policy }))
    }

    async fn set_security_policy(
        &self,
        request: Request<SetSecurityPolicyRequest>,
    ) -> Result<Response<SetSecurityPolicyResponse>, Status> {
        let operation = ServerOperation::SetSecurityPolicy;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let policy = policy::set(&self.0, permit, &context, request.into_inner()).await?;
        Ok(Response::new(SetSecurityPolicyResponse { policy: Some(policy) }))
    }

    async fn list_notifications(
        &self,
        request: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        let operation = ServerOperation::WatchNotifications;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        lists::notifications(request.get_ref(), &context).map(Response::new)
    }
}
