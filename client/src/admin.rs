//! The admin socket of a node on this machine: forming, joining, and what the node is; no certificate needed.

use std::{path::Path, time::Duration};

use rookery_proto::admin::v1::{
    BootstrapRequest, BootstrapResponse, ExportRecoveryRequest, ExportRecoveryResponse,
    GetNodeStateRequest, GetNodeStateResponse, JoinClusterRequest, JoinClusterResponse,
    RevokeCertificateRequest, RevokeCertificateResponse, TrustCertificateRequest,
    TrustCertificateResponse, admin_service_client::AdminServiceClient,
};
use tonic::{Response, Status, transport::Channel};

use crate::{Error, connect, error::Attempt};

/// Time a call may take where none was chosen.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// A client of one admin socket. Calls are made once: nothing here is retried.
#[derive(Debug, Clone)]
pub struct Admin {
    client: AdminServiceClient<Channel>,
    timeout: Duration,
}

/// A client of the socket at `path`. Connects on the first call.
#[must_use]
pub fn connect(path: &Path) -> Admin {
    let channel = connect::unix_channel(path.to_owned());
    Admin { client: AdminServiceClient::new(channel), timeout: TIMEOUT_DEFAULT }
}

impl Admin {
    /// The same client with another time limit.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What this node is and whether it serves.
    ///
    /// # Errors
    /// As any call.
    pub async fn node_state(&self) -> Result<GetNodeStateResponse, Error> {
        let mut client = self.client.clone();
        self.limited(client.get_node_state(GetNodeStateRequest {})).await
    }

    /// Forms a cluster of one node and registers its first Cluster Admin.
    ///
    /// # Errors
    /// As any call.
    pub async fn bootstrap(
        &self,
        admin_certificate: Vec<u8>,
        admin_name: &str,
    ) -> Result<BootstrapResponse, Error> {
        let request = BootstrapRequest { admin_certificate, admin_name: admin_name.to_owned() };
        let mut client = self.client.clone();
        self.limited(client.bootstrap(request)).await
    }

    /// Makes the node join a cluster.
    ///
    /// # Errors
    /// As any call.
    pub async fn join(&self, address: &str, token: &str) -> Result<JoinClusterResponse, Error> {
        let request = JoinClusterRequest { address: address.to_owned(), token: token.to_owned() };
        let mut client = self.client.clone();
        self.limited(client.join_cluster(request)).await
    }

    /// What opens the node's data folder without its master key; `force` asks for another one.
    ///
    /// # Errors
    /// As any call.
    pub async fn export_recovery(&self, force: bool) -> Result<ExportRecoveryResponse, Error> {
        let mut client = self.client.clone();
        self.limited(client.export_recovery(ExportRecoveryRequest { force })).await
    }

    /// Registers a certificate from this machine.
    ///
    /// # Errors
    /// As any call.
    pub async fn trust_certificate(
        &self,
        request: TrustCertificateRequest,
    ) -> Result<TrustCertificateResponse, Error> {
        let mut client = self.client.clone();
        self.limited(client.trust_certificate(request)).await
    }

    /// Deletes a registration.
    ///
    /// # Errors
    /// As any call.
    pub async fn revoke_certificate(
        &self,
        request: RevokeCertificateRequest,
    ) -> Result<RevokeCertificateResponse, Error> {
        let mut client = self.client.clone();
        self.limited(client.revoke_certificate(request)).await
    }

    async fn limited<R>(
        &self,
        call: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<R, Error> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&status)),
            Err(_) => Err(Attempt::timed_out(self.timeout).into_error()),
        }
    }
}
