//! The ops listener: `/livez`, `/readyz`, `/metrics` over plain HTTP on loopback. No data, no state of the cluster beyond
//! what the metrics hold.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    edge::{Edge, engine::Engine, expiry, health},
    limits,
};

/// The pages.
pub fn router(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_page))
        .with_state(edge)
}

async fn ready(State(edge): State<Arc<Edge>>) -> Response {
    if health::serves(edge.engine.as_ref()).await {
        return "ready\n".into_response();
    }
    let state = format!("not ready: {}\n", state_name(edge.engine.as_ref()));
    (StatusCode::SERVICE_UNAVAILABLE, state).into_response()
}

fn state_name(engine: &dyn Engine) -> &'static str {
    use crate::consensus::State;
    match engine.state() {
        State::Passive(_) => "passive",
        State::Joining => "joining",
        State::Member => "no fresh registry",
        State::Removed => "removed",
    }
}

async fn metrics_page(State(edge): State<Arc<Edge>>) -> Response {
    let status = edge.engine.status_local().await;
    let certificates = expiry::survey(&edge.engine.registry(), edge.clock.wall());
    let page = edge.metrics.encode(&status, &certificates);
    let mut response = page.into_response();
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Serves until `shutdown`. Few connections at once; one over the bound waits in the backlog.
pub async fn serve(tcp: TcpListener, router: Router, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits::LOCAL_CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let Ok((stream, _remote)) = accepted else {
            sleep(limits::ACCEPT_BACKOFF).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
            http.http1()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .header_read_timeout(limits::HANDSHAKE_TIMEOUT);
            tokio::select! {
                _ended = http.serve_connection(TokioIo::new(stream), service) => {}
                () = sleep(limits::DEADLINE_DEFAULT) => {}
                () = shutdown.cancelled() => {}
            }
            drop(place);
        });
    }
}
