//! What goes on at the moment, over all nodes: connections, and the last hour of calls.
//!
//! Each node tells of itself. The others are asked in the caller's name and decide again (`consensus::local`); who is
//! silent is named in the answer.

use std::sync::Arc;

use rookery_proto::{
    monitoring::v1::{
        CloseConnectionsRequest, CloseConnectionsResponse, Connection, GetMetricsRequest,
        GetMetricsResponse, ListConnectionsRequest, ListConnectionsResponse, NodeAnswer,
        NodeMetrics, monitoring_service_server::MonitoringService,
    },
    peer::v1::{
        LocalCall, LocalConnections, LocalConnectionsAnswer, LocalCut, LocalMetrics,
        local_answer::Answer, local_call::Call,
    },
};
use tonic::{Request, Response, Status};

use crate::{
    authz::{
        Permit, ServerOperation,
        certificates_rules::{Action, Target},
    },
    cluster::Registry,
    consensus::local::{self, Silence},
    database::page_token::Binding,
    edge::{
        Edge, convert,
        peer_identity::CallContext,
        services::{page_size, page_start, request_id, security::parse},
    },
    names::{NodeId, Thumbprint},
};

/// The monitoring service.
pub struct Monitoring(pub Arc<Edge>);

#[tonic::async_trait]
impl MonitoringService for Monitoring {
    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<ListConnectionsResponse>, Status> {
        let operation = ServerOperation::ViewConnections;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let whose = match asked.thumbprint.as_str() {
            "" => Vec::new(),
            text => entry(&parse::thumbprint(text)?, &context.registry),
        };
        let size = page_size(asked.page_size)?;
        let binding = Binding::new(context.thumbprint(), "connections")
            .field(whose.first().map_or(&[][..], |first| &first.as_bytes()[..]))
            .field(&[u8::from(asked.local_only)]);
        let after = page_start(&binding, &asked.page_token)?;
        let after = after.map_or(Ok(Place::default()), |place| Place::parse(&place))?;
        let nodes = self.nodes(&context, asked.local_only);
        let nodes = nodes.into_iter().filter(|node| *node >= after.node).collect();
        let listing = |node| LocalConnections {
            thumbprints: whose.iter().map(|it| it.as_bytes().to_vec()).collect(),
            after: if node == after.node { after.connection } else { 0 },
            limit: u32::try_from(size + 1).unwrap_or(u32::MAX),
        };
        let asking = |node| Call::Connections(listing(node));
        let told = self.ask(&permit, &context, nodes, asking).await;
        let mut page = Page { size, ..Page::default() };
        for (node, told) in told {
            page.add(self.node_answer(node, &context.registry), told, &context.registry);
        }
        Ok(Response::new(page.finish(&binding)))
    }

