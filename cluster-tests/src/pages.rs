//! The pages of a node, as a browser without a screen asks for them: over real TLS and HTTP/2, with one cookie.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::body::Body;
use http::{HeaderMap, Request, header};
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use crate::{identity::Identity, node::Node};

/// Largest page that is read.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Somebody's browser on one node.
pub struct Browser {
    channel: Channel,
    address: SocketAddr,
    /// Name and value of the one cookie that it keeps.
    pub cookie: Option<String>,
}

/// What it was answered.
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The content.
    pub text: String,
    asked: String,
}

impl Page {
    /// A header; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Checks status and a part of the content.
    ///
    /// # Errors
    /// It is another page.
    pub fn has(self, status: u16, part: &str) -> Result<Self> {
        let (asked, text) = (&self.asked, &self.text);
        anyhow::ensure!(self.status == status, "{asked}: {}, not {status}:\n{text}", self.status);
        anyhow::ensure!(text.contains(part), "{asked}: no {part:?} in\n{text}");
        Ok(self)
    }

    /// Checks that it leads to this address.
    ///
    /// # Errors
    /// It does not.
    pub fn leads_to(self, location: &str) -> Result<Self> {
        let found = (self.status, self.header("location"));
        anyhow::ensure!(found == (303, location), "{}: {found:?}, not to {location}", self.asked);
        Ok(self)
    }

    /// What stands between two marks.
    ///
    /// # Errors
    /// They are not there.
    pub fn between(&self, before: &str, after: &str) -> Result<&str> {
        let rest = self.text.split_once(before).with_context(|| format!("no {before:?}"))?.1;
        Ok(rest.split_once(after).with_context(|| format!("no {after:?}"))?.0)
    }
}

impl Browser {
    /// With a certificate, or without one.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn new(node: &Node, identity: Option<&Identity>) -> Result<Self> {
        let channel = node.caller(identity)?.channel;
        Ok(Self { channel, address: node.addresses.client, cookie: None })
    }

    /// A page, as a link of another page of the same node asks for it.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&mut self, path: &str) -> Result<Page> {
        self.ask("GET", path, &[("sec-fetch-site", "same-origin")], "").await
    }

    /// A form of a page of the same node.
    ///
    /// # Errors
    /// No answer.
    pub async fn post(&mut self, path: &str, form: &str) -> Result<Page> {
        let origin = format!("https://{}", self.address);
        let headers = [
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.ask("POST", path, &headers, form).await
    }

    /// Any request.
    ///
    /// # Errors
    /// No answer.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Page> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let body = tonic::body::Body::new(Body::from(body.to_owned()));
        let answer = self.channel.ready().await?.call(request.body(body)?).await?;
        let (head, body) = answer.into_parts();
        if let Some(set) = head.headers.get(header::SET_COOKIE) {
            let set = set.to_str()?;
            let kept = set.split(';').next().unwrap_or_default().to_owned();
            self.cookie = (!set.contains("Max-Age=0")).then_some(kept);
        }
        let content = axum::body::to_bytes(Body::new(body), PAGE_BYTES_MAX).await?;
        Ok(Page {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(content.to_vec())?,
            asked: format!("{method} {path}"),
        })
    }
}
