//! The audit log: list, follow, verify, export. Nothing here writes to it, except that an export is recorded first.

mod filter;
mod walks;

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use rookery_proto::{
    audit::v1::{
        ExportRequest, ExportResponse, Filter as FilterMessage, ListRecordsRequest,
        ListRecordsResponse, TailRecordsRequest, TailRecordsResponse, VerifyRequest,
        VerifyResponse, audit_service_server::AuditService,
    },
    log::v1::AuditRecord,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::spawn_blocking,
    time::{Duration, Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use self::filter::Filter;
use crate::{
    authz::ServerOperation,
    consensus::{self, audit::AuditView},
    database::page_token::Binding,
    edge::{
        Edge,
        call::Deadline,
        convert,
        services::{page_size, page_start, request_id},
    },
    limits,
};

/// How often a stream without new records asks whether its reader may still see them.
const TAIL_DECIDED_EVERY: Duration = Duration::from_secs(1);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The audit service.
pub struct Audit {
    edge: Arc<Edge>,
    walks: Arc<Semaphore>,
    tails: Arc<Semaphore>,
}

impl Audit {
    /// The service with bounds of its own.
    pub fn new(edge: Arc<Edge>) -> Self {
        Self {
            edge,
            walks: Arc::new(Semaphore::new(limits::AUDIT_WALKS_MAX)),
            tails: Arc::new(Semaphore::new(limits::AUDIT_TAILS_MAX)),
        }
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    type TailRecordsStream = Answers<TailRecordsResponse>;
    type ExportStream = Answers<ExportResponse>;

    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let operation = ServerOperation::ViewAudit;
        let (permit, context) = self.edge.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let wanted = asked.filter.unwrap_or_default();
        let filter = Filter::parse(&wanted)?;
        let size = page_size(asked.page_size)?;
        let binding = Binding::new(context.thumbprint(), "audit")
            .field(&wanted.encode_to_vec())
            .field(&[u8::from(asked.oldest_first)]);
        let start = page_start(&binding, &asked.page_token)?;
        let start = start.map(|position| sequence(&position)).transpose()?;
        let view = self.edge.engine.audit(permit, context.deadline).await;
        let view = view.map_err(convert::status)?;
        let page = Page { size, filter, oldest_first: asked.oldest_first };
        let looked = spawn_blocking(move || page.look(&view, start)).await;
        let (records, next) = looked.map_err(lost)?.map_err(convert::status)?;
        let next = next.map(|sequence| binding.encode(&sequence.to_be_bytes()));
        Ok(Response::new(ListRecordsResponse {
            records,
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn tail_records(
        &self,
        request: Request<TailRecordsRequest>,
    ) -> Result<Response<Self::TailRecordsStream>, Status> {
        let operation = ServerOperation::ViewAudit;
        let (permit, context) = self.edge.authorize_server(&request, operation).await?;
        let place = self.tails.clone().try_acquire_owned();
        let place = place.map_err(|_| busy("streams of audit records"))?;
        let filter =
            Filter::parse(request.get_ref().filter.as_ref().unwrap_or(&Default::default()))?;
        let after = match request.get_ref().after_sequence {
            0 => {
                let view = self.edge.engine.audit(permit, context.deadline).await;
                view.map_err(convert::status)?.head().sequence
            }
            given => given,
        };
        let (records, queue) = mpsc::channel(limits::AUDIT_TAIL_QUEUE);
        let (ending, ended) = oneshot::channel();
        let (edge, extensions) = (self.edge.clone(), request.extensions().clone());
        tokio::spawn(async move {
            let tail = Tail { edge, extensions, filter, after, records };
            let end = tail.run().await;
            let _ = ending.send(end); // The reader may have gone.
            drop(place);
        });
        Ok(Response::new(answers(queue, ended)))
    }

    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyResponse>, Status> {
        let operation = ServerOperation::VerifyAudit;
        let (permit, context) = self.edge.authorize_server(&request, operation).await?;
        let walk = self.walks.clone().try_acquire_owned();
        let walk = walk.map_err(|_| busy("walks along the audit log"))?;
        let view = self.edge.engine.audit(permit, context.deadline).await;
        let view = Arc::new(view.map_err(convert::status)?);
        let walked = spawn_blocking({
            let view = view.clone();
            move || {
                let _walk = walk;
                view.walk()
            }
        });
        let walked = walked.await.map_err(lost)?;
        let heads = self.edge.engine.audit_heads(&view).await;
        let own = self.edge.node.identity.load().thumbprint();
        let node_id = context.registry.member(&own).map_or(0, |node| node.id);
        Ok(Response::new(walks::told(node_id, walked, heads)))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let operation = ServerOperation::ExportAudit;
        let (permit, context) = self.edge.authorize_server(&request, operation).await?;
        let id = request_id(&request.get_ref().request_id)?;
        let walk = self.walks.clone().try_acquire_owned();
        let walk = walk.map_err(|_| busy("walks along the audit log"))?;
        self.edge.audited_as(&context, Some(id), operation, "audit log", "").await?;
        let view = self.edge.engine.audit(permit, context.deadline).await;
        let view = view.map_err(convert::status)?;
        let own = self.edge.node.identity.load();
        let node_id = context.registry.member(&own.thumbprint()).map_or(0, |node| node.id);
        let export = walks::Export { view, own, node_id, at: self.edge.clock.wall() };
        let (lines, queue) = mpsc::channel(limits::AUDIT_TAIL_QUEUE);
        let (ending, ended) = oneshot::channel();
        spawn_blocking(move || {
            let end = export.write(&lines);
            drop(lines);
            let _ = ending.send(end); // The reader may have gone.
            drop(walk);
        });
        Ok(Response::new(answers(queue, ended)))
    }
}

/// What a queue holds, and then how it ended.
fn answers<T: Send + 'static>(
    queue: mpsc::Receiver<T>,
    ended: oneshot::Receiver<Result<(), Status>>,
) -> Answers<T> {
    let end = stream::once(ended).filter_map(|end| async move {
        match end {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(Err(status)),
            Err(_) => Some(Err(convert::internal("The stream ended", "its task is gone"))),
        }
    });
    Box::pin(ReceiverStream::new(queue).map(Ok).chain(end))
}

fn sequence(position: &[u8]) -> Result<u64, Status> {
    let position = <[u8; 8]>::try_from(position);
    let position = position.map_err(|_| convert::invalid("page_token", "is of another list"))?;
    Ok(u64::from_be_bytes(position))
}

fn lost(error: tokio::task::JoinError) -> Status {
    convert::internal("The audit log could not be read", error)
}

fn busy(what: &str) -> Status {
    convert::Answer::new(
        Code::ResourceExhausted,
        "TOO_MANY",
        format!("This node serves as many {what} as it may. Wait, or ask another node."),
    )
    .status()
}

/// One page of a list.
struct Page {
    size: usize,
    filter: Filter,
    oldest_first: bool,
}

impl Page {
    /// The records of the page and where the next one begins. `start`: up to (newest first) or after (oldest first) it.
    fn look(
        &self,
        view: &AuditView,
        start: Option<u64>,
    ) -> Result<(Vec<AuditRecord>, Option<u64>), consensus::Error> {
        let mut at = start.unwrap_or(match self.oldest_first {
            true => view.head().anchor_sequence,
            false => view.head().sequence + 1,
        });
        let (mut found, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        loop {
            let records = match self.oldest_first {
                true => view.after(at)?,
                false => view.before(at)?,
            };
            if records.is_empty() {
                return Ok((found, None));
            }
            for record in records {
                at = record.sequence;
                looked_at += 1;
                if self.filter.fits(&record) {
                    bytes += record.encoded_len();
                    found.push(record);
                }
                if found.len() >= self.size || bytes >= limits::PAGE_BYTES_MAX {
                    return Ok((found, Some(at)));
                }
            }
            if looked_at >= limits::AUDIT_LOOKED_AT_MAX {
                return Ok((found, Some(at)));
            }
        }
    }
}

/// One stream of new records.
struct Tail {
    edge: Arc<Edge>,
    extensions: http::Extensions,
    filter: Filter,
    after: u64,
    records: mpsc::Sender<TailRecordsResponse>,
}

impl Tail {
    /// Until the reader goes, may not see the records any more, or is too slow. Decided again for every batch, and every
    /// second without one.
    async fn run(mut self) -> Result<(), Status> {
        let mut changes = self.edge.engine.audit_changes();
        loop {
            changes.mark_unchanged();
            let deadline = Deadline(Instant::now() + limits::FRESHNESS_WAIT);
            self.extensions.insert(deadline);
            let operation = ServerOperation::ViewAudit;
            let (permit, _) = self.edge.authorize_extensions(&self.extensions, operation).await?;
            let view = self.edge.engine.audit_here(&permit).map_err(convert::status)?;
            if self.pass_on(view).await? {
                continue;
            }
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = sleep(TAIL_DECIDED_EVERY) => {}
                () = self.records.closed() => return Ok(()),
            }
        }
    }

    /// One batch; whether there may be more at once.
    async fn pass_on(&mut self, view: AuditView) -> Result<bool, Status> {
        let after = self.after;
        let read = spawn_blocking(move || view.after(after)).await;
        let read = read.map_err(lost)?.map_err(convert::status)?;
        let Some(last) = read.last() else { return Ok(false) };
        self.after = last.sequence;
        let records: Vec<_> = read.into_iter().filter(|it| self.filter.fits(it)).collect();
        if records.is_empty() {
            return Ok(true);
        }
        let sent = self.records.send(TailRecordsResponse { records });
        match timeout(limits::AUDIT_TAIL_PATIENCE, sent).await {
            Ok(_) => Ok(true), // A reader that has gone is noticed where it is waited for.
            Err(_) => Err(convert::Answer::new(
                Code::ResourceExhausted,
                "READER_TOO_SLOW",
                "This stream had to wait too long for its reader. Begin again after the last sequence that arrived.",
            )
            .status()),
        }
    }
}

#[cfg(test)]
mod tests;
