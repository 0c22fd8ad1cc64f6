//! Proxies: a listener each, its connections, and what is changed about them while they run.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    link::{End, Link, Toxics},
    toxic::{Stream, Toxic},
};

/// Most open connections of one proxy; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 1_024;

/// A proxy as the interface shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProxySpec {
    /// Unique.
    pub name: String,
    /// Where it listens; port 0 takes any.
    pub listen: String,
    /// Where it connects to.
    pub upstream: String,
    /// Whether it listens at all; a disabled one has no connections.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What it does to its links.
    #[serde(default)]
    pub toxics: Vec<Toxic>,
}

fn yes() -> bool {
    true
}

/// Why a change was refused; the numbers are HTTP's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("proxy not found")]
    NoProxy,
    #[error("toxic not found")]
    NoToxic,
    #[error("proxy already exists")]
    ProxyExists,
    #[error("toxic already exists")]
    ToxicExists,
    #[error("{0}")]
    Listen(io::Error),
}

impl Refused {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::NoProxy | Self::NoToxic => 404,
            Self::ProxyExists | Self::ToxicExists => 409,
            Self::Listen(_) => 500,
        }
    }
}

struct Proxy {
    spec: ProxySpec,
    toxics: watch::Sender<Toxics>,
    /// Ends listener and connections; a new one for each time it is enabled.
    running: Option<CancellationToken>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.cancel();
        }
    }
}

/// All proxies of a process.
#[derive(Default)]
pub struct Proxies {
    all: Mutex<BTreeMap<String, Proxy>>,
    /// The draws of toxicity, latency and slices come from it: the same seed and order of connections, the same draws.
    seed: u64,
}

impl Proxies {
    /// No proxies yet.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { all: Mutex::default(), seed })
    }

    /// Every proxy, by its name.
    #[must_use]
    pub fn list(&self) -> BTreeMap<String, ProxySpec> {
        self.all.lock().iter().map(|(name, proxy)| (name.clone(), proxy.spec.clone())).collect()
    }

    pub(super) fn find(&self, name: &str) -> Result<ProxySpec, Refused> {
        self.all.lock().get(name).map(|proxy| proxy.spec.clone()).ok_or(Refused::NoProxy)
    }

    pub(super) async fn create(&self, mut spec: ProxySpec) -> Result<ProxySpec, Refused> {
        if self.all.lock().contains_key(&spec.name) {
            return Err(Refused::ProxyExists);
        }
        spec.toxics = spec.toxics.into_iter().map(Toxic::named).collect();
        let toxics = watch::Sender::new(Arc::new(spec.toxics.clone()));
        let running = if spec.enabled { Some(self.open(&mut spec, &toxics).await?) } else { None };
        let proxy = Proxy { spec: spec.clone(), toxics, running };
        self.all.lock().insert(spec.name.clone(), proxy);
        Ok(spec)
    }

    /// Changes where it listens and connects to, and whether it does.
    pub(super) async fn update(
        &self,
        name: &str,
        listen: Option<String>,
        upstream: Option<String>,
        enabled: Option<bool>,
    ) -> Result<ProxySpec, Refused> {
        let (mut spec, toxics, was_running) = {
            let mut all = self.all.lock();
            let proxy = all.get_mut(name).ok_or(Refused::NoProxy)?;
            let moves = listen.as_ref().is_some_and(|listen| *listen != proxy.spec.listen)
                || upstream.as_ref().is_some_and(|upstream| *upstream != proxy.spec.upstream);
            if (moves || enabled == Some(false))
                && let Some(running) = proxy.running.take()
            {
                running.cancel();
            }
            let mut spec = proxy.spec.clone();
            spec.listen = listen.unwrap_or(spec.listen);
            spec.upstream = upstream.unwrap_or(spec.upstream);
            spec.enabled = enabled.unwrap_or(spec.enabled);
            (spec, proxy.toxics.clone(), proxy.running.is_some())
        };
        let opened = if spec.enabled && !was_running {
            Some(self.open(&mut spec, &toxics).await?)
        } else {
            None
        };
        let mut all = self.all.lock();
        let proxy = all.get_mut(name).ok_or(Refused::NoProxy)?;
        spec.toxics.clone_from(&proxy.spec.toxics);
        proxy.spec = spec.clone();
        if opened.is_some() {
            proxy.running = opened;
        }
        Ok(spec)
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), Refused> {
        self.all.lock().remove(name).map(drop).ok_or(Refused::NoProxy)
    }

    /// Enables every proxy and removes every toxic.
    pub(super) async fn reset(&self) -> Result<(), Refused> {
        let names: Vec<String> = self.all.lock().keys().cloned().collect();
        for name in names {
            self.change(&name, |toxics| {
                toxics.clear();
                Ok(())
            })?;
            self.update(&name, None, None, Some(true)).await?;
        }
        Ok(())
    }

    pub(super) fn add_toxic(&self, name: &str, toxic: Toxic) -> Result<Toxic, Refused> {
        let toxic = toxic.named();
        self.change(name, |toxics| {
            if toxics.iter().any(|other| other.name == toxic.name) {
                return Err(Refused::ToxicExists);
            }
            toxics.push(toxic.clone());
            Ok(toxic)
        })
    }

    pub(super) fn remove_toxic(&self, name: &str, toxic: &str) -> Result<(), Refused> {
        self.change(name, |toxics| {
            let place = toxics.iter().position(|other| other.name == toxic);
            toxics.remove(place.ok_or(Refused::NoToxic)?);
            Ok(())
        })
    }

    /// Changes the toxics of a proxy; its open links notice.
    pub(super) fn change<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Vec<Toxic>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut all = self.all.lock();
        let proxy = all.get_mut(name).ok_or(Refused::NoProxy)?;
        let changed = change(&mut proxy.spec.toxics)?;
        proxy.toxics.send_replace(Arc::new(proxy.spec.toxics.clone()));
        Ok(changed)
    }

    /// Listens; writes the address it got into the spec.
    async fn open(
        &self,
        spec: &mut ProxySpec,
        toxics: &watch::Sender<Toxics>,
    ) -> Result<CancellationToken, Refused> {
        let listener = TcpListener::bind(&spec.listen).await.map_err(Refused::Listen)?;
        spec.listen = listener.local_addr().map_err(Refused::Listen)?.to_string();
        let running = CancellationToken::new();
        let accepting = Accepting {
            listener,
            upstream: spec.upstream.clone(),
            toxics: toxics.subscribe(),
            running: running.clone(),
            seed: self.seed,
        };
        tokio::spawn(accepting.run());
        Ok(running)
    }
}

