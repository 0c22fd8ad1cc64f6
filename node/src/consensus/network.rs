//! What openraft sends to other members, for one group: appends pipelined over the shared channel, snapshots apart.

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2, StorageError,
    alias::{ErrorSourceOf, SnapshotOf},
    base::{BoxFuture, BoxStream},
    errors::{
        ErrorSource as _, NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
        StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
        VoteResponse,
    },
};
use rookery_proto::peer::v1::{
    self as peer, InstallSnapshotRequest, channel_request, channel_response,
    install_snapshot_request::Part,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    channel::{self, CallError, Channel, Channels, Pending},
    purge::SnapshotsSent,
    snapshot::{self, SnapshotData, SnapshotSource},
    types::{
        LogId, Member, Types, Vote, append_to, log_id_from, log_id_to, snapshot_meta_to, vote_from,
        vote_to,
    },
};
use crate::{
    fault::fault_point,
    limits,
    names::{GroupId, NodeId},
};

/// Makes the networks of one group.
#[derive(Clone)]
pub struct GroupNetwork {
    channels: Arc<Channels>,
    group: GroupId,
    snapshots: SnapshotsSent,
}

impl GroupNetwork {
    /// The networks of `group` over the node's channels; they note in `snapshots` to whom they send one.
    #[must_use]
    pub(super) fn new(channels: Arc<Channels>, group: GroupId, snapshots: SnapshotsSent) -> Self {
        Self { channels, group, snapshots }
    }
}

impl RaftNetworkFactory<Types> for GroupNetwork {
    type Network = Network;

    /// Where and by which certificate a member is dialled comes from [`Channels::set_member`], not from here: a removed
    /// member stays cut off even from groups that have not yet heard of it.
    async fn new_client(&mut self, target: u64, _: &Member) -> Network {
        Network {
            channels: self.channels.clone(),
            group: self.group,
            target: NodeId(target),
            snapshots: self.snapshots.clone(),
        }
    }
}

/// What one group sends to one member.
pub struct Network {
    channels: Arc<Channels>,
    group: GroupId,
    target: NodeId,
    snapshots: SnapshotsSent,
}

type RpcError = RPCError<Types>;

impl Network {
    fn channel(&self) -> Result<Arc<Channel>, CallError> {
        self.channels
            .peer(self.target)
            .ok_or_else(|| CallError::Unreachable("not a member of the cluster".into()))
    }

    async fn call(
        &self,
        action: RPCTypes,
        body: channel_request::Body,
        limit: Duration,
    ) -> Result<channel_response::Body, RpcError> {
        let answer = async { self.channel()?.call(body, Instant::now() + limit).await };
        answer.await.map_err(|error| self.rpc_error(error, action, limit))
    }

    fn rpc_error(&self, error: CallError, action: RPCTypes, limit: Duration) -> RpcError {
        match error {
            CallError::Timeout => RPCError::Timeout(openraft::errors::Timeout {
                action,
                id: self.channels.identity().node_id.0,
                target: self.target.0,
                timeout: limit,
            }),
            CallError::Closed => RPCError::Network(NetworkError::new(&error)),
            // What the peer refuses now it refuses in a moment too: slow down as for a dead peer.
            CallError::Unreachable(_) | CallError::Refused(_) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
        }
    }

    async fn ask_for_vote(
        &self,
        body: channel_request::Body,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let pre = matches!(body, channel_request::Body::PreVote(_));
        let answer = self.call(RPCTypes::Vote, body, option.soft_ttl()).await?;
        let ((channel_response::Body::PreVote(answer), true)
        | (channel_response::Body::Vote(answer), false)) = (answer, pre)
        else {
            return Err(malformed("a vote was answered with something else"));
        };
        let vote = answer.vote.as_ref().map(vote_from);
        let vote = vote.ok_or_else(|| malformed("an answer without vote"))?;
        let last_log_id = answer.last_log_id.as_ref().map(log_id_from);
        Ok(VoteResponse::new(vote, last_log_id, answer.granted))
    }

