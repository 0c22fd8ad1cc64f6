//! Pages over HTTPS with a client certificate and without a browser: what is sent is exactly what a test says.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use crate::{
    connection::{self, Tls},
    identity::Identity,
    node::Node,
};

/// Longest time for one page.
const PAGE_LIMIT: Duration = Duration::from_secs(20);
/// Largest page that is read: a form that is shown again holds what was sent, and each byte of it may be escaped.
const PAGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What a request was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header; empty where it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The Studio of one node, as one identity gets it.
pub struct Site {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Site {
    /// The Studio of `node` for `identity`, or for somebody without a certificate.
    ///
    /// # Errors
    /// The key cannot be loaded.
    pub fn new(node: &Node, identity: Option<&Identity>) -> Result<Self> {
        let tls = Tls { alpn: vec![b"http/1.1".to_vec()], ..Tls::default() };
        let config = Arc::new(tls.config(node.certificate(), identity)?);
        Ok(Self { address: node.addresses.client, config, connection: None })
    }

    /// The origin, as browsers name it.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Opens a page.
    ///
    /// # Errors
    /// There is no answer within the limit.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Opens something that may never end, and gives its status.
    ///
    /// # Errors
    /// There is no answer within the limit.
    pub async fn open(&mut self, path: &str) -> Result<u16> {
        let host = self.address.to_string();
        let request = Request::get(path).header(header::HOST, host).body(Full::default())?;
        let mut connection = self.connect().await?;
        let answer = tokio::time::timeout(PAGE_LIMIT, connection.send_request(request));
        Ok(answer.await.with_context(|| format!("GET {path}: no answer"))??.status().as_u16())
    }

    /// Sends a form as a page of this origin does.
    ///
    /// # Errors
    /// There is no answer within the limit.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let origin = self.origin();
        let headers = [
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.send(Method::POST, path, &headers, body.into()).await
    }

    /// Sends a form with a file, as a page of this origin does.
    ///
    /// # Errors
    /// There is no answer within the limit.
    pub async fn post_file(
        &mut self,
        path: &str,
        file: &[u8],
        fields: &[(&str, &str)],
    ) -> Result<Answer> {
        const BOUNDARY: &str = "----a-boundary-that-no-file-holds";
        let mut body = Vec::new();
        for (name, value) in fields {
            let part = format!(
                "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
            body.extend_from_slice(part.as_bytes());
        }
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let (origin, kind) = (self.origin(), format!("multipart/form-data; boundary={BOUNDARY}"));
        let headers = [
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("content-type", kind.as_str()),
        ];
        self.send(Method::POST, path, &headers, body.into()).await
    }

    /// Sends exactly this.
    ///
    /// # Errors
    /// There is no answer within the limit.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let what = format!("{method} {path}");
        let sent = tokio::time::timeout(PAGE_LIMIT, self.exchange(method, path, headers, body));
        sent.await.with_context(|| format!("{what}: no answer"))?.context(what)
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let host = self.address.to_string();
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let reused = match self.open_connection().await {
            // A connection that the node closes at this moment gives the request back unsent.
            Some(mut open) => match open.try_send_request(request).await {
                Ok(answer) => Ok((open, answer)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => Err(unsent),
                    None => return Err(failed.into_error().into()),
                },
            },
            None => Err(request),
        };
        let (connection, answer) = match reused {
            Ok(answered) => answered,
            Err(request) => {
                let mut new = self.connect().await?;
                let answer = new.send_request(request).await?;
                (new, answer)
            }
        };
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, PAGE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer's body: {error}"))?.to_bytes();
        self.connection = Some(connection);
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// The connection of the last request, unless the node has closed it.
    async fn open_connection(&mut self) -> Option<SendRequest<Full<Bytes>>> {
        let mut connection = self.connection.take()?;
        connection.ready().await.ok().map(|()| connection)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = connection::connect(self.address, Arc::clone(&self.config)).await?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what it says then was said to the sender.
        tokio::spawn(async move { drop(driver.await) });
        Ok(sender)
    }
}
