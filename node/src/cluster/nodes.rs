//! Commands on the cluster's nodes: form the cluster, make and revoke join tokens, join, remove.

use std::collections::BTreeSet;

use rookery_proto::log::v1::{
    CertificateRecord, ClusterSettings, CreateJoinToken, DatabaseRecord, FormCluster,
    FormedCluster, JoinNode, JoinTokenRecord, NodeRecord, PutCertificate, Refusal, RemoveNode,
    RevokeJoinToken, cluster_outcome,
};
use subtle::ConstantTimeEq as _;

use crate::{
    authz::{self, Clearance, ServerOperation},
    certificates::Parsed,
    cluster::{Applying, Error, Outcome, check, denial, done, records},
    limits,
    names::{NodeId, Thumbprint},
    results::{Author, Stop, refusal, refusal_at, with},
};

impl Applying<'_, '_> {
    /// Registers nodes 1 to N, their certificates, and the first administrators. The node itself is the author: it read
    /// all of it from its own files, which is what makes the first administrator one.
    pub(super) fn form_cluster(&mut self, form: &FormCluster) -> Outcome {
        if self.registry.is_formed() {
            let refused = refusal("ALREADY_FORMED", "this cluster is formed already");
            return Err(with(refused, "cluster_id", &self.registry.cluster_id).into());
        }
        self.written_by_the_node()?;
        let settings = ClusterSettings {
            cluster_id: form.cluster_id.clone(),
            next_node_id: form.nodes.len() as u64 + 1,
            next_database_id: 1,
            registry_revision: 0,
        };
        records::put(self.state, &settings)?;
        self.registry.cluster_id.clone_from(&form.cluster_id);
        self.registry.next_database_id = settings.next_database_id;
        for (id, (node, der)) in (1..).zip(form.nodes.iter().zip(&form.node_certificates)) {
            let parsed = check::certificate("node_certificates", der)?;
            self.admit(NodeRecord { id, ..node.clone() }, der, &parsed)?;
        }
        for administrator in &form.administrators {
            let collection = check::check_put(administrator, "administrators.")?;
            let record = self.new_record(administrator, &collection);
            self.store_certificate(record)?;
        }
        let formed = FormedCluster { cluster_id: form.cluster_id.clone() };
        Ok(cluster_outcome::Outcome::FormedCluster(formed))
    }

    /// Nobody is registered before a cluster is formed, so no certificate can be the author.
    fn written_by_the_node(&self) -> Result<(), Refusal> {
        match self.entry.author {
            Author::Node(_) => Ok(()),
            Author::Certificate(thumbprint) => {
                let caller = self.registry.caller(Some(thumbprint));
                let denied = authz::decide_server(
                    caller,
                    ServerOperation::FormCluster,
                    self.entry.at,
                    self.registry.revision,
                );
                denied.map(drop).map_err(|denied| denial(&denied))
            }
        }
    }

    /// The registration of a certificate of a member.
    pub(super) fn node_certificate(
        &self,
        node: &NodeRecord,
        der: &[u8],
        parsed: &Parsed,
    ) -> CertificateRecord {
        let put = PutCertificate {
            der: der.to_vec(),
            name: node.name.clone(),
            clearance: Clearance::ClusterNode.number(),
            ..PutCertificate::default()
        };
        let collection = check::Collection { primary: parsed.clone(), secondaries: Vec::new() };
        CertificateRecord { node_id: node.id, ..self.new_record(&put, &collection) }
    }

    /// Stores a new member and registers its certificate.
    fn admit(
        &mut self,
        node: NodeRecord,
        der: &[u8],
        parsed: &Parsed,
    ) -> Result<NodeRecord, Error> {
        let certificate = self.node_certificate(&node, der, parsed);
        let node = NodeRecord {
            thumbprint: parsed.thumbprint.as_bytes().to_vec(),
            removed: false,
            revision: self.entry.index,
            ..node
        };
        self.store_certificate(certificate)?;
        self.store_node(node.clone())?;
        Ok(node)
    }

