//! Server reflection, v1 and v1alpha, for holders of a registered certificate: the contract of the client services.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, task};

use futures::future::BoxFuture;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{body::Body, server::NamedService};
use tonic_reflection::server::{
    Builder, Error,
    v1::{ServerReflection as V1, ServerReflectionServer as V1Server},
    v1alpha::{ServerReflection as V1Alpha, ServerReflectionServer as V1AlphaServer},
};
use tower::Service;

use crate::{
    authz::ServerOperation,
    edge::{Edge, streams},
};

/// The files that clients are shown: not what peers, the log and the admin socket speak, but for messages of theirs that
/// stand in what clients are told, such as the records of the audit log.
fn files() -> Result<FileDescriptorSet, Error> {
    let mut all = FileDescriptorSet::decode(rookery_proto::DESCRIPTORS)?;
    let hidden = ["rookery.peer.v1", "rookery.log.v1", "rookery.admin.v1"];
    let mut shown: BTreeSet<String> = all
        .file
        .iter()
        .filter(|file| !hidden.contains(&file.package()))
        .map(|file| file.name().to_owned())
        .collect();
    loop {
        let before = shown.len();
        let imports = all.file.iter().filter(|file| shown.contains(file.name()));
        let imports: Vec<String> = imports.flat_map(|file| file.dependency.clone()).collect();
        shown.extend(imports);
        if shown.len() == before {
            break;
        }
    }
    all.file.retain(|file| shown.contains(file.name()));
    Ok(all)
}

fn builder<'b>() -> Result<Builder<'b>, Error> {
    Ok(Builder::configure()
        .register_file_descriptor_set(files()?)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}

/// Reflection v1.
///
/// # Errors
/// The descriptors cannot be read.
pub fn v1(edge: &Arc<Edge>) -> Result<Registered<V1Server<impl V1>>, Error> {
    Ok(Registered { edge: edge.clone(), inner: builder()?.build_v1()? })
}

/// Reflection v1alpha, which some clients still ask first.
///
/// # Errors
/// The descriptors cannot be read.
pub fn v1alpha(edge: &Arc<Edge>) -> Result<Registered<V1AlphaServer<impl V1Alpha>>, Error> {
    Ok(Registered { edge: edge.clone(), inner: builder()?.build_v1alpha()? })
}

/// A service that answers holders of a registered certificate only.
#[derive(Clone)]
pub struct Registered<S> {
    edge: Arc<Edge>,
    inner: S,
}

impl<S: NamedService> NamedService for Registered<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<axum::extract::Request> for Registered<S>
where
    S: Service<axum::extract::Request, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        context: &mut task::Context<'_>,
    ) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: axum::extract::Request) -> Self::Future {
        let edge = self.edge.clone();
        let fresh = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let decided =
                edge.authorize_extensions(request.extensions(), ServerOperation::ViewBuild).await;
            let extensions = request.extensions().clone();
            match decided {
                Ok(_) => ready.call(request).await.map(|response| {
                    response.map(|body| {
                        streams::judged(edge, extensions, ServerOperation::ViewBuild, body)
                    })
                }),
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_shown_is_whole_and_holds_no_service_of_peers_or_owners() {
        let shown = files().unwrap().file;
        let names: BTreeSet<_> = shown.iter().map(|file| file.name()).collect();
        for file in &shown {
            for import in &file.dependency {
                assert!(names.contains(import.as_str()), "{} imports {import}", file.name());
            }
            for service in &file.service {
                let package = file.package();
                assert!(
                    !["rookery.peer.v1", "rookery.admin.v1"].contains(&package),
                    "{package}.{} is shown",
                    service.name()
                );
            }
        }
        assert!(shown.iter().any(|file| file.package() == "rookery.audit.v1"));
    }
}
