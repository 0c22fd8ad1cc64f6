//! The calls of tests, to the proxy of this crate or to the real one: plain HTTP/1.1, one connection a call.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    proxy::ProxySpec,
    toxic::{Attributes, Kind, Stream, Toxic},
};

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A running proxy process, by the address of its interface.
#[derive(Debug, Clone, Copy)]
pub struct Toxiproxy {
    api: SocketAddr,
}

impl Toxiproxy {
    /// The one whose interface is at `api`.
    #[must_use]
    pub fn at(api: SocketAddr) -> Self {
        Self { api }
    }

    /// The version it says it is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn version(&self) -> Result<String> {
        let answer: serde_json::Value = self.call("GET", "/version", None::<&()>).await?;
        answer["version"].as_str().map(str::to_owned).context("an answer without a version")
    }

    /// Every proxy, by its name.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn proxies(&self) -> Result<BTreeMap<String, ProxySpec>> {
        self.call("GET", "/proxies", None::<&()>).await
    }

    /// Makes a proxy; answers it with the address it got.
    ///
    /// # Errors
    /// The name or the address is taken.
    pub async fn create(&self, name: &str, listen: &str, upstream: &str) -> Result<ProxySpec> {
        let spec = json!({ "name": name, "listen": listen, "upstream": upstream, "enabled": true });
        self.call("POST", "/proxies", Some(&spec)).await
    }

    /// Closes a proxy with all its connections, or opens it again.
    ///
    /// # Errors
    /// There is none of this name, or its address is taken.
    pub async fn set_enabled(&self, name: &str, enabled: bool) -> Result<()> {
        let path = format!("/proxies/{name}");
        let change = json!({ "enabled": enabled });
        self.call::<serde_json::Value>("POST", &path, Some(&change)).await.map(drop)
    }

    /// Adds a toxic.
    ///
    /// # Errors
    /// The proxy has one of this name, or there is no such proxy.
    pub async fn add(&self, proxy: &str, toxic: &Toxic) -> Result<()> {
        let path = format!("/proxies/{proxy}/toxics");
        self.call::<serde_json::Value>("POST", &path, Some(toxic)).await.map(drop)
    }

    /// Removes a toxic.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn remove(&self, proxy: &str, toxic: &str) -> Result<()> {
        let path = format!("/proxies/{proxy}/toxics/{toxic}");
        self.send("DELETE", &path, None::<&()>).await.map(drop)
    }

    /// Enables every proxy and removes every toxic.
    ///
    /// # Errors
    /// It does not answer, or an address is taken.
    pub async fn reset(&self) -> Result<()> {
        self.send("POST", "/reset", None::<&()>).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer)
            .with_context(|| format!("{method} {path}: {}", String::from_utf8_lossy(&answer)))
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Vec<u8>> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: rookery-cluster-tests\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.api,
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect(self.api).await?;
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
            let mut answer = Vec::new();
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = tokio::time::timeout(CALL_LIMIT, exchange)
            .await
            .with_context(|| format!("{method} {path}: no answer"))??;
        split(&answer).with_context(|| format!("{method} {path}"))
    }
}

/// The body of a successful answer.
fn split(answer: &[u8]) -> Result<Vec<u8>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no HTTP answer")?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let head = String::from_utf8_lossy(head).to_lowercase();
    let code = head.split(' ').nth(1).context("no status")?;
    let body =
        if head.contains("transfer-encoding: chunked") { joined(body)? } else { body.to_vec() };
    anyhow::ensure!(code.starts_with('2'), "answered {code}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// The chunks of a body, put together (RFC 9112, section 7.1).
fn joined(mut body: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").context("a broken chunk")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end])?.trim(), 16)?;
        let chunk = body.get(end + 2..end + 2 + size).context("a short chunk")?;
        if size == 0 {
            return Ok(whole);
        }
        whole.extend_from_slice(chunk);
        body = body.get(end + 4 + size..).context("a short chunk")?;
    }
}

/// What makes a directed link silent while its connections stay open.
#[must_use]
pub fn cut(stream: Stream) -> Toxic {
    Toxic::new(Kind::Timeout, stream, Attributes::default())
}

/// The name of the toxic that [`cut`] makes.
#[must_use]
pub fn healed(stream: Stream) -> String {
    cut(stream).name
}
