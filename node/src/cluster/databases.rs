//! Commands on databases: create, enable, disable, delete.

use std::{collections::BTreeMap, sync::Arc};

use rookery_proto::log::v1::{
    CertificateRecord, CreateDatabase, DatabaseRecord, DeleteDatabase, Refusal, SetDatabaseState,
    cluster_outcome,
};

use crate::{
    cluster::{Applying, Error, Outcome, check, records},
    limits,
    names::{DatabaseId, DatabaseName},
    results::{refusal, refusal_at},
};

/// Nodes of a database where the command names no number.
const REPLICAS_DEFAULT: usize = 3;

impl Applying<'_, '_> {
    pub(super) fn create_database(&mut self, create: &CreateDatabase) -> Outcome {
        let name = check::database_name(&create.name)?;
        if let Some(other) = self.registry.database(&name) {
            let message = format!("there is a database {} already", other.name);
            return Err(refusal_at("ALREADY_EXISTS", "name", message).into());
        }
        if self.registry.databases().count() >= limits::DATABASES_MAX {
            let message = format!("a cluster has at most {} databases", limits::DATABASES_MAX);
            return Err(refusal("LIMIT_EXCEEDED", message).into());
        }
        let node_ids = self.place(create)?;
        let mut settings = self.settings()?;
        let record = DatabaseRecord {
            id: settings.next_database_id,
            name: create.name.clone(),
            enabled: true,
            founding_node_ids: node_ids.clone(),
            node_ids,
            created_unix_ms: self.entry.at.0,
            created_by: self.author(),
            revision: self.entry.index,
        };
        settings.next_database_id += 1;
        self.registry.next_database_id = settings.next_database_id;
        records::put(self.state, &settings)?;
        self.store_database(record.clone())?;
        Ok(cluster_outcome::Outcome::Database(record))
    }

    /// The nodes of a new database, ascending: those that are named, or those with the fewest databases.
    fn place(&self, create: &CreateDatabase) -> Result<Vec<u64>, Refusal> {
        let mut ids = if create.nodes.is_empty() {
            self.least_used(create.replicas)?
        } else {
            let mut named = Vec::with_capacity(create.nodes.len());
            for (place, name) in create.nodes.iter().enumerate() {
                let node = self.registry.node_by_name(name).ok_or_else(|| {
                    let field = format!("nodes[{place}]");
                    refusal_at("NOT_FOUND", field, format!("there is no node {name}"))
                })?;
                named.push(node.id);
            }
            named
        };
        ids.sort_unstable();
        Ok(ids)
    }

    fn least_used(&self, replicas: u32) -> Result<Vec<u64>, Refusal> {
        let mut used: BTreeMap<u64, usize> =
            self.registry.nodes().map(|node| (node.id, 0)).collect();
        let replicas = match usize::try_from(replicas).unwrap_or(usize::MAX) {
            0 => REPLICAS_DEFAULT.min(used.len()),
            asked if asked > used.len() => {
                let message = format!("the cluster has {} nodes", used.len());
                return Err(check::invalid("replicas", message));
            }
            asked => asked,
        };
        for database in self.registry.databases() {
            for id in &database.node_ids {
                used.entry(*id).and_modify(|databases| *databases += 1);
            }
        }
        let mut nodes: Vec<_> = used.into_iter().map(|(id, databases)| (databases, id)).collect();
        nodes.sort_unstable();
        Ok(nodes.into_iter().take(replicas).map(|(_, id)| id).collect())
    }

    pub(super) fn set_database_state(&mut self, set: &SetDatabaseState) -> Outcome {
        let (_, found) = self.existing(&set.name)?;
        let mut record = DatabaseRecord::clone(&found);
        if record.enabled != set.enabled {
            record.enabled = set.enabled;
            record.revision = self.entry.index;
            self.store_database(record.clone())?;
        }
        Ok(cluster_outcome::Outcome::Database(record))
    }

    /// Deletes the record and every grant on it, in this one entry.
    pub(super) fn delete_database(&mut self, delete: &DeleteDatabase) -> Outcome {
        let (name, found) = self.existing(&delete.name)?;
        self.drop_grants(found.id)?;
        self.forget_database(&name, found.id)?;
        Ok(cluster_outcome::Outcome::Database(DatabaseRecord::clone(&found)))
    }

    fn drop_grants(&mut self, database: u64) -> Result<(), Error> {
        let id = DatabaseId(database);
        let granted: Vec<_> =
            self.registry.entries().granted(id).into_iter().flatten().copied().collect();
        for thumbprint in granted {
            let mut record: CertificateRecord =
                records::require(self.state, thumbprint.as_bytes())?;
            record.grants.retain(|grant| grant.database_id != database);
            record.revision = self.entry.index;
            self.store_certificate(record)?;
        }
        Ok(())
    }

    fn existing(&self, name: &str) -> Result<(DatabaseName, Arc<DatabaseRecord>), Refusal> {
        let name = check::database_name(name)?;
        let found = self.registry.database(&name).map(Arc::clone).ok_or_else(|| {
            refusal_at("NOT_FOUND", "name", format!("there is no database {name}"))
        })?;
        Ok((name, found))
    }
}
