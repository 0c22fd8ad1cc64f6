//! Reads and writes of documents.

use std::sync::Arc;

use rookery_proto::{
    document::v1::{
        BatchWriteRequest, BatchWriteResponse, DeleteDocumentRequest, DeleteDocumentResponse,
        GetDocumentRequest, GetDocumentResponse, ListDocumentsRequest, ListDocumentsResponse,
        Position, Precondition, PutDocumentRequest, PutDocumentResponse, Write, WriteResult,
        document_service_server::DocumentService, precondition, write,
    },
    log::v1::{
        Applied, DatabaseCommand, DeleteDocument, DocumentResult, DocumentWrite, PutDocument,
        Refusal, applied, document_write,
    },
};
use tonic::{Request, Response, Status};

use crate::{
    authz::{DatabaseOperation, DatabasePermit},
    consensus,
    database::{self, ListQuery, page_token},
    edge::{
        Edge, convert,
        peer_identity::CallContext,
        services::{page_size, request_id, unexpected_outcome},
    },
    limits,
    names::{CollectionName, DatabaseId, DocumentId, RequestId},
};

/// The document service.
pub struct Documents(pub Arc<Edge>);

#[tonic::async_trait]
impl DocumentService for Documents {
    async fn put_document(
        &self,
        request: Request<PutDocumentRequest>,
    ) -> Result<Response<PutDocumentResponse>, Status> {
        let database = &request.get_ref().database;
        let operation = DatabaseOperation::PutDocument;
        let (permit, _, context) = self.0.authorize_database(&request, database, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let put = PutDocument { collection: asked.collection, json: asked.json };
        let write = DocumentWrite {
            id: asked.id,
            condition: condition(asked.precondition, "")?,
            operation: Some(document_write::Operation::Put(put)),
        };
        let (result, position) = self.write_one(permit, &context, id, write).await?;
        Ok(Response::new(PutDocumentResponse { etag: result.etag, position: Some(position) }))
    }

    async fn get_document(
        &self,
        request: Request<GetDocumentRequest>,
    ) -> Result<Response<GetDocumentResponse>, Status> {
        let database = &request.get_ref().database;
        let operation = DatabaseOperation::ReadDocument;
        let (permit, _, context) = self.0.authorize_database(&request, database, operation).await?;
        let asked = request.into_inner();
        DocumentId::parse(&asked.id).map_err(|why| convert::invalid("id", why))?;
        let response = self.0.engine.document(permit, asked, context.deadline).await;
        Ok(Response::new(response.map_err(convert::status)?))
    }

    async fn delete_document(
        &self,
        request: Request<DeleteDocumentRequest>,
    ) -> Result<Response<DeleteDocumentResponse>, Status> {
        let database = &request.get_ref().database;
        let operation = DatabaseOperation::DeleteDocument;
        let (permit, _, context) = self.0.authorize_database(&request, database, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let write = DocumentWrite {
            id: asked.id,
            condition: condition(asked.precondition, "")?,
            operation: Some(document_write::Operation::Delete(DeleteDocument {})),
        };
        let (result, position) = self.write_one(permit, &context, id, write).await?;
        let response = DeleteDocumentResponse { deleted: result.deleted, position: Some(position) };
        Ok(Response::new(response))
    }

    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        let database = &request.get_ref().database;
        let operation = DatabaseOperation::ListDocuments;
        let (permit, _, context) = self.0.authorize_database(&request, database, operation).await?;
        let asked = request.into_inner();
        check_list(&asked, permit.database(), &context)?;
        let response = self.0.engine.documents(permit, asked, context.deadline).await;
        Ok(Response::new(response.map_err(convert::status)?))
    }

    async fn batch_write(
        &self,
        request: Request<BatchWriteRequest>,
    ) -> Result<Response<BatchWriteResponse>, Status> {
        let database = &request.get_ref().database;
        let operation = batch_operation(&request.get_ref().writes);
        let (permit, _, context) = self.0.authorize_database(&request, database, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        if asked.writes.len() > limits::BATCH_WRITES_MAX {
            let why = format!(
                "holds {} writes; at most {}",
                asked.writes.len(),
                limits::BATCH_WRITES_MAX
            );
            return Err(convert::invalid("writes", why));
        }
        let writes = asked.writes.into_iter().enumerate();
        let writes =
            writes.map(|(place, write)| one_of_batch(place, write)).collect::<Result<_, _>>()?;
        let command = DatabaseCommand { writes };
        database::check(&command).map_err(convert::refusal)?;
        let applied = self.propose(permit, &context, id, command).await.map_err(convert::status)?;
        let (results, position) =
            results(applied).map_err(convert::refusal)?.ok_or_else(unexpected_outcome)?;
        let results = results
            .into_iter()
            .map(|DocumentResult { id, etag, deleted }| WriteResult { id, etag, deleted })
            .collect();
        Ok(Response::new(BatchWriteResponse { results, position: Some(position) }))
    }
}

impl Documents {
    async fn propose(
        &self,
        permit: DatabasePermit,
        context: &CallContext,
        id: RequestId,
        command: DatabaseCommand,
    ) -> Result<Applied, consensus::Error> {
        self.0.engine.propose_database(permit, id, command, context.deadline).await
    }

    /// A write that is no batch to its client: field paths have no place in one.
    async fn write_one(
        &self,
        permit: DatabasePermit,
        context: &CallContext,
        id: RequestId,
        write: DocumentWrite,
    ) -> Result<(DocumentResult, Position), Status> {
        let told = |refusal: Refusal| convert::refusal(without_place(refusal));
        let command = DatabaseCommand { writes: vec![write] };
        database::check(&command).map_err(told)?;
        let applied = match self.propose(permit, context, id, command).await {
            Ok(applied) => applied,
            Err(consensus::Error::Refused(refusal)) => return Err(told(*refusal)),
            Err(error) => return Err(convert::status(error)),
        };
        let (results, position) = results(applied).map_err(told)?.ok_or_else(unexpected_outcome)?;
        let result = results.into_iter().next().ok_or_else(unexpected_outcome)?;
        Ok((result, position))
    }
}

fn without_place(refusal: Refusal) -> Refusal {
    let field = refusal.field.strip_prefix("writes[0].").unwrap_or(&refusal.field).to_owned();
    Refusal { field, ..refusal }
}

/// What a batch came to; `None` for an outcome of another kind.
fn results(applied: Applied) -> Result<Option<(Vec<DocumentResult>, Position)>, Refusal> {
    let position = Position { index: applied.index, registry_revision: applied.registry_revision };
    match applied.outcome {
        Some(applied::Outcome::Database(outcome)) => Ok(Some((outcome.results, position))),
        Some(applied::Outcome::Refusal(refusal)) => Err(refusal),
        Some(applied::Outcome::Cluster(_)) | None => Ok(None),
    }
}

/// A batch of one is in the log what a single write is, and the permit says so too. All require the same access.
fn batch_operation(writes: &[Write]) -> DatabaseOperation {
    match writes {
        [Write { operation: Some(write::Operation::Put(_)), .. }] => DatabaseOperation::PutDocument,
        [Write { operation: Some(write::Operation::Delete(_)), .. }] => {
            DatabaseOperation::DeleteDocument
        }
        _ => DatabaseOperation::BatchWrite,
    }
}

fn one_of_batch(place: usize, write: Write) -> Result<DocumentWrite, Status> {
    let path = format!("writes[{place}].");
    let operation = match write.operation {
        Some(write::Operation::Put(put)) => document_write::Operation::Put(PutDocument {
            collection: put.collection,
            json: put.json,
        }),
        Some(write::Operation::Delete(_)) => document_write::Operation::Delete(DeleteDocument {}),
        None => {
            return Err(convert::invalid(&format!("{path}operation"), "is neither put nor delete"));
        }
    };
    let condition = condition(write.precondition, &path)?;
    Ok(DocumentWrite { id: write.id, condition, operation: Some(operation) })
}

/// A precondition that names no condition is a mistake: taken for "none" it would overwrite.
fn condition(
    precondition: Option<Precondition>,
    path: &str,
) -> Result<Option<document_write::Condition>, Status> {
    let Some(precondition) = precondition else { return Ok(None) };
    let invalid = |why: &str| convert::invalid(&format!("{path}precondition"), why);
    match precondition.condition {
        Some(precondition::Condition::Etag(etag)) if etag.is_empty() || etag.len() > 128 => {
            Err(invalid("etag is not one that this server gave"))
        }
        Some(precondition::Condition::Etag(etag)) => {
            Ok(Some(document_write::Condition::ExpectedEtag(etag)))
        }
        Some(precondition::Condition::MustNotExist(true)) => {
            Ok(Some(document_write::Condition::MustNotExist(true)))
        }
        Some(precondition::Condition::MustNotExist(false)) => {
            Err(invalid("must_not_exist is false; leave the precondition out"))
        }
        None => Err(invalid("names no condition; leave it out, or set etag or must_not_exist")),
    }
}

/// Holds a list to its bounds, and its page token to this caller and query.
fn check_list(
    asked: &ListDocumentsRequest,
    database: DatabaseId,
    context: &CallContext,
) -> Result<(), Status> {
    if asked.prefix.len() > limits::DOCUMENT_ID_BYTES_MAX {
        return Err(convert::invalid("prefix", "is longer than a document id can be"));
    }
    let collection = CollectionName::parse(&asked.collection)
        .map_err(|why| convert::invalid("collection", why))?;
    let query = ListQuery {
        prefix: asked.prefix.clone(),
        collection: (!asked.collection.is_empty()).then_some(collection),
        after: None,
        page_size: page_size(asked.page_size)?,
        ids_only: asked.ids_only,
    };
    if !asked.page_token.is_empty() {
        page_token::decode(context.thumbprint(), database, &query, &asked.page_token)
            .map_err(|why| convert::invalid("page_token", why))?;
    }
    Ok(())
}
