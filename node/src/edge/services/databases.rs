//! Databases: create, list, show, count, enable, disable, delete.

use std::{sync::Arc, time::Duration};

use rookery_proto::{
    database::v1::{
        CreateDatabaseRequest, CreateDatabaseResponse, Database, DatabaseRecord, DatabaseState,
        DeleteDatabaseRequest, DeleteDatabaseResponse, DisableDatabaseRequest,
        DisableDatabaseResponse, EnableDatabaseRequest, EnableDatabaseResponse,
        GetDatabaseRecordRequest, GetDatabaseRecordResponse, GetDatabaseRequest,
        GetDatabaseResponse, GetDatabaseStatisticsRequest, GetDatabaseStatisticsResponse,
        ListDatabasesRequest, ListDatabasesResponse, database_service_server::DatabaseService,
    },
    document::v1::GetDocumentRequest,
    log::v1 as log,
};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use crate::{
    authz::{self, Access, DatabaseOperation, Permit, ServerOperation},
    cluster::Registry,
    consensus,
    database::page_token::{self, Binding},
    edge::{
        Edge, convert,
        peer_identity::CallContext,
        services::{page_size, page_start, propose, request_id, unexpected_outcome},
    },
    names::{DatabaseId, DatabaseName, NodeId},
};

/// Longest wait for the leader of a new database.
const LEADER_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks for it.
const LEADER_INTERVAL: Duration = Duration::from_millis(50);

/// The database service.
pub struct Databases(pub Arc<Edge>);

#[tonic::async_trait]
impl DatabaseService for Databases {
    async fn create_database(
        &self,
        request: Request<CreateDatabaseRequest>,
    ) -> Result<Response<CreateDatabaseResponse>, Status> {
        let operation = ServerOperation::CreateDatabase;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let create = log::CreateDatabase {
            name: name(&asked.name)?.as_str().to_owned(),
            nodes: asked.nodes,
            replicas: asked.replicas,
        };
        let command = log::cluster_command::Command::CreateDatabase(create);
        let outcome = propose(&self.0, permit, &context, id, command).await?;
        let record = database_of(outcome)?;
        self.await_leader(&record, &context).await;
        let record = Some(self.record(&record, &self.0.engine.registry()));
        Ok(Response::new(CreateDatabaseResponse { record }))
    }

    async fn list_databases(
        &self,
        request: Request<ListDatabasesRequest>,
    ) -> Result<Response<ListDatabasesResponse>, Status> {
        let operation = ServerOperation::ListDatabases;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let most = page_size(asked.page_size)?;
        let binding = Binding::new(context.thumbprint(), "databases");
        let after = page_start(&binding, &asked.page_token)?
            .map(String::from_utf8)
            .transpose()
            .map_err(|_| convert::invalid("page_token", "is no token of this list"))?;
        let registry = &context.registry;
        let mut visible = registry
            .databases_by_name(after.as_deref())
            .filter_map(|record| Some((record, access(&context, record)?)));
        let databases: Vec<Database> = visible
            .by_ref()
            .take(most)
            .map(|(record, access)| shown(record, access, registry))
            .collect();
        let more = visible.next().is_some();
        let last = databases.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |last| {
            binding.encode(last.name.to_ascii_lowercase().as_bytes())
        });
        Ok(Response::new(ListDatabasesResponse { databases, next_page_token }))
    }

    async fn get_database(
        &self,
        request: Request<GetDatabaseRequest>,
    ) -> Result<Response<GetDatabaseResponse>, Status> {
        let name = &request.get_ref().name;
        let operation = DatabaseOperation::ViewDatabase;
        let (_, record, context) = self.0.authorize_database(&request, name, operation).await?;
        let access = access(&context, &record).ok_or_else(unexpected_outcome)?;
        let database = Some(shown(&record, access, &context.registry));
        Ok(Response::new(GetDatabaseResponse { database }))
    }

    async fn get_database_statistics(
        &self,
        request: Request<GetDatabaseStatisticsRequest>,
    ) -> Result<Response<GetDatabaseStatisticsResponse>, Status> {
        let name = &request.get_ref().name;
        let operation = DatabaseOperation::ViewStatistics;
        let (permit, _, context) = self.0.authorize_database(&request, name, operation).await?;
        let asked = request.into_inner();
        page_size(asked.page_size)?;
        let (caller, id) = (context.thumbprint(), permit.database());
        page_token::decode_collections(caller, id, &asked.page_token)
            .map_err(|why| convert::invalid("page_token", why))?;
        let response = self.0.engine.statistics(permit, asked, context.deadline).await;
        Ok(Response::new(response.map_err(convert::status)?))
    }

    async fn get_database_record(
        &self,
        request: Request<GetDatabaseRecordRequest>,
    ) -> Result<Response<GetDatabaseRecordResponse>, Status> {
        let operation = ServerOperation::ViewDatabaseRecord;
        let (_, context) = self.0.authorize_server(&request, operation).await?;
        let name = name(&request.into_inner().name)?;
        let record = context.registry.database(&name);
        let record = record.ok_or_else(|| convert::not_found("database", &name))?;
        let record = Some(self.record(record, &context.registry));
        Ok(Response::new(GetDatabaseRecordResponse { record }))
    }

    async fn enable_database(
        &self,
        request: Request<EnableDatabaseRequest>,
    ) -> Result<Response<EnableDatabaseResponse>, Status> {
        let operation = ServerOperation::EnableDatabase;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let record = self.switch(permit, &context, &asked.name, &asked.request_id, true).await?;
        Ok(Response::new(EnableDatabaseResponse { record: Some(record) }))
    }

    async fn disable_database(
        &self,
        request: Request<DisableDatabaseRequest>,
    ) -> Result<Response<DisableDatabaseResponse>, Status> {
        let operation = ServerOperation::DisableDatabase;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let record = self.switch(permit, &context, &asked.name, &asked.request_id, false).await?;
        Ok(Response::new(DisableDatabaseResponse { record: Some(record) }))
    }

    async fn delete_database(
        &self,
        request: Request<DeleteDatabaseRequest>,
    ) -> Result<Response<DeleteDatabaseResponse>, Status> {
        let operation = ServerOperation::DeleteDatabase;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let delete = log::DeleteDatabase { name: name(&asked.name)?.as_str().to_owned() };
        let command = log::cluster_command::Command::DeleteDatabase(delete);
        propose(&self.0, permit, &context, id, command).await?;
        Ok(Response::new(DeleteDatabaseResponse {}))
    }
}

