//! The HTTP interface, as Toxiproxy 2.12 has it.
//!
//! | method and path | what it does |
//! | --- | --- |
//! | `GET /proxies`, `GET /proxies/{p}` | shows |
//! | `POST /proxies`, `POST /populate` | makes one, or several in place of those of the same names |
//! | `POST` or `PATCH /proxies/{p}`, `DELETE /proxies/{p}` | changes, deletes |
//! | `GET`, `POST /proxies/{p}/toxics` | shows, adds |
//! | `GET`, `POST`, `PATCH`, `DELETE /proxies/{p}/toxics/{t}` | shows, changes, removes |
//! | `POST /reset` | enables all, removes all toxics |
//! | `GET /version` | the version it speaks |

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    proxy::{Proxies, ProxySpec, Refused},
    toxic::{Attributes, Toxic},
};

/// The version whose interface this is.
const VERSION: &str = "2.12.0";

type Answer = Result<Response, Error>;
type Shared = State<Arc<Proxies>>;

struct Error(StatusCode, String);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1, "status": self.0.as_u16() }))).into_response()
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let status = StatusCode::from_u16(refused.status());
        Self(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refused.to_string())
    }
}

/// Serves the interface until the listener fails.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, proxies: Arc<Proxies>) -> std::io::Result<()> {
    axum::serve(listener, router(proxies)).await
}

fn router(proxies: Arc<Proxies>) -> Router {
    Router::new()
        .route("/version", get(async || Json(json!({ "version": VERSION }))))
        .route("/reset", post(reset))
        .route("/populate", post(populate))
        .route("/proxies", get(list).post(create))
        .route("/proxies/{proxy}", get(show).post(update).patch(update).delete(delete))
        .route("/proxies/{proxy}/toxics", get(toxics).post(add_toxic))
        .route(
            "/proxies/{proxy}/toxics/{toxic}",
            get(toxic).post(change_toxic).patch(change_toxic).delete(remove_toxic),
        )
        .with_state(proxies)
}

/// JSON whatever the content type says, as the real one reads it.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|why| Error(StatusCode::BAD_REQUEST, format!("bad request body: {why}")))
}

async fn list(State(proxies): Shared) -> Response {
    Json(proxies.list()).into_response()
}

async fn show(State(proxies): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(proxies.find(&name)?).into_response())
}

async fn create(State(proxies): Shared, body: Bytes) -> Answer {
    let made = proxies.create(parse(&body)?).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

async fn populate(State(proxies): Shared, body: Bytes) -> Answer {
    let mut made = Vec::new();
    for spec in parse::<Vec<ProxySpec>>(&body)? {
        // One of the same name makes room.
        if proxies.find(&spec.name).is_ok() {
            proxies.delete(&spec.name)?;
        }
        made.push(proxies.create(spec).await?);
    }
    Ok((StatusCode::CREATED, Json(json!({ "proxies": made }))).into_response())
}

#[derive(Deserialize)]
struct Update {
    listen: Option<String>,
    upstream: Option<String>,
    enabled: Option<bool>,
}

async fn update(State(proxies): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let change: Update = parse(&body)?;
    let spec = proxies.update(&name, change.listen, change.upstream, change.enabled).await?;
    Ok(Json(spec).into_response())
}

async fn delete(State(proxies): Shared, Path(name): Path<String>) -> Answer {
    proxies.delete(&name)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn reset(State(proxies): Shared) -> Answer {
    proxies.reset().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn toxics(State(proxies): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(proxies.find(&name)?.toxics).into_response())
}

async fn add_toxic(State(proxies): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    Ok(Json(proxies.add_toxic(&name, parse(&body)?)?).into_response())
}

fn one(proxies: &Proxies, name: &str, toxic: &str) -> Result<Toxic, Refused> {
    let found = proxies.find(name)?.toxics.into_iter().find(|other| other.name == toxic);
    found.ok_or(Refused::NoToxic)
}

async fn toxic(State(proxies): Shared, Path((name, toxic)): Path<(String, String)>) -> Answer {
    Ok(Json(one(&proxies, &name, &toxic)?).into_response())
}

#[derive(Deserialize)]
struct Change {
    toxicity: Option<f32>,
    attributes: Option<Attributes>,
}

async fn change_toxic(
    State(proxies): Shared,
    Path((name, toxic)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let change: Change = parse(&body)?;
    proxies.change(&name, |toxics| {
        let found = toxics.iter_mut().find(|other| other.name == toxic).ok_or(Refused::NoToxic)?;
        found.toxicity = change.toxicity.unwrap_or(found.toxicity);
        found.attributes = change.attributes.unwrap_or(found.attributes);
        Ok(())
    })?;
    Ok(Json(one(&proxies, &name, &toxic)?).into_response())
}

async fn remove_toxic(
    State(proxies): Shared,
    Path((name, toxic)): Path<(String, String)>,
) -> Answer {
    proxies.remove_toxic(&name, &toxic)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
