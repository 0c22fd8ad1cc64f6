//! Who this node is: the record in the data folder that outlives restarts and dies with the folder.

use std::collections::BTreeMap;

use prost::Message as _;
use rookery_proto::{log::v1 as log, peer::v1 as peer};

use super::{
    channel::PROTOCOL_VERSION,
    types::{Member, member_from, member_to},
};
use crate::{
    names::{GroupId, Incarnation, NodeId},
    storage::{self, Batch, Durability, Space, Store, Table},
};

/// The node's own table.
pub const NODE_SPACE: Space = Space { table: Table::Node, group: GroupId::CLUSTER, generation: 0 };

const IDENTITY_KEY: &[u8] = b"identity";

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Empty while the node is passive.
    pub cluster_id: String,
    /// 0 while the node is passive.
    pub node_id: NodeId,
    /// Random bytes of this data folder.
    pub incarnation: Incarnation,
    /// The members as they were when this node became one; used until the registry is there.
    pub peers: BTreeMap<NodeId, Member>,
}

impl Identity {
    /// Reads the record of the data folder, or makes one with a new incarnation in an empty folder.
    ///
    /// # Errors
    /// Those of the storage, and a record that makes no sense.
    pub fn load_or_make(store: &dyn Store) -> storage::Result<Self> {
        if let Some(bytes) = store.get(NODE_SPACE, IDENTITY_KEY)? {
            return Self::decode(&bytes).ok_or_else(|| {
                storage::Error::Folder(
                    "the identity record of the data folder is damaged".to_owned(),
                )
            });
        }
        let bytes: [u8; 16] = rand::random();
        let incarnation =
            Incarnation::from_bytes(&bytes).map_err(|e| storage::Error::Folder(e.to_string()))?;
        let identity = Self {
            cluster_id: String::new(),
            node_id: NodeId(0),
            incarnation,
            peers: BTreeMap::new(),
        };
        identity.save(store)?;
        Ok(identity)
    }

    /// Writes the record, durably.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn save(&self, store: &dyn Store) -> storage::Result<()> {
        let record = log::NodeIdentity {
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id.0,
            incarnation: self.incarnation.as_bytes().to_vec(),
            peers: self.peers.iter().map(|(id, member)| member_to(id.0, member)).collect(),
        };
        let mut batch = Batch::default();
        batch.put(NODE_SPACE, IDENTITY_KEY, record.encode_to_vec());
        store.write(batch, Durability::Synced)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let record = log::NodeIdentity::decode(bytes).ok()?;
        Some(Self {
            cluster_id: record.cluster_id,
            node_id: NodeId(record.node_id),
            incarnation: Incarnation::from_bytes(&record.incarnation).ok()?,
            peers: record.peers.iter().map(|p| (NodeId(p.id), member_from(p))).collect(),
        })
    }

    /// Whether the node belongs to a cluster.
    #[must_use]
    pub fn is_member(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// How this node introduces itself to peers.
    #[must_use]
    pub fn hello(&self, age: log::FolderAge) -> peer::Hello {
        peer::Hello {
            age: Some(age),
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id.0,
            incarnation: self.incarnation.as_bytes().to_vec(),
            version: PROTOCOL_VERSION,
            renews: false,
        }
    }
}