    fn vote_request(&self, request: &VoteRequest<Types>) -> peer::VoteRequest {
        peer::VoteRequest {
            group: self.group.0,
            vote: Some(vote_to(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(log_id_to),
            leadership_transfer: request.leadership_transfer,
        }
    }
}

fn malformed(why: &'static str) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(why))
}

impl RaftNetworkV2<Types> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let body = channel_request::Body::Append(append_to(self.group.0, &request));
        append_response_from(self.call(RPCTypes::AppendEntries, body, option.soft_ttl()).await?)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let pipeline = Pipeline { network: self, input: Some(input), sent: VecDeque::new() };
        Box::pin(async move { Ok(pipeline.into_stream()) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_for_vote(channel_request::Body::Vote(self.vote_request(&request)), option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_for_vote(channel_request::Body::PreVote(self.vote_request(&request)), option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let body = channel_request::Body::TransferLeader(peer::TransferLeaderRequest {
            group: self.group.0,
            from_leader: Some(vote_to(request.from_leader())),
            to_node: *request.to_node_id(),
            last_log_id: request.last_log_id().map(log_id_to),
        });
        let answer = self.call(RPCTypes::TransferLeader, body, option.soft_ttl()).await?;
        let channel_response::Body::TransferLeader(answer) = answer else {
            return Err(malformed("a leadership transfer was answered with something else"));
        };
        if answer.accepted { Ok(Ok(())) } else { Err(malformed("the peer declined to lead")) }
    }

    /// Sends the snapshot over a connection of its own. The bounds are those of `limits`, since openraft's time for one
    /// call says nothing about a transfer of this size.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sent = timeout(limits::SNAPSHOT_TIMEOUT, self.send_snapshot(vote, snapshot));
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sent => sent.unwrap_or_else(|_| {
                let (action, limit) = (RPCTypes::InstallSnapshot, limits::SNAPSHOT_TIMEOUT);
                Err(self.rpc_error(CallError::Timeout, action, limit).into())
            }),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        // The channel reconnects by itself; this only keeps a group from asking too often meanwhile.
        let pauses = [50, 100, 200].map(Duration::from_millis).into_iter();
        Some(Backoff::new(pauses.chain(std::iter::repeat(Duration::from_millis(300)))))
    }
}

/// An append that was sent and whose answer is due.
struct Sent {
    previous: Option<LogId>,
    last: Option<LogId>,
    deadline: Instant,
    answer: Pending,
}

/// Appends of one group on their way: sent as they come, answered in the order of their sending.
struct Pipeline<'s, S> {
    network: &'s Network,
    input: Option<S>,
    sent: VecDeque<Sent>,
}

impl<'s, S> Pipeline<'s, S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
{
    fn into_stream(self) -> BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>> {
        let stream = stream::unfold(Some(self), |pipeline| async move {
            let mut pipeline = pipeline?;
            let result = pipeline.next().await?;
            // Behind a conflict, a higher vote or an error there is nothing worth waiting for.
            let goes_on = matches!(result, Ok(Ok(_)));
            Some((result, goes_on.then_some(pipeline)))
        });
        Box::pin(stream)
    }

    /// The next answer; `None` once all is answered and no more will come.
    async fn next(&mut self) -> Option<Result<StreamAppendResult<Types>, RpcError>> {
        loop {
            let room = self.sent.len() < limits::PEER_APPENDS_PER_GROUP_MAX;
            let front = self.sent.front_mut();
            let request = match (front, self.input.as_mut().filter(|_| room)) {
                (None, None) => return None,
                (None, Some(input)) => input.next().await,
                (Some(front), None) => {
                    let answer = timeout_at(front.deadline, &mut front.answer).await;
                    return Some(self.answered(answer.unwrap_or(Err(CallError::Timeout))));
                }
                (Some(front), Some(input)) => tokio::select! {
                    biased;
                    answer = timeout_at(front.deadline, &mut front.answer) => {
                        return Some(self.answered(answer.unwrap_or(Err(CallError::Timeout))));
                    }
                    request = input.next() => request,
                },
            };
            let Some(request) = request else {
                self.input = None;
                continue;
            };
            if let Err(error) = self.send(&request).await {
                return Some(Err(self.error(error)));
            }
        }
    }

    async fn send(&mut self, request: &AppendEntriesRequest<Types>) -> Result<(), CallError> {
        let deadline = Instant::now() + limits::PEER_APPEND_TIMEOUT;
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let body = channel_request::Body::Append(append_to(self.network.group.0, request));
        let channel = self.network.channel()?;
        let begun = timeout_at(deadline, channel.begin(body)).await;
        let answer = begun.unwrap_or(Err(CallError::Timeout))?;
        self.sent.push_back(Sent { previous, last, deadline, answer });
        Ok(())
    }

    fn answered(
        &mut self,
        answer: Result<channel_response::Body, CallError>,
    ) -> Result<StreamAppendResult<Types>, RpcError> {
        let Some(Sent { previous, last, .. }) = self.sent.pop_front() else {
            return Err(malformed("an answer without a question"));
        };
        let answer = answer.map_err(|error| self.error(error))?;
        Ok(match append_response_from(answer)? {
            AppendEntriesResponse::Success => Ok(last),
            AppendEntriesResponse::PartialSuccess(matching) => {
                if matching > last || matching < previous {
                    return Err(malformed("a partial success outside of what was sent"));
                }
                Ok(matching)
            }
            AppendEntriesResponse::Conflict => {
                let conflict = previous.ok_or_else(|| malformed("a conflict before any entry"))?;
                Err(StreamAppendError::Conflict(conflict))
            }
            AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
        })
    }

    fn error(&self, error: CallError) -> RpcError {
        self.network.rpc_error(error, RPCTypes::AppendEntries, limits::PEER_APPEND_TIMEOUT)
    }
}

fn append_response_from(
    answer: channel_response::Body,
) -> Result<AppendEntriesResponse<Types>, RpcError> {
    use peer::append_response::Result as Kind;
    let channel_response::Body::Append(answer) = answer else {
        return Err(malformed("an append was answered with something else"));
    };
    match answer.result() {
        Kind::Success => Ok(AppendEntriesResponse::Success),
        Kind::Partial => {
            let matching = answer.matching.as_ref().map(log_id_from);
            Ok(AppendEntriesResponse::PartialSuccess(matching))
        }
        Kind::Conflict => Ok(AppendEntriesResponse::Conflict),
        Kind::HigherVote => {
            let vote = answer.higher_vote.as_ref().map(vote_from);
            vote.map(AppendEntriesResponse::HigherVote)
                .ok_or_else(|| malformed("a higher vote that is missing"))
        }
        Kind::Unspecified => Err(malformed("an answer without result")),
    }
}

impl Network {
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotData>,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let rpc_error = |error| self.rpc_error(error, RPCTypes::InstallSnapshot, Duration::ZERO);
        let SnapshotData::Outgoing(source) = snapshot.snapshot else {
            return Err(malformed("a received snapshot cannot be sent on").into());
        };
        let channel = self.channel().map_err(rpc_error)?;
        let connection = channel.connect_apart().await.map_err(rpc_error)?;
        let transfer = self.snapshots.begin(self.target.0);
        let header = peer::SnapshotHeader {
            hello: Some(self.channels.identity().hello()),
            group: self.group.0,
            vote: Some(vote_to(&vote)),
            meta: Some(snapshot_meta_to(&snapshot.meta)),
        };
        let (parts, queue) = mpsc::channel(SNAPSHOT_PARTS_AHEAD);
        let reading = tokio::task::spawn_blocking(move || read_snapshot(source, header, &parts));
        let mut client = channel::client(connection);
        let answer = client.install_snapshot(ReceiverStream::new(queue));
        let answer = tokio::select! {
            answer = answer => answer,
            () = channel.closed() => return Err(rpc_error(CallError::Closed).into()),
        };
        // A source that failed explains the peer's complaint about an early end, so it is asked first.
        match reading.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(malformed("reading the snapshot was cut short").into()),
        }
        let answer = answer.map_err(|status| {
            StreamingError::Unreachable(Unreachable::from_string(format!(
                "the peer did not take the snapshot: {}",
                status.message()
            )))
        })?;
        transfer.taken();
        let vote = answer.into_inner().vote.as_ref().map(vote_from);
        vote.map(SnapshotResponse::new).ok_or_else(|| malformed("an answer without vote").into())
    }
}

