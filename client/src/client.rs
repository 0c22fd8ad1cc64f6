//! The call: choose a node, send, and try again until there is an answer or the time is up.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rookery_proto::cluster::v1::{
    GetTopologyRequest, GetTopologyResponse, cluster_service_client::ClusterServiceClient,
};
use rustls::ClientConfig;
use tonic::{
    Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use uuid::Uuid;

use crate::{
    Context, Error, connect,
    error::Attempt,
    retry::Policy,
    session::{SESSION_HEADER, Session},
    tls,
};

/// Time a call may take where none was chosen.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest time that is spent on a topology.
const TOPOLOGY_TIMEOUT: Duration = Duration::from_secs(3);
/// Shortest time between two topologies.
const TOPOLOGY_INTERVAL: Duration = Duration::from_secs(10);
/// Most addresses that are known at once.
const ADDRESSES_MAX: usize = 128;
/// Largest message in either direction: what a node takes, and a little for the frame.
const MESSAGE_BYTES_MAX: usize = 17 * 1024 * 1024;

/// How a client calls.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time a call may take, all attempts together.
    pub timeout: Duration,
    /// Bounds of the attempts.
    pub policy: Policy,
    /// What the first call that changes something is known by, where it has no request id of its own: that of an earlier
    /// call whose outcome is unknown, so that it is applied once. `None`: a new one.
    pub request_id: Option<Uuid>,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: TIMEOUT_DEFAULT, policy: Policy::default(), request_id: None }
    }
}

/// A client of a cluster. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    options: Options,
    pinned: Option<Arc<str>>,
    /// Asked first while it does not fail.
    preferred: Option<Arc<str>>,
    /// The token of the second-factor session.
    session: Option<MetadataValue<Ascii>>,
}

struct Shared {
    tls: Arc<ClientConfig>,
    server_name: Option<String>,
    nodes: Mutex<Nodes>,
    /// For the next call that changes something.
    request_id: Mutex<Option<Uuid>>,
}

/// The addresses and what is known about them.
struct Nodes {
    /// Seeds first, then what the topology told.
    addresses: Vec<Arc<str>>,
    channels: BTreeMap<Arc<str>, Channel>,
    /// When an address last failed; tried after those that did not.
    failed: BTreeMap<Arc<str>, Instant>,
    topology_asked: Option<Instant>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("addresses", &self.addresses())
            .field("pinned", &self.pinned)
            .finish_non_exhaustive()
    }
}

/// What a call needs to be retried safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Changes nothing: any retry is safe.
    Read,
    /// Changes something once per request id.
    Write(Uuid),
    /// As `Write`, but the answer holds a secret that is given once: an ambiguous attempt is not repeated.
    Secret(Uuid),
}

impl Client {
    /// A client of the context's nodes with default options. Connects on the first call.
    ///
    /// # Errors
    /// [`Error::Context`] where certificate, key or CA cannot be used.
    pub fn new(context: &Context) -> Result<Self, Error> {
        Self::with_options(context, Options::default())
    }

