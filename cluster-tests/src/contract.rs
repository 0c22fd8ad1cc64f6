//! Every RPC of the contract, and a way to call it without its types.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BufMut as _, Bytes};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

/// Longest time one raw call may take.
const RAW_CALL_LIMIT: Duration = Duration::from_secs(10);
/// Most messages that are read from one answer.
const MESSAGES_MAX: usize = 64;

/// One RPC of the contract.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rpc {
    /// Such as `rookery.document.v1.DocumentService`.
    pub service: String,
    /// Such as `PutDocument`.
    pub method: String,
}

impl Rpc {
    /// The path it is called by.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }
}

/// Every RPC of every service in the contract, in the order of their paths.
///
/// # Errors
/// The descriptors cannot be decoded.
pub fn rpcs() -> Result<Vec<Rpc>> {
    let set = prost_types::FileDescriptorSet::decode(rookery_proto::DESCRIPTORS)
        .context("the descriptors of the contract")?;
    let mut rpcs: Vec<Rpc> = set
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file, service)))
        .flat_map(|(file, service)| {
            service.method.iter().map(move |method| Rpc {
                service: format!("{}.{}", file.package(), service.name()),
                method: method.name().to_owned(),
            })
        })
        .collect();
    rpcs.sort();
    Ok(rpcs)
}

/// Calls `path` with the encoded `messages` and gives the encoded answers. Serves unary and streaming RPCs alike: on
/// the wire a unary call is a stream of one message.
///
/// # Errors
/// The status that the server gave, or that stands for a broken connection.
pub async fn call(
    channel: &Channel,
    path: &str,
    messages: Vec<Vec<u8>>,
) -> Result<Vec<Bytes>, Status> {
    let path: http::uri::PathAndQuery =
        path.parse().map_err(|_| Status::internal("the test gave no valid path"))?;
    let work = async {
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let request = Request::new(stream::iter(messages.into_iter().map(Bytes::from)));
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        let mut received = Vec::new();
        while let Some(answer) = answers.next().await {
            received.push(answer?);
            if received.len() == MESSAGES_MAX {
                break;
            }
        }
        Ok(received)
    };
    match tokio::time::timeout(RAW_CALL_LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded("the test waited long enough")),
    }
}

/// Messages as bytes, whatever their type.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
