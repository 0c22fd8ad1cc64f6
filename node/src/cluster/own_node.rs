//! Commands that a member writes of itself; their author is its own certificate.

use rookery_proto::log::v1::{NodeRecord, RegisterSealingKey, cluster_outcome};

use crate::{
    cluster::{Applying, Outcome},
    names::NodeId,
    results::{Author, Stop, refusal_at},
};

impl Applying<'_, '_> {
    /// Keeps to which public key secrets for this node are sealed.
    pub(super) fn register_sealing_key(&mut self, register: &RegisterSealingKey) -> Outcome {
        let node = self.the_node_itself(register.node_id)?;
        let node =
            NodeRecord { sealing_key: register.key.clone(), revision: self.entry.index, ..node };
        self.store_node(node.clone())?;
        Ok(cluster_outcome::Outcome::Node(node))
    }

    /// The member of this id, if the author is a certificate of that very node.
    pub(super) fn the_node_itself(&self, id: u64) -> Result<NodeRecord, Stop> {
        let own = match self.entry.author {
            Author::Certificate(thumbprint) => self.registry.member(&thumbprint),
            Author::Node(_) => None,
        };
        match own.filter(|node| node.id == id) {
            Some(node) => Ok(node.clone()),
            None => {
                let message = format!("node {} can only be written of by itself", NodeId(id));
                Err(refusal_at("NOT_A_MEMBER", "node_id", message).into())
            }
        }
    }
}