    /// Recorded before it is done, with what is open then; each node decides again whether the caller may.
    async fn close_connections(
        &self,
        request: Request<CloseConnectionsRequest>,
    ) -> Result<Response<CloseConnectionsResponse>, Status> {
        let operation = ServerOperation::CloseConnections;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let thumbprint = parse::thumbprint(&asked.thumbprint)?;
        self.0.allowed(&context, Action::Cut, &self.target(&thumbprint, &context))?;
        let nodes = self.nodes_of(&asked, &context)?;
        let whose = entry(&thumbprint, &context.registry);
        let details = self.open(&permit, &context, &nodes, &whose, asked.connection_id).await;
        let target = format!("certificate {thumbprint}"); // As commands of the log name theirs.
        self.0.audited_as(&context, Some(id), operation, &target, &details).await?;
        let cut = |_| {
            Call::Cut(LocalCut {
                thumbprints: whose.iter().map(|it| it.as_bytes().to_vec()).collect(),
                connection_id: asked.connection_id,
            })
        };
        let told = self.ask(&permit, &context, nodes, cut).await.into_iter().map(|(node, told)| {
            let answer = self.node_answer(node, &context.registry);
            match told {
                Ok(Answer::Cut(done)) => NodeAnswer { connections: done.cut, ..answer },
                Ok(Answer::Connections(_) | Answer::Metrics(_)) => silent(answer, &Silence::Failed),
                Err(silence) => silent(answer, &silence),
            }
        });
        let note = note(&thumbprint, &context);
        Ok(Response::new(CloseConnectionsResponse { nodes: told.collect(), note: note.to_owned() }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let operation = ServerOperation::ViewMetrics;
        let (permit, context) = self.0.authorize_server(&request, operation).await?;
        let nodes = self.nodes(&context, request.get_ref().local_only);
        let told = self.ask(&permit, &context, nodes, |_| Call::Metrics(LocalMetrics {})).await;
        let nodes = told.into_iter().map(|(node, told)| {
            let answer = self.node_answer(node, &context.registry);
            let (answer, samples) = match told {
                Ok(Answer::Metrics(told)) => (answer, told.samples),
                Ok(Answer::Connections(_) | Answer::Cut(_)) => {
                    (silent(answer, &Silence::Failed), Vec::new())
                }
                Err(silence) => (silent(answer, &silence), Vec::new()),
            };
            NodeMetrics { node: Some(answer), samples }
        });
        Ok(Response::new(GetMetricsResponse { nodes: nodes.collect() }))
    }
}

impl Monitoring {
    /// All members, or this one, in the order of their ids.
    fn nodes(&self, context: &CallContext, local_only: bool) -> Vec<NodeId> {
        if local_only {
            return vec![self.0.engine.node_id()];
        }
        context.registry.nodes().map(|node| NodeId(node.id)).collect()
    }

    /// The nodes on which is cut.
    fn nodes_of(
        &self,
        asked: &CloseConnectionsRequest,
        context: &CallContext,
    ) -> Result<Vec<NodeId>, Status> {
        if asked.node.is_empty() {
            return match asked.connection_id {
                0 => Ok(self.nodes(context, false)),
                _ => Err(convert::invalid("node", "is needed where one connection is meant")),
            };
        }
        let node = context.registry.node_by_name(&asked.node);
        let node = node.ok_or_else(|| convert::not_found("node", &asked.node))?;
        Ok(vec![NodeId(node.id)])
    }

    /// The answers of these nodes in their order, this one's own among them.
    async fn ask(
        &self,
        permit: &Permit,
        context: &CallContext,
        nodes: Vec<NodeId>,
        call: impl Fn(NodeId) -> Call,
    ) -> Vec<(NodeId, Result<Answer, Silence>)> {
        let own = self.0.engine.node_id();
        let others = nodes.iter().filter(|node| **node != own);
        let others = others.map(|node| (*node, LocalCall { call: Some(call(*node)) })).collect();
        let told = self.0.engine.ask_nodes(permit, others, context.deadline).await;
        let mut told = told.into_iter();
        let answer = |node: NodeId| {
            let told = match node == own {
                true => local::serve(&*self.0.live, permit, &call(node)).ok(),
                false => match told.next() {
                    Some(Err(silence)) => return (node, Err(silence)),
                    told => told.and_then(Result::ok),
                },
            };
            (node, told.and_then(|told| told.answer).ok_or(Silence::Failed))
        };
        nodes.into_iter().map(answer).collect()
    }

    /// A certificate whose connections are to be cut, as the rules want to know it.
    fn target(&self, thumbprint: &Thumbprint, context: &CallContext) -> Target {
        let target = context.registry.target_of(thumbprint, context.thumbprint(), context.at);
        let loaded = *thumbprint == self.0.node.identity.load().thumbprint();
        Target { is_current_member: target.is_current_member || loaded, ..target }
    }

    /// What is about to be cut, for the audit log.
    async fn open(
        &self,
        permit: &Permit,
        context: &CallContext,
        nodes: &[NodeId],
        whose: &[Thumbprint],
        only: u64,
    ) -> String {
        let named = whose.first().and_then(|first| context.registry.identity(first));
        let of = named.map_or_else(String::new, |named| format!(" of {}", named.name));
        if only != 0 {
            let on = self.names(nodes, &context.registry);
            return format!("connection {only}{of} on {on}");
        }
        let counting = |_| {
            Call::Connections(LocalConnections {
                thumbprints: whose.iter().map(|it| it.as_bytes().to_vec()).collect(),
                after: 0,
                limit: 0,
            })
        };
        let mut total = 0;
        let mut silent = Vec::new();
        for (node, told) in self.ask(permit, context, nodes.to_vec(), counting).await {
            match told {
                Ok(Answer::Connections(open)) => total += open.total,
                Ok(Answer::Cut(_) | Answer::Metrics(_)) | Err(_) => silent.push(node),
            }
        }
        let on = match nodes.len() {
            1 => format!(" on {}", self.names(nodes, &context.registry)),
            _ => String::new(),
        };
        let unknown = match silent.is_empty() {
            true => String::new(),
            false => format!("; not counted on {}", self.names(&silent, &context.registry)),
        };
        format!("{total} open{of}{on}{unknown}")
    }

    fn names(&self, nodes: &[NodeId], registry: &Registry) -> String {
        let names = nodes.iter().map(|node| self.node_answer(*node, registry).node);
        names.collect::<Vec<_>>().join(", ")
    }

    /// A node that answered.
    fn node_answer(&self, id: NodeId, registry: &Registry) -> NodeAnswer {
        let record = registry.node(id);
        NodeAnswer {
            node_id: id.0,
            node: record.map_or_else(|| self.0.node.name.clone(), |node| node.name.clone()),
            answered: true,
            ..NodeAnswer::default()
        }
    }
}

fn silent(answer: NodeAnswer, why: &Silence) -> NodeAnswer {
    NodeAnswer { answered: false, why: why.to_string(), ..answer }
}

/// The certificates whose connections are meant: a primary stands for its whole entry, every other one for itself.
fn entry(thumbprint: &Thumbprint, registry: &Registry) -> Vec<Thumbprint> {
    let named = registry.certificate_details(thumbprint);
    match named.filter(|named| !named.is_secondary()) {
        Some(named) => registry.entry(named).map(|it| it.registration.thumbprint).collect(),
        None => vec![*thumbprint],
    }
}

/// What a cut means for the holder.
fn note(thumbprint: &Thumbprint, context: &CallContext) -> &'static str {
    match context.registry.identity(thumbprint) {
        Some(holder) if !holder.disabled => {
            "Nothing was taken from the certificate: its holder may connect again at once. To keep them out, disable it."
        }
        Some(_) | None => {
            "The certificate opens nothing: whoever connects with it again is refused at every call."
        }
    }
}

/// Behind which connection of which node a page begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    node: NodeId,
    connection: u64,
}

