//! The service of keys: what is told of the keys of this node, and new ones in their place.

use std::sync::Arc;

use rookery_proto::security::v1::{
    GetKeyStatusRequest, GetKeyStatusResponse, RotateDataKeyRequest, RotateDataKeyResponse,
    RotateMasterKeyRequest, RotateMasterKeyResponse, key_service_server::KeyService,
    rotate_data_key_request as asked,
};
use tonic::{Code, Request, Response, Status};

use crate::{
    authz::{Permit, ServerOperation},
    cluster::Registry,
    edge::{
        Edge, convert,
        node_keys::{Error, NodeKeys},
    },
    names::{DatabaseId, DatabaseName, GroupId},
    storage::{self, Subject},
};

/// The service of keys.
pub struct KeysOfNode(pub Arc<Edge>);

#[tonic::async_trait]
impl KeyService for KeysOfNode {
    async fn get_key_status(
        &self,
        request: Request<GetKeyStatusRequest>,
    ) -> Result<Response<GetKeyStatusResponse>, Status> {
        let operation = ServerOperation::ListSecretKeys;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let (keys, registry) = (self.keys(&permit)?, context.registry);
        let status = self.blocking(move || keys.status(|group| group_name(&registry, group)));
        status.await.map(Response::new)
    }

    async fn rotate_master_key(
        &self,
        request: Request<RotateMasterKeyRequest>,
    ) -> Result<Response<RotateMasterKeyResponse>, Status> {
        let operation = ServerOperation::OverwriteSecretKey;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let keys = self.keys(&permit)?;
        self.0.audited(&context, operation, &self.0.node.name, "master key").await?;
        self.blocking(move || keys.rotate_master()).await.map(Response::new)
    }

    async fn rotate_data_key(
        &self,
        request: Request<RotateDataKeyRequest>,
    ) -> Result<Response<RotateDataKeyResponse>, Status> {
        let operation = ServerOperation::OverwriteSecretKey;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let keys = self.keys(&permit)?;
        let (subject, words) = subject(request.get_ref(), &context.registry)?;
        if let Subject::Group(group) = subject
            && !keys.holds(group)
        {
            let message = format!("The node {} holds no copy of that database.", self.0.node.name);
            let answer = convert::Answer::new(Code::FailedPrecondition, "NOT_HELD_HERE", message);
            return Err(answer.status());
        }
        self.0.audited(&context, operation, &self.0.node.name, &words).await?;
        let started = self.blocking(move || keys.rotate(subject)).await?;
        let node = self.0.node.name.clone();
        Ok(Response::new(RotateDataKeyResponse { node, started }))
    }
}

impl KeysOfNode {
    fn keys(&self, permit: &Permit) -> Result<Arc<NodeKeys>, Status> {
        self.0.engine.keys(permit).ok_or_else(no_keys)
    }

    /// What waits for a disk, a command, or a person, on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|error| convert::internal("The keys could not be used", error))?;
        done.map_err(|error| status(&error))
    }
}

/// What the caller is told of a failure; its words name files of the node, never a key.
pub fn status(error: &Error) -> Status {
    let reason = match error {
        Error::Configuration(_) => "NO_NEXT_MASTER_KEY",
        Error::SameKey(_) => "SAME_MASTER_KEY",
        Error::Exported => "ALREADY_EXPORTED",
        Error::Storage(storage::Error::NoKey(_)) => "NOT_HELD_HERE",
        Error::Crypto(_) => "MASTER_KEY_SOURCE",
        Error::Storage(error) => return convert::internal("The keys could not be used", error),
    };
    convert::Answer::new(Code::FailedPrecondition, reason, sentence(&error.to_string())).status()
}

/// Errors continue a sentence; answers begin one.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

/// A node without a data folder: only in tests of the services.
pub fn no_keys() -> Status {
    convert::Answer::new(Code::FailedPrecondition, "NO_KEYS", "This node has no keys.").status()
}

fn group_name(registry: &Registry, group: GroupId) -> String {
    match group.database() {
        None => "cluster".to_owned(),
        Some(id) => {
            registry.database_by_id(id).map_or_else(|| deleted(id), |record| record.name.clone())
        }
    }
}

fn deleted(id: DatabaseId) -> String {
    format!("database {id}")
}

/// What is to be rotated, and its name for the audit log.
fn subject(
    request: &RotateDataKeyRequest,
    registry: &Registry,
) -> Result<(Subject, String), Status> {
    match &request.subject {
        Some(asked::Subject::Database(name)) => {
            let name =
                DatabaseName::parse(name).map_err(|why| convert::invalid("database", why))?;
            let record = registry.database(&name);
            let record = record.ok_or_else(|| convert::not_found("database", &name))?;
            let group = GroupId::from(DatabaseId(record.id));
            Ok((Subject::Group(group), format!("data key of the database {name}")))
        }
        Some(asked::Subject::Cluster(true)) => {
            Ok((Subject::Group(GroupId::CLUSTER), "data key of the cluster group".to_owned()))
        }
        Some(asked::Subject::Files(true)) => Ok((Subject::Files, "key of the files".to_owned())),
        Some(asked::Subject::Cluster(false) | asked::Subject::Files(false)) | None => {
            let why = "names nothing: give a database, cluster, or files";
            Err(convert::invalid("subject", why))
        }
    }
}
