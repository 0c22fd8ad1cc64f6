//! Commands of a node itself: what it noticed or keeps, in the name of its own certificate.
//!
//! A node is an author like any other: its certificate must be that of a current member, here, at the leader, and once
//! more in `apply`. So a node that was removed writes nothing any more, and no node writes in the name of another.

use std::time::Instant;

use rookery_proto::log::v1::{Applied, ClusterCommand};

use super::{Consensus, Error};
use crate::{
    authz::{self, ServerOperation},
    names::RequestId,
};

impl Consensus {
    /// Puts a command of this node into the cluster group's log and waits until it is applied here.
    ///
    /// # Errors
    /// [`Error::Denied`] where this node is no member; otherwise as [`Consensus::propose_cluster`].
    pub async fn propose_as_member(
        &self,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        self.propose_as_member_under(RequestId::random(), command, deadline).await
    }

    /// [`Consensus::propose_as_member`] under a request id: asked again with the same one, it is applied once.
    ///
    /// # Errors
    /// As there.
    pub async fn propose_as_member_under(
        &self,
        request_id: RequestId,
        command: ClusterCommand,
        deadline: Instant,
    ) -> Result<Applied, Error> {
        let fresh = self.fresh(deadline).await?;
        let own = fresh.registry.caller(Some(self.thumbprint()));
        let revision = fresh.registry.revision;
        let permit = authz::decide_server(own, ServerOperation::PeerCall, fresh.at, revision)?;
        self.propose_cluster(permit, request_id, command, deadline).await
    }
}