impl Place {
    fn parse(bytes: &[u8]) -> Result<Self, Status> {
        let bytes = <[u8; 16]>::try_from(bytes).map(u128::from_be_bytes);
        let both = bytes.map_err(|_| convert::invalid("page_token", "is of another list"))?;
        let [node, connection] = [both >> 64, both & u128::from(u64::MAX)]
            .map(|half| u64::try_from(half).unwrap_or_default());
        Ok(Self { node: NodeId(node), connection })
    }

    fn bytes(self) -> [u8; 16] {
        (u128::from(self.node.0) << 64 | u128::from(self.connection)).to_be_bytes()
    }
}

/// A page as it fills, node by node.
#[derive(Default)]
struct Page {
    size: usize,
    connections: Vec<Connection>,
    nodes: Vec<NodeAnswer>,
}

impl Page {
    fn add(&mut self, node: NodeAnswer, told: Result<Answer, Silence>, registry: &Registry) {
        let told: LocalConnectionsAnswer = match told {
            Ok(Answer::Connections(told)) => told,
            Ok(Answer::Cut(_) | Answer::Metrics(_)) => {
                return self.nodes.push(silent(node, &Silence::Failed));
            }
            Err(silence) => return self.nodes.push(silent(node, &silence)),
        };
        let named = told.connections.into_iter().map(|connection| Connection {
            node_id: node.node_id,
            node: node.node.clone(),
            name: name_of(&connection.thumbprint, registry),
            ..connection
        });
        self.connections.extend(named);
        self.nodes.push(NodeAnswer { connections: told.total, ..node });
    }