impl Databases {
    async fn switch(
        &self,
        permit: Permit,
        context: &CallContext,
        database: &str,
        id: &str,
        enabled: bool,
    ) -> Result<DatabaseRecord, Status> {
        let id = request_id(id)?;
        let set = log::SetDatabaseState { name: name(database)?.as_str().to_owned(), enabled };
        let command = log::cluster_command::Command::SetDatabaseState(set);
        let outcome = propose(&self.0, permit, context, id, command).await?;
        Ok(self.record(&database_of(outcome)?, &context.registry))
    }

    /// Reads from a new database until its group answers. It exists either way: where no leader is there in time the
    /// client's first call will wait.
    async fn await_leader(&self, record: &log::DatabaseRecord, context: &CallContext) {
        let until = context.deadline.min(Instant::now() + LEADER_WITHIN);
        while Instant::now() < until {
            // Whoever may create a database may read it; a node that holds it decides that again.
            let decided = authz::decide_database(
                context.caller(),
                DatabaseOperation::ReadDocument,
                DatabaseId(record.id),
                context.at,
                context.registry.revision,
            );
            let Ok(permit) = decided else { return };
            let request = GetDocumentRequest {
                database: record.name.clone(),
                id: "none".to_owned(),
                stale_ok: false,
            };
            let look = until.min(Instant::now() + Duration::from_secs(1));
            match self.0.engine.document(permit, request, look).await {
                Ok(_) | Err(consensus::Error::Refused(_)) => return, // There is no such document.
                Err(_) => sleep(LEADER_INTERVAL).await,
            }
        }
    }

    fn record(&self, record: &log::DatabaseRecord, registry: &Registry) -> DatabaseRecord {
        DatabaseRecord {
            id: record.id,
            name: record.name.clone(),
            state: state(record).into(),
            node_ids: record.node_ids.clone(),
            nodes: node_names(record, registry),
            created_unix_ms: record.created_unix_ms,
            created_by: hex::encode(&record.created_by),
            revision: record.revision,
        }
    }
}

fn name(text: &str) -> Result<DatabaseName, Status> {
    DatabaseName::parse(text).map_err(|why| convert::invalid("name", why))
}

fn database_of(outcome: log::cluster_outcome::Outcome) -> Result<log::DatabaseRecord, Status> {
    match outcome {
        log::cluster_outcome::Outcome::Database(record) => Ok(record),
        log::cluster_outcome::Outcome::FormedCluster(_)
        | log::cluster_outcome::Outcome::Certificate(_)
        | log::cluster_outcome::Outcome::Node(_)
        | log::cluster_outcome::Outcome::PurgedCertificates(_)
        | log::cluster_outcome::Outcome::CertificateReplacement(_)
        | log::cluster_outcome::Outcome::SecurityPolicy(_)
        | log::cluster_outcome::Outcome::Done(_)
        | log::cluster_outcome::Outcome::OpenedSession(_)
        | log::cluster_outcome::Outcome::NotedWrongCode(_) => Err(unexpected_outcome()),
    }
}

/// The caller's access to a database; `None` where it must stay hidden.
fn access(context: &CallContext, record: &log::DatabaseRecord) -> Option<Access> {
    context.registration()?.access(DatabaseId(record.id))
}

fn shown(record: &log::DatabaseRecord, access: Access, registry: &Registry) -> Database {
    Database {
        name: record.name.clone(),
        state: state(record).into(),
        access: access.title().to_owned(),
        nodes: node_names(record, registry),
        created_unix_ms: record.created_unix_ms,
    }
}

fn state(record: &log::DatabaseRecord) -> DatabaseState {
    if record.enabled { DatabaseState::Enabled } else { DatabaseState::Disabled }
}

/// The names of the members that hold a database.
fn node_names(record: &log::DatabaseRecord, registry: &Registry) -> Vec<String> {
    let nodes = record.node_ids.iter().filter_map(|id| registry.node(NodeId(*id)));
    nodes.map(|node| node.name.clone()).collect()
}
