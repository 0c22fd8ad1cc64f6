//! `grpc.health.v1`: SERVING while this node is a member and its registry is fresh. Tells nothing else, so nobody needs a
//! certificate for it.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health as Service,
};

use crate::{
    consensus::State,
    edge::{convert, engine::Engine, rpcs},
};

/// How long a check waits for a fresh registry.
const FRESH_WITHIN: Duration = Duration::from_millis(200);
/// Time between two looks of a watch.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Whether a node serves calls right now.
pub async fn serves(engine: &dyn Engine) -> bool {
    engine.state() == State::Member && engine.fresh(Instant::now() + FRESH_WITHIN).await.is_ok()
}

/// The health service.
#[derive(Clone)]
pub struct Health(pub Arc<dyn Engine>);

impl Health {
    async fn status(&self) -> ServingStatus {
        if serves(self.0.as_ref()).await {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

/// The server as a whole, or one of its services.
fn is_known(service: &str) -> bool {
    let of_service = |rpc: &str| rpc.split('/').next() == Some(service);
    service.is_empty() || rpcs::of_clients().any(|(rpc, _)| of_service(rpc))
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Service for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            return Err(convert::not_found("service", "of this name"));
        }
        Ok(Response::new(response(self.status().await)))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = is_known(&request.get_ref().service);
        let changes = futures::stream::unfold(
            (self.clone(), None),
            move |(health, last): (Self, Option<ServingStatus>)| async move {
                loop {
                    let now =
                        if known { health.status().await } else { ServingStatus::ServiceUnknown };
                    if last != Some(now) {
                        return Some((Ok(response(now)), (health, Some(now))));
                    }
                    sleep(WATCH_INTERVAL).await;
                }
            },
        );
        Ok(Response::new(Box::pin(changes)))
    }
}