    fn finish(mut self, binding: &Binding) -> ListConnectionsResponse {
        let more = self.connections.len() > self.size;
        self.connections.truncate(self.size);
        let last = self.connections.last().filter(|_| more);
        let next = last.map(|last| Place { node: NodeId(last.node_id), connection: last.id });
        ListConnectionsResponse {
            next_page_token: next.map_or_else(String::new, |place| binding.encode(&place.bytes())),
            connections: self.connections,
            nodes: self.nodes,
        }
    }
}

/// What the registry calls a certificate; empty where it does not know it.
fn name_of(thumbprint: &str, registry: &Registry) -> String {
    let known = thumbprint.parse().ok().and_then(|it: Thumbprint| registry.identity(&it).cloned());
    known.map_or_else(String::new, |known| known.name.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(id: u64) -> NodeAnswer {
        NodeAnswer { node_id: id, node: format!("n{id}"), answered: true, ..Default::default() }
    }

    fn open(ids: &[u64], total: u64) -> Result<Answer, Silence> {
        let connections =
            ids.iter().map(|id| Connection { id: *id, ..Connection::default() }).collect();
        Ok(Answer::Connections(LocalConnectionsAnswer { connections, total }))
    }

    #[test]
    fn a_page_is_cut_at_its_size_and_the_next_begins_behind_it() {
        let binding = Binding::new(None, "connections");
        let check = |size, nodes: &[&[u64]], expected: &[(u64, u64)], next: Option<(u64, u64)>| {
            let mut page = Page { size, ..Page::default() };
            for (at, ids) in (1..).zip(nodes) {
                page.add(answer(at), open(ids, ids.len() as u64), &Registry::default());
            }
            let page = page.finish(&binding);
            let listed: Vec<_> = page.connections.iter().map(|it| (it.node_id, it.id)).collect();
            assert_eq!(listed, expected);
            let token = Some(page.next_page_token).filter(|token| !token.is_empty());
            let place = token.map(|it| Place::parse(&binding.decode(&it).unwrap()).unwrap());
            let next = next.map(|(node, connection)| Place { node: NodeId(node), connection });
            assert_eq!(place, next);
        };
        check(3, &[], &[], None);
        check(3, &[&[4, 7], &[5]], &[(1, 4), (1, 7), (2, 5)], None);
        check(2, &[&[4, 7], &[5]], &[(1, 4), (1, 7)], Some((1, 7)));
        check(2, &[&[4, 7, 9], &[5]], &[(1, 4), (1, 7)], Some((1, 7)));
        check(3, &[&[], &[5], &[1, 2, 3]], &[(2, 5), (3, 1), (3, 2)], Some((3, 2)));
        check(3, &[&[u64::MAX]], &[(1, u64::MAX)], None);
    }

    #[test]
    fn who_is_silent_is_named_with_the_reason() {
        let mut page = Page { size: 9, ..Page::default() };
        page.add(answer(1), open(&[4], 1), &Registry::default());
        page.add(answer(2), Err(Silence::Late), &Registry::default());
        let page = page.finish(&Binding::new(None, "connections"));
        let told: Vec<_> = page
            .nodes
            .iter()
            .map(|it| (it.node.as_str(), it.answered, it.connections, it.why.as_str()))
            .collect();
        assert_eq!(told, [("n1", true, 1, ""), ("n2", false, 0, "it did not answer in time")]);
    }

    #[test]
    fn tokens_of_other_lists_are_no_places() {
        for bytes in [&[][..], &[1; 8], &[1; 17]] {
            assert!(Place::parse(bytes).is_err());
        }
        let place = Place { node: NodeId(7), connection: u64::MAX };
        assert_eq!(Place::parse(&place.bytes()).unwrap(), place);
    }
}