    /// Tokens past their time are forgotten on the way, so they do not count.
    pub(super) fn create_join_token(&mut self, create: &CreateJoinToken) -> Outcome {
        let now = self.entry.at.0;
        if create.expires_unix_ms <= now {
            return Err(check::invalid("expires_unix_ms", "must be in the future").into());
        }
        let (mut open, mut expired) = (0, Vec::new());
        records::all_pending::<JoinTokenRecord>(self.state, |token| {
            if token.expires_unix_ms < now {
                expired.push(token.id);
            } else {
                open += 1;
            }
            Ok(())
        })?;
        if records::get::<JoinTokenRecord>(self.state, create.id.as_bytes())?.is_some() {
            return Err(refusal_at("ALREADY_EXISTS", "id", "this id is taken").into());
        }
        if open >= limits::JOIN_TOKENS_MAX {
            let message = format!(
                "there are {} open join tokens; revoke one that is not needed",
                limits::JOIN_TOKENS_MAX
            );
            return Err(refusal("LIMIT_EXCEEDED", message).into());
        }
        for id in expired {
            records::delete::<JoinTokenRecord>(self.state, id.as_bytes())?;
        }
        let life_ms = i64::try_from(limits::JOIN_TOKEN_LIFE_MAX.as_millis()).unwrap_or(i64::MAX);
        let token = JoinTokenRecord {
            id: create.id.clone(),
            secret_digest: create.secret_digest.clone(),
            created_unix_ms: now,
            // Cut and not refused: the clock of whoever counted a week may differ from the leader's.
            expires_unix_ms: create.expires_unix_ms.min(now.saturating_add(life_ms)),
            created_by: self.author(),
        };
        records::put(self.state, &token)?;
        Ok(done())
    }

    pub(super) fn revoke_join_token(&mut self, revoke: &RevokeJoinToken) -> Outcome {
        let id = revoke.id.as_bytes();
        if records::get::<JoinTokenRecord>(self.state, id)?.is_none() {
            return Err(refusal_at("NOT_FOUND", "id", "there is no such join token").into());
        }
        records::delete::<JoinTokenRecord>(self.state, id)?;
        Ok(done())
    }

    /// Admits a node under a new id. The token is the authority, and is used up by success only.
    pub(super) fn join_node(&mut self, join: &JoinNode) -> Outcome {
        let parsed = check::certificate("certificate", &join.certificate)?;
        self.token_admits(join, &parsed.thumbprint)?;
        self.nothing_is_taken(join, &parsed.thumbprint)?;
        let mut settings = self.settings()?;
        let node = NodeRecord {
            id: settings.next_node_id,
            name: join.name.clone(),
            client_address: join.client_address.clone(),
            peer_address: join.peer_address.clone(),
            incarnation: join.incarnation.clone(),
            ..NodeRecord::default()
        };
        settings.next_node_id += 1;
        records::put(self.state, &settings)?;
        records::delete::<JoinTokenRecord>(self.state, join.token_id.as_bytes())?;
        let node = self.admit(node, &join.certificate, &parsed)?;
        Ok(cluster_outcome::Outcome::Node(node))
    }

    /// A token admits with its secret, in its time, for the holder of the certificate that joins, and as long as its
    /// maker may still add nodes: who revokes an administrator revokes the tokens they left behind. One answer for all.
    fn token_admits(&self, join: &JoinNode, joining: &Thumbprint) -> Result<(), Stop> {
        let token: Option<JoinTokenRecord> = records::get(self.state, join.token_id.as_bytes())?;
        let admits = token.is_some_and(|token| {
            let secret = token.secret_digest.ct_eq(&join.secret_digest);
            bool::from(secret)
                && self.entry.at.0 <= token.expires_unix_ms
                && self.may_add_nodes(&token.created_by)
        });
        let own = match self.entry.author {
            Author::Node(_) => true,
            Author::Certificate(author) => author == *joining,
        };
        if admits && own {
            return Ok(());
        }
        let message = "this join token is not valid: it is unknown, used, revoked or expired, or its maker may not \
                       add nodes any more; ask for a new one";
        Err(refusal("JOIN_TOKEN_REFUSED", message).into())
    }

    fn may_add_nodes(&self, created_by: &[u8]) -> bool {
        let Ok(maker) = Thumbprint::from_bytes(created_by) else { return false };
        // Made in a session, where the maker needs one; that it may be over by now changes nothing.
        let maker = self.registry.identity(&maker);
        let operation = ServerOperation::CreateJoinToken;
        maker.is_some_and(|maker| authz::reaches(maker, operation, self.entry.at))
    }

