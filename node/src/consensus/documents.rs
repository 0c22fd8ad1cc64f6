//! Reads of documents: on this node where it holds the database, on a node that does where not.

use std::time::Instant;

use prost::Message as _;
use rookery_proto::{
    database::v1::{
        CollectionStatistics, GetDatabaseStatisticsRequest, GetDatabaseStatisticsResponse,
    },
    document::v1::{
        GetDocumentRequest, GetDocumentResponse, ListDocumentsRequest, ListDocumentsResponse,
        Position,
    },
    peer::v1::{self as peer, DocumentRead},
};

use super::{Consensus, Error, Group, forwarding};
use crate::{
    authz::DatabasePermit,
    database::{self, Collections, ListQuery, Page, page_token},
    limits,
    names::{CollectionName, DocumentId, GroupId, NodeId, Thumbprint},
};

/// A read on its way to where it is served.
enum Read {
    Get(GetDocumentRequest),
    List(ListDocumentsRequest),
    Statistics(GetDatabaseStatisticsRequest),
}

impl Read {
    fn stale_ok(&self) -> bool {
        match self {
            Self::Get(request) => request.stale_ok,
            Self::List(request) => request.stale_ok,
            Self::Statistics(request) => request.stale_ok,
        }
    }
}

/// Its answer.
enum Answer {
    Get(GetDocumentResponse),
    List(ListDocumentsResponse),
    Statistics(GetDatabaseStatisticsResponse),
}

impl Consensus {
    /// Reads one document.
    ///
    /// # Errors
    /// `NOT_FOUND` as a refusal; [`Error::NoLeader`] and its kin where no linearizable read is possible.
    pub async fn get(
        &self,
        permit: DatabasePermit,
        request: GetDocumentRequest,
        deadline: Instant,
    ) -> Result<GetDocumentResponse, Error> {
        match self.read(&permit, Read::Get(request), deadline).await? {
            Answer::Get(response) => Ok(response),
            Answer::List(_) | Answer::Statistics(_) => Err(other_answer()),
        }
    }

    /// Lists documents.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` as a refusal for a page token of another query; otherwise as [`Consensus::get`].
    pub async fn list(
        &self,
        permit: DatabasePermit,
        request: ListDocumentsRequest,
        deadline: Instant,
    ) -> Result<ListDocumentsResponse, Error> {
        match self.read(&permit, Read::List(request), deadline).await? {
            Answer::List(response) => Ok(response),
            Answer::Get(_) | Answer::Statistics(_) => Err(other_answer()),
        }
    }

    /// Counts the documents of a database and of its collections.
    ///
    /// # Errors
    /// As [`Consensus::list`].
    pub async fn statistics(
        &self,
        permit: DatabasePermit,
        request: GetDatabaseStatisticsRequest,
        deadline: Instant,
    ) -> Result<GetDatabaseStatisticsResponse, Error> {
        match self.read(&permit, Read::Statistics(request), deadline).await? {
            Answer::Statistics(response) => Ok(response),
            Answer::Get(_) | Answer::List(_) => Err(other_answer()),
        }
    }

    async fn read(
        &self,
        permit: &DatabasePermit,
        read: Read,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let group = self.groups.find(GroupId::from(permit.database()));
        let work = async {
            match group {
                // Behind the others for want of room; whoever has room answers.
                Some(group) if self.is_full() && !group.is_leader() && !read.stale_ok() => {
                    self.read_there(permit, read, deadline).await
                }
                Some(group) => self.read_here(&group, permit, read, deadline).await,
                None => self.read_there(permit, read, deadline).await,
            }
        };
        self.while_it_stands(permit.database(), work).await
    }

    async fn read_here(
        &self,
        group: &Group,
        permit: &DatabasePermit,
        read: Read,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        if !read.stale_ok() {
            self.linearize(group, deadline).await?;
        }
        match read {
            Read::Get(request) => self.get_here(group, permit, &request).map(Answer::Get),
            Read::List(request) => self.list_here(group, permit, &request).map(Answer::List),
            Read::Statistics(request) => {
                self.statistics_here(group, permit, &request).map(Answer::Statistics)
            }
        }
    }

