//! Stylesheet, script and icon: part of the binary, named by their content, so that browsers keep them for good.

use std::sync::LazyLock;

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::Compression;
use sha2::{Digest as _, Sha256};

use super::{answer, compress};

struct Asset {
    name: String,
    kind: &'static str,
    content: &'static str,
    /// The content in gzip, made once.
    short: Bytes,
}

impl Asset {
    fn new(stem: &str, ending: &str, kind: &'static str, content: &'static str) -> Self {
        let digest = hex::encode(&Sha256::digest(content)[..6]);
        let short =
            compress::gzip(content.as_bytes(), Compression::best()).unwrap_or_default().into();
        Self { name: format!("{stem}-{digest}.{ending}"), kind, content, short }
    }
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("style", "css", "text/css; charset=utf-8", include_str!("assets/style.css"))
});
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("script", "js", "text/javascript; charset=utf-8", include_str!("assets/script.js"))
});
static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

/// The path of the stylesheet.
#[must_use]
pub fn style() -> String {
    path(&STYLE)
}

/// The path of the script.
#[must_use]
pub fn script() -> String {
    path(&SCRIPT)
}

/// The path of the icon.
#[must_use]
pub fn icon() -> String {
    path(&ICON)
}

/// The paths of all files that a page links.
#[must_use]
pub fn all() -> [String; 3] {
    [style(), script(), icon()]
}

fn path(asset: &Asset) -> String {
    format!("/studio/assets/{}", asset.name)
}

/// `GET /studio/assets/{name}`. Public: they hold nothing of the cluster.
pub async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name) else {
        return answer::alone(StatusCode::NOT_FOUND, "No such file", "There is no such file here.");
    };
    let is_short = !asset.short.is_empty() && compress::accepts_gzip(&headers);
    let mut response = match is_short {
        true => Body::from(asset.short.clone()).into_response(),
        false => asset.content.into_response(),
    };
    let headers = response.headers_mut();
    if is_short {
        compress::mark(headers);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    response
}