struct Accepting {
    listener: TcpListener,
    upstream: String,
    toxics: watch::Receiver<Toxics>,
    running: CancellationToken,
    seed: u64,
}

impl Accepting {
    async fn run(self) {
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        for number in 0_u64.. {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.running.cancelled() => return,
            };
            let Ok((client, _address)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let connection = Connection {
                client,
                upstream: self.upstream.clone(),
                toxics: self.toxics.clone(),
                running: self.running.clone(),
                seed: self.seed.wrapping_add(number.wrapping_mul(2)),
            };
            tokio::spawn(async move {
                connection.run().await;
                drop(place);
            });
        }
    }
}

struct Connection {
    client: TcpStream,
    upstream: String,
    toxics: watch::Receiver<Toxics>,
    running: CancellationToken,
    seed: u64,
}

impl Connection {
    /// Both links, until both have ended, one is to be reset, or the proxy is disabled.
    async fn run(self) {
        let Self { mut client, upstream, toxics, running, seed } = self;
        let connected = tokio::select! {
            connected = connect(&upstream) => connected,
            () = running.cancelled() => return,
        };
        let Ok(mut server) = connected else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true)); // Slower, not wrong.
        let end = tokio::select! {
            end = links(&mut client, &mut server, &toxics, seed) => end,
            () = running.cancelled() => End::Closed,
        };
        if end == End::Reset {
            for stream in [&client, &server] {
                // Where it fails, the close is a gentle one.
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// Both directions. The halves are borrowed: owned ones would say a polite goodbye before a reset.
async fn links(
    client: &mut TcpStream,
    server: &mut TcpStream,
    toxics: &watch::Receiver<Toxics>,
    seed: u64,
) -> End {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = Link::new(Stream::Upstream, toxics.clone(), seed).run(from_client, to_server);
    let down = Link::new(Stream::Downstream, toxics.clone(), seed.wrapping_add(1));
    let down = down.run(from_server, to_client);
    tokio::pin!(up, down);
    tokio::select! {
        end = &mut up => if end == End::Done { down.await } else { end },
        end = &mut down => if end == End::Done { up.await } else { end },
    }
}

async fn connect(upstream: &str) -> io::Result<TcpStream> {
    let limit = Duration::from_secs(5);
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(upstream).await?.collect();
    let connecting = TcpStream::connect(addresses.as_slice());
    tokio::time::timeout(limit, connecting)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}
