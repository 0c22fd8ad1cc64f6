//! What a node writes into the cluster's log in its own name: as a member, with its own certificate as the author.

use std::time::Instant;

use rookery_proto::log::v1::{Applied, ClusterCommand};

use super::{Consensus, Error};
use crate::{
    authz::{self, ServerOperation},
    names::RequestId,
};

impl Consensus {
    /// Puts a command of this node itself into the cluster group's log.
    ///
    /// The author is this node's certificate, so the leader and `apply` decide it like any other author: only a current
    /// member is heard.
    ///
    /// # Errors
    /// [`Error::Denied`] where this node is no member (any more); else as [`Consensus::propose_cluster`].
    pub async fn propose_as_member(
        &self,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        let fresh = self.fresh(deadline).await?;
        let caller = fresh.registry.caller(Some(self.thumbprint()));
        let revision = fresh.registry.revision;
        let permit = authz::decide_server(caller, ServerOperation::PeerCall, fresh.at, revision)?;
        self.propose_cluster(permit, RequestId::random(), command, deadline).await
    }
}