/// Messages of a snapshot that are read ahead of the network.
const SNAPSHOT_PARTS_AHEAD: usize = 4;

/// Puts a whole snapshot into `parts`. Without the trailer, which an error leaves out, the peer installs nothing.
fn read_snapshot(
    mut source: SnapshotSource,
    header: peer::SnapshotHeader,
    parts: &mpsc::Sender<InstallSnapshotRequest>,
) -> Result<(), StreamingError<Types>> {
    let send = |part| parts.blocking_send(InstallSnapshotRequest { part: Some(part) }).is_ok();
    fault_point!("snapshot-send-before").map_err(failed_to_send)?;
    let mut listening = send(Part::Header(header));
    while listening {
        let Some(data) = source.next_chunk().map_err(unreadable)? else {
            let (chunks, digest) = source.trailer();
            send(Part::Trailer(peer::SnapshotTrailer { chunks, digest: digest.to_vec() }));
            return fault_point!("snapshot-send-after").map_err(failed_to_send);
        };
        listening = send(Part::Chunk(peer::SnapshotChunk { data }));
    }
    Ok(()) // The peer hung up; its answer says why.
}

fn failed_to_send(error: std::io::Error) -> StreamingError<Types> {
    StreamingError::Unreachable(Unreachable::new(&error))
}

fn unreadable(error: snapshot::Error) -> StreamingError<Types> {
    match error {
        snapshot::Error::Storage(error) => {
            let source = ErrorSourceOf::<Types>::from_error(&error);
            StreamingError::StorageError(StorageError::read_snapshot(None, source))
        }
        snapshot::Error::Refused(_) | snapshot::Error::Superseded => {
            tracing::error!(%error, "a snapshot cannot be sent");
            StreamingError::Unreachable(Unreachable::new(&error))
        }
    }
}