    /// Waits until this node has applied everything that was committed when the call began.
    ///
    /// # Errors
    /// [`Error::NoLeader`], [`Error::NoQuorum`], [`Error::Timeout`].
    async fn linearize(&self, group: &Group, deadline: Instant) -> Result<(), Error> {
        loop {
            match group.reads.index(deadline).await {
                Ok(index) => return group.wait_applied(index, deadline).await,
                Err(error) if error.is_transient() => {
                    let pause = std::time::Duration::from_millis(20);
                    if Instant::now() + pause >= deadline {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until this node's registry holds everything that was committed when the call began.
    ///
    /// # Errors
    /// [`Error::NoLeader`], [`Error::NoQuorum`], [`Error::Timeout`].
    pub async fn linearize_cluster(&self, deadline: Instant) -> Result<(), Error> {
        let group = self.group(GroupId::CLUSTER)?;
        self.linearize(&group, deadline).await
    }

    fn get_here(
        &self,
        group: &Group,
        permit: &DatabasePermit,
        request: &GetDocumentRequest,
    ) -> Result<GetDocumentResponse, Error> {
        let id = DocumentId::parse(&request.id)
            .map_err(|e| Error::refused("INVALID_ARGUMENT", e.to_string()))?;
        let (index, _) = group.state.applied();
        let found = group.state.read(|read, space| database::get(read, space, &id))?;
        let document = found.ok_or_else(|| {
            Error::refused("NOT_FOUND", "there is no document under this id in the database")
        })?;
        let position = Some(Position { index, registry_revision: permit.revision() });
        Ok(GetDocumentResponse { document: Some(document), position })
    }

    fn list_here(
        &self,
        group: &Group,
        permit: &DatabasePermit,
        request: &ListDocumentsRequest,
    ) -> Result<ListDocumentsResponse, Error> {
        let caller = permit.author().thumbprint();
        let query = list_query(caller, permit, request)?;
        let (index, _) = group.state.applied();
        let (view, space) = group.state.view();
        let page = database::list(view.as_ref(), space, &query)?;
        let Page { documents, next_after } = page;
        let next_page_token = next_after.map_or_else(String::new, |after| {
            page_token::encode(caller, permit.database(), &query, &after)
        });
        let position = Some(Position { index, registry_revision: permit.revision() });
        Ok(ListDocumentsResponse { documents, next_page_token, position })
    }

    fn statistics_here(
        &self,
        group: &Group,
        permit: &DatabasePermit,
        request: &GetDatabaseStatisticsRequest,
    ) -> Result<GetDatabaseStatisticsResponse, Error> {
        let (caller, database) = (permit.author().thumbprint(), permit.database());
        let after = page_token::decode_collections(caller, database, &request.page_token)
            .map_err(|e| Error::refused("INVALID_ARGUMENT", e.to_string()))?;
        let page_size = usize::try_from(request.page_size).unwrap_or(usize::MAX);
        let (applied_index, _) = group.state.applied();
        let (view, space) = group.state.view();
        let size = database::size(view.as_ref(), space)?;
        let page = database::collections(view.as_ref(), space, after.as_ref(), page_size)?;
        let Collections { sizes, next_after } = page;
        let collection = |(name, size): (String, database::Size)| CollectionStatistics {
            name,
            documents: size.documents,
            bytes: size.bytes,
        };
        Ok(GetDatabaseStatisticsResponse {
            documents: size.documents,
            bytes: size.bytes,
            collections: sizes.into_iter().map(collection).collect(),
            next_page_token: next_after.map_or_else(String::new, |after| {
                page_token::encode_collections(caller, database, &after)
            }),
            applied_index,
            node: self.node(self.node_id()).map_or_else(String::new, |node| node.name),
        })
    }

    async fn read_there(
        &self,
        permit: &DatabasePermit,
        read: Read,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let author = forwarding::client(permit.author())?;
        let registry = self.registry();
        let Some(record) = registry.database_by_id(permit.database()) else {
            return Err(Error::NotLeader);
        };
        let call = peer::forward_request::Call::Read(DocumentRead {
            group: GroupId::from(permit.database()).0,
            read: Some(match &read {
                Read::Get(request) => peer::document_read::Read::Get(request.encode_to_vec()),
                Read::List(request) => peer::document_read::Read::List(request.encode_to_vec()),
                Read::Statistics(request) => {
                    peer::document_read::Read::Statistics(request.encode_to_vec())
                }
            }),
        });
        let mut last = Error::NoLeader;
        let group = self.groups.find(GroupId::from(permit.database()));
        let leader = group.and_then(|group| group.leader()).map(|leader| leader.0);
        let mut holders: Vec<u64> = record.node_ids.clone();
        holders.retain(|node| *node != self.node_id().0);
        holders.sort_by_key(|node| Some(*node) != leader);
        for node in &holders {
            let patience = deadline.min(Instant::now() + limits::PEER_ANSWER_TIMEOUT);
            let answer = self.forward(NodeId(*node), author, call.clone(), patience).await;
            let given = match answer.map_err(Error::from) {
                Ok(given) => given,
                Err(error) if error.is_unavailable() => {
                    last = error;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let peer::forward_response::Result::Read(bytes) = given else {
                return Err(Error::unexpected_answer());
            };
            return decode_answer(&read, &bytes);
        }
        Err(last)
    }

    /// Serves a read that another node forwarded; `permit` is the author's own, decided on this node.
    pub(super) async fn serve_forwarded_read(
        &self,
        permit: &DatabasePermit,
        read: peer::document_read::Read,
        deadline: Instant,
    ) -> Result<Vec<u8>, Error> {
        let malformed = |_| Error::refused("INVALID_ARGUMENT", "the forwarded read is malformed");
        let read = match read {
            peer::document_read::Read::Get(bytes) => {
                Read::Get(GetDocumentRequest::decode(bytes.as_slice()).map_err(malformed)?)
            }
            peer::document_read::Read::List(bytes) => {
                Read::List(ListDocumentsRequest::decode(bytes.as_slice()).map_err(malformed)?)
            }
            peer::document_read::Read::Statistics(bytes) => Read::Statistics(
                GetDatabaseStatisticsRequest::decode(bytes.as_slice()).map_err(malformed)?,
            ),
        };
        // Only here: a forwarded read is never forwarded again.
        let group = self.group(permit.database().into())?;
        Ok(match self.read_here(&group, permit, read, deadline).await? {
            Answer::Get(response) => response.encode_to_vec(),
            Answer::List(response) => response.encode_to_vec(),
            Answer::Statistics(response) => response.encode_to_vec(),
        })
    }
}

fn other_answer() -> Error {
    Error::Stopped("a read was answered by another".to_owned())
}

fn list_query(
    caller: Option<Thumbprint>,
    permit: &DatabasePermit,
    request: &ListDocumentsRequest,
) -> Result<ListQuery, Error> {
    let invalid = |message: String| Error::refused("INVALID_ARGUMENT", message);
    let collection = match request.collection.as_str() {
        "" => None,
        name => Some(CollectionName::parse(name).map_err(|e| invalid(e.to_string()))?),
    };
    let mut query = ListQuery {
        prefix: request.prefix.clone(),
        collection,
        after: None,
        page_size: usize::try_from(request.page_size).unwrap_or(usize::MAX),
        ids_only: request.ids_only,
    };
    if !request.page_token.is_empty() {
        let after = page_token::decode(caller, permit.database(), &query, &request.page_token);
        query.after = Some(after.map_err(|e| invalid(e.to_string()))?);
    }
    Ok(query)
}

fn decode_answer(read: &Read, bytes: &[u8]) -> Result<Answer, Error> {
    let malformed = |_| Error::Stopped("a peer answered with a malformed message".to_owned());
    Ok(match read {
        Read::Get(_) => Answer::Get(GetDocumentResponse::decode(bytes).map_err(malformed)?),
        Read::List(_) => Answer::List(ListDocumentsResponse::decode(bytes).map_err(malformed)?),
        Read::Statistics(_) => {
            Answer::Statistics(GetDatabaseStatisticsResponse::decode(bytes).map_err(malformed)?)
        }
    })
}