    /// [`Client::new`] with options.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_options(context: &Context, options: Options) -> Result<Self, Error> {
        let nodes = Nodes {
            addresses: context.addresses.iter().map(|a| Arc::from(a.as_str())).collect(),
            channels: BTreeMap::new(),
            failed: BTreeMap::new(),
            topology_asked: None,
        };
        let shared = Shared {
            tls: tls::client_config(context)?,
            server_name: context.server_name.clone(),
            nodes: Mutex::new(nodes),
            request_id: Mutex::new(options.request_id),
        };
        let session = context.session.as_ref().and_then(Session::metadata);
        Ok(Self { shared: Arc::new(shared), options, pinned: None, preferred: None, session })
    }

    /// The same client, calling this address alone.
    #[must_use]
    pub fn pinned(&self, address: &str) -> Self {
        Self { pinned: Some(Arc::from(address)), ..self.clone() }
    }

    /// The same client, asking this address first as long as it answers.
    #[must_use]
    pub fn preferring(&self, address: &str) -> Self {
        Self { preferred: Some(Arc::from(address)), ..self.clone() }
    }

    /// The same client in a second-factor session.
    #[must_use]
    pub fn with_session(&self, session: &Session) -> Self {
        Self { session: session.metadata(), ..self.clone() }
    }

    /// The same client with another time limit for its calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { options: Options { timeout, ..self.options.clone() }, ..self.clone() }
    }

    /// The same client with another retry policy.
    #[must_use]
    pub fn with_policy(&self, policy: Policy) -> Self {
        Self { options: Options { policy, ..self.options.clone() }, ..self.clone() }
    }

    /// The same client with connections of its own.
    #[must_use]
    pub fn with_own_connections(&self) -> Self {
        let nodes = Nodes {
            addresses: self.nodes().addresses.clone(),
            channels: BTreeMap::new(),
            failed: BTreeMap::new(),
            topology_asked: None,
        };
        let shared = Shared {
            tls: Arc::clone(&self.shared.tls),
            server_name: self.shared.server_name.clone(),
            nodes: Mutex::new(nodes),
            request_id: Mutex::default(),
        };
        Self { shared: Arc::new(shared), ..self.clone() }
    }

    /// The known addresses, in the order in which they would be tried.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.candidates().iter().map(ToString::to_string).collect()
    }

    /// The raw channel to the node that would be called next, for calls this crate has no method for.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the address is malformed or there is none.
    pub fn channel(&self) -> Result<Channel, Error> {
        let address = self.candidates().into_iter().next();
        match address {
            Some(address) => self.channel_to(&address).map_err(Attempt::into_error),
            None => Err(Attempt::no_address("the context names no address").into_error()),
        }
    }

    /// Asks for the topology and learns the addresses in it.
    ///
    /// # Errors
    /// As any call.
    pub async fn refresh_topology(&self) -> Result<GetTopologyResponse, Error> {
        let topology = self.get_topology(GetTopologyRequest {}).await?;
        self.nodes().learn(&topology);
        Ok(topology)
    }

    /// Makes one call: sends to node after node until there is an answer, the attempts are used up, or the time is.
    pub(crate) async fn call<Q, R, F>(
        &self,
        kind: Kind,
        request: Q,
        send: impl Fn(Channel, tonic::Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let policy = &self.options.policy;
        let deadline = Instant::now() + self.options.timeout;
        let mut ambiguous = false;
        let mut attempt = 0;
        // What a node said last; it tells more than the silence that may follow.
        let mut told = None;
        loop {
            let candidates = self.candidates();
            for (position, address) in candidates.iter().enumerate() {
                attempt += 1;
                let limit = left(deadline).min(policy.attempt_timeout);
                let ended = match self.attempt(address, limit, request.clone(), &send).await {
                    Ok(answer) => return Ok(answer),
                    Err(ended) => ended,
                };
                if ended.settles() {
                    return Err(ended.into_error());
                }
                self.note_failure(address, &ended);
                ambiguous |= ended.is_ambiguous();
                if !ended.is_silence() {
                    told = Some(ended.clone());
                }
                let pause = self.pause(attempt, &ended, position + 1 < candidates.len());
                if attempt >= policy.attempts_max
                    || left(deadline) <= pause
                    || !may_repeat(kind, ambiguous, &ended)
                {
                    let last = if ended.is_silence() { told.unwrap_or(ended) } else { ended };
                    return Err(give_up(kind, ambiguous, last));
                }
                tokio::time::sleep(pause).await;
            }
            if candidates.is_empty() {
                return Err(Attempt::no_address("the context names no address").into_error());
            }
        }
    }

    async fn attempt<Q, R, F>(
        &self,
        address: &Arc<str>,
        limit: Duration,
        message: Q,
        send: &impl Fn(Channel, tonic::Request<Q>) -> F,
    ) -> Result<R, Attempt>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let channel = self.channel_to(address)?;
        let mut request = tonic::Request::new(message);
        request.set_timeout(limit);
        if let Some(session) = &self.session {
            request.metadata_mut().insert(SESSION_HEADER, session.clone());
        }
        match tokio::time::timeout(limit, send(channel, request)).await {
            Ok(Ok(response)) => {
                self.nodes().failed.remove(address);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(Attempt::of(&status)),
            Err(_) => Err(Attempt::timed_out(limit)),
        }
    }

    /// No pause while there is another node to ask and this one was not reached; else what the policy says.
    fn pause(&self, attempt: u32, ended: &Attempt, another: bool) -> Duration {
        match ended {
            Attempt::NotSent(_) | Attempt::Lost(_) | Attempt::Tls(_) if another => Duration::ZERO,
            Attempt::NotSent(_) | Attempt::Lost(_) | Attempt::Tls(_) | Attempt::Answered(_) => {
                self.options.policy.pause(attempt, None, rand::random())
            }
            Attempt::Busy(failure) => {
                self.options.policy.pause(attempt, failure.retry_after, rand::random())
            }
        }
    }

    fn note_failure(&self, address: &Arc<str>, ended: &Attempt) {
        match ended {
            Attempt::NotSent(_) | Attempt::Lost(_) | Attempt::Tls(_) => {}
            Attempt::Busy(_) | Attempt::Answered(_) => return,
        }
        let now = Instant::now();
        let ask = {
            let mut nodes = self.nodes();
            nodes.failed.insert(Arc::clone(address), now);
            let due = nodes.topology_asked.is_none_or(|at| now - at >= TOPOLOGY_INTERVAL);
            let ask = due && self.pinned.is_none() && nodes.addresses.len() > 1;
            if ask {
                nodes.topology_asked = Some(now);
            }
            ask
        };
        if ask {
            let client = self.with_timeout(TOPOLOGY_TIMEOUT);
            // The nodes may have moved; the call itself does not wait for this.
            tokio::spawn(async move { client.refresh_topology().await.is_ok() });
        }
    }

    fn candidates(&self) -> Vec<Arc<str>> {
        if let Some(address) = &self.pinned {
            return vec![Arc::clone(address)];
        }
        let nodes = self.nodes();
        let mut addresses = nodes.in_order();
        let preferred = self.preferred.as_ref().filter(|a| !nodes.failed.contains_key(*a));
        if let Some(at) = preferred.and_then(|p| addresses.iter().position(|a| a == p)) {
            addresses[..=at].rotate_right(1);
        }
        addresses
    }

    fn channel_to(&self, address: &Arc<str>) -> Result<Channel, Attempt> {
        let mut nodes = self.nodes();
        if let Some(channel) = nodes.channels.get(address) {
            return Ok(channel.clone());
        }
        let channel =
            connect::channel(address, self.shared.server_name.as_deref(), &self.shared.tls)
                .map_err(|e| Attempt::no_address(&e.to_string()))?;
        if nodes.channels.len() >= ADDRESSES_MAX {
            nodes.channels.clear();
        }
        nodes.channels.insert(Arc::clone(address), channel.clone());
        Ok(channel)
    }

    /// The id that was given for the first call that changes something; a new one for all others.
    pub(crate) fn next_request_id(&self) -> Uuid {
        let given = self.shared.request_id.lock().unwrap_or_else(PoisonError::into_inner).take();
        given.unwrap_or_else(Uuid::now_v7)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not a typed method of its own module because the topology is part of every call.
    pub(crate) async fn get_topology(
        &self,
        request: GetTopologyRequest,
    ) -> Result<GetTopologyResponse, Error> {
        // Boxed: a call may ask for the topology, which is a call.
        Box::pin(self.call(Kind::Read, request, |channel, request| async move {
            ClusterServiceClient::new(channel).get_topology(request).await
        }))
        .await
    }
}

impl Nodes {
    /// The addresses that did not fail first, then the ones whose failure is longest ago.
    fn in_order(&self) -> Vec<Arc<str>> {
        let mut addresses = self.addresses.clone();
        addresses.sort_by_key(|address| self.failed.get(address).copied());
        addresses
    }

    fn learn(&mut self, topology: &GetTopologyResponse) {
        for node in &topology.nodes {
            let known = self.addresses.iter().any(|address| **address == *node.client_address);
            if !known && !node.client_address.is_empty() && self.addresses.len() < ADDRESSES_MAX {
                self.addresses.push(Arc::from(node.client_address.as_str()));
            }
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn may_repeat(kind: Kind, ambiguous: bool, ended: &Attempt) -> bool {
    match ended {
        Attempt::Answered(_) => false,
        Attempt::Tls(_) | Attempt::NotSent(_) | Attempt::Lost(_) | Attempt::Busy(_) => match kind {
            Kind::Read | Kind::Write(_) => true,
            Kind::Secret(_) => !ambiguous,
        },
    }
}

fn give_up(kind: Kind, ambiguous: bool, ended: Attempt) -> Error {
    match kind {
        Kind::Write(request_id) | Kind::Secret(request_id) if ambiguous => {
            Error::Unknown { request_id, last: Box::new(ended.failure()) }
        }
        Kind::Read | Kind::Write(_) | Kind::Secret(_) => ended.into_error(),
    }
}

pub(crate) const fn message_bytes_max() -> usize {
    MESSAGE_BYTES_MAX
}

#[cfg(test)]
mod tests;