    fn nothing_is_taken(&self, join: &JoinNode, joining: &Thumbprint) -> Result<(), Refusal> {
        let registry = &self.registry;
        if registry.nodes().count() >= limits::NODES_MAX {
            let message = format!("a cluster has at most {} nodes", limits::NODES_MAX);
            return Err(refusal("LIMIT_EXCEEDED", message));
        }
        if registry.node_by_name(&join.name).is_some() {
            let message = format!("there is a node {} already", join.name);
            return Err(refusal_at("NAME_IN_USE", "name", message));
        }
        let addresses: BTreeSet<&str> = registry
            .nodes()
            .flat_map(|node| [node.client_address.as_str(), node.peer_address.as_str()])
            .collect();
        for (field, address) in
            [("client_address", &join.client_address), ("peer_address", &join.peer_address)]
        {
            if addresses.contains(address.as_str()) {
                let message = format!("another node has the address {address}");
                return Err(refusal_at("NAME_IN_USE", field, message));
            }
        }
        if registry.all_nodes().any(|node| node.incarnation == join.incarnation) {
            let message = "this data folder was a node before, and a node comes back only with an empty folder";
            return Err(refusal_at("NODE_ID_REUSED", "incarnation", message));
        }
        self.not_well_known(joining)?;
        self.not_registered(joining, "certificate")
    }

    /// Marks a node as removed, revokes its certificate, and takes it off every database that has other nodes.
    ///
    /// A database that only this node holds would be lost, so it forbids the removal and is named.
    pub(super) fn remove_node(&mut self, remove: &RemoveNode) -> Outcome {
        let id = NodeId(remove.node_id);
        let Some(node) = self.registry.node(id).map(|node| NodeRecord::clone(node)) else {
            let message = format!("there is no node {id}");
            return Err(refusal_at("NOT_FOUND", "node_id", message).into());
        };
        if self.registry.nodes().count() == 1 {
            let message = "this is the last node; a cluster has at least one";
            return Err(refusal_at("LAST_NODE", "node_id", message).into());
        }
        let had = std::iter::once(&node.thumbprint).chain(&node.other_thumbprints).cloned();
        let had: Vec<Vec<u8>> = had.collect();
        self.shares_no_certificate(id, &had)?;
        let held: Vec<DatabaseRecord> = self
            .registry
            .databases()
            .filter(|database| database.node_ids.contains(&remove.node_id))
            .map(|database| DatabaseRecord::clone(database))
            .collect();
        holds_no_last_copy(&held)?;
        for mut database in held {
            database.node_ids.retain(|other| *other != remove.node_id);
            database.revision = self.entry.index;
            self.store_database(database)?;
        }
        let node = NodeRecord {
            removed: true,
            revision: self.entry.index,
            other_thumbprints: Vec::new(),
            ..node
        };
        self.store_node(node.clone())?;
        for thumbprint in &had {
            self.forget_unless_a_members(thumbprint)?;
        }
        self.replacement_without_removed()?;
        Ok(cluster_outcome::Outcome::Node(node))
    }

    /// Who leaves keeps its keys. With one that another member has too it would go on being heard, as that member.
    fn shares_no_certificate(&self, leaving: NodeId, had: &[Vec<u8>]) -> Result<(), Refusal> {
        let shared = |known: &Vec<Vec<u8>>| known.iter().any(|thumbprint| had.contains(thumbprint));
        let others = self.known_without(leaving);
        let Some((other, _)) = others.into_iter().find(|(_, known)| shared(known)) else {
            return Ok(());
        };
        let message = format!(
            "other nodes use the same certificate, {other} among them: replace it with certificates of their own first \
             (rookery cert server replace --node …; --immediately if this node is down), then remove"
        );
        let refused = refusal_at("NODE_CERTIFICATE_SHARED", "node_id", message);
        Err(with(refused, "node", other))
    }
}

fn holds_no_last_copy(held: &[DatabaseRecord]) -> Result<(), Refusal> {
    let only_here: Vec<&str> = held
        .iter()
        .filter(|database| database.node_ids.len() == 1)
        .map(|database| database.name.as_str())
        .collect();
    if only_here.is_empty() {
        return Ok(());
    }
    let names = only_here.iter().take(limits::REFUSAL_NAMES_MAX).copied();
    let names = names.collect::<Vec<_>>().join(", ");
    let message = format!(
        "{} databases are on this node alone and would be lost: {names}. Delete them or move them first",
        only_here.len()
    );
    Err(with(refusal_at("NODE_IN_USE", "node_id", message), "databases", names))
}
