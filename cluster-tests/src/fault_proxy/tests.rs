//! Each toxic on a real connection, through the HTTP interface.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Attributes, Kind, Proxies, Stream, Toxic, Toxiproxy, cut, healed, serve};

/// A server that sends back what it gets, the proxy before it, and the interface.
struct Fixture {
    toxiproxy: Toxiproxy,
    address: String,
}

impl Fixture {
    async fn start() -> Result<Self> {
        let echo = TcpListener::bind("127.0.0.1:0").await?;
        let upstream = echo.local_addr()?.to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let api = TcpListener::bind("127.0.0.1:0").await?;
        let toxiproxy = Toxiproxy::at(api.local_addr()?);
        tokio::spawn(serve(api, Proxies::new(7)));
        let made = toxiproxy.create("echo", "127.0.0.1:0", &upstream).await?;
        Ok(Self { toxiproxy, address: made.listen })
    }

    async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(&self.address).await?)
    }

    async fn add(&self, kind: Kind, stream: Stream, attributes: Attributes) -> Result<()> {
        self.toxiproxy.add("echo", &Toxic::new(kind, stream, attributes)).await
    }
}

/// Sends `bytes` and gives the time until all of them came back.
async fn echoed(stream: &mut TcpStream, bytes: &[u8]) -> Result<Duration> {
    let start = Instant::now();
    stream.write_all(bytes).await?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).await?;
    anyhow::ensure!(back == bytes, "other bytes came back");
    Ok(start.elapsed())
}

#[tokio::test]
async fn a_proxy_without_toxics_changes_nothing() -> Result<()> {
    let fixture = Fixture::start().await?;
    assert_eq!(fixture.toxiproxy.version().await?, "2.12.0");
    let mut stream = fixture.connect().await?;
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let (mut from, mut to) = stream.split();
    let sent = bytes.clone();
    let writing = async { to.write_all(&sent).await };
    let mut back = vec![0; bytes.len()];
    let (written, read) = tokio::join!(writing, from.read_exact(&mut back));
    written?;
    read?;
    assert_eq!(back, bytes);
    Ok(())
}

#[tokio::test]
async fn latency_delays_open_connections_until_it_is_removed() -> Result<()> {
    let fixture = Fixture::start().await?;
    let mut stream = fixture.connect().await?;
    assert!(echoed(&mut stream, b"quick").await? < Duration::from_millis(150));
    let slow = Attributes { latency: 200, jitter: 20, ..Attributes::default() };
    fixture.add(Kind::Latency, Stream::Upstream, slow).await?;
    assert!(echoed(&mut stream, b"slow").await? >= Duration::from_millis(180));
    fixture.toxiproxy.remove("echo", "latency_upstream").await?;
    assert!(echoed(&mut stream, b"quick").await? < Duration::from_millis(150));
    Ok(())
}

#[tokio::test]
async fn a_cut_link_stays_open_and_silent_in_one_direction_alone() -> Result<()> {
    let fixture = Fixture::start().await?;
    let mut stream = fixture.connect().await?;
    echoed(&mut stream, b"before").await?;
    fixture.toxiproxy.add("echo", &cut(Stream::Downstream)).await?;
    stream.write_all(b"lost").await?;
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(300), stream.read(&mut byte)).await.is_err());
    fixture.toxiproxy.remove("echo", &healed(Stream::Downstream)).await?;
    echoed(&mut stream, b"after").await?;
    Ok(())
}

#[tokio::test]
async fn a_timeout_closes_and_a_reset_resets() -> Result<()> {
    let fixture = Fixture::start().await?;
    let soon = Attributes { timeout: 50, ..Attributes::default() };
    fixture.add(Kind::Timeout, Stream::Upstream, soon).await?;
    let mut stream = fixture.connect().await?;
    stream.write_all(b"lost").await?;
    let mut byte = [0];
    let ended = timeout(Duration::from_secs(5), stream.read(&mut byte)).await?;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    fixture.toxiproxy.reset().await?;

    fixture.add(Kind::ResetPeer, Stream::Downstream, soon).await?;
    let mut stream = fixture.connect().await?;
    let ended = timeout(Duration::from_secs(5), stream.read(&mut byte)).await?;
    let kind = ended.err().map(|error| error.kind());
    assert_eq!(kind, Some(std::io::ErrorKind::ConnectionReset));
    Ok(())
}

#[tokio::test]
async fn slicer_bandwidth_and_data_limit_do_what_they_are_called() -> Result<()> {
    let fixture = Fixture::start().await?;
    let slices =
        Attributes { average_size: 10, size_variation: 5, delay: 100, ..Default::default() };
    fixture.add(Kind::Slicer, Stream::Upstream, slices).await?;
    let mut stream = fixture.connect().await?;
    echoed(&mut stream, &[7; 1_000]).await?;
    fixture.toxiproxy.reset().await?;

    let narrow = Attributes { rate: 20, ..Default::default() };
    fixture.add(Kind::Bandwidth, Stream::Downstream, narrow).await?;
    let took = echoed(&mut stream, &[8; 10_000]).await?;
    assert!(took >= Duration::from_millis(150), "10 KB at 20 KB/s took {took:?}");
    fixture.toxiproxy.reset().await?;

    let limit = Attributes { bytes: 100, ..Default::default() };
    fixture.add(Kind::LimitData, Stream::Downstream, limit).await?;
    let mut stream = fixture.connect().await?;
    stream.write_all(&[9; 500]).await?;
    let mut back = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut back)).await?;
    assert_eq!(back.len(), 100);
    Ok(())
}

#[tokio::test]
async fn a_disabled_proxy_refuses_and_comes_back_at_its_address() -> Result<()> {
    let fixture = Fixture::start().await?;
    let mut stream = fixture.connect().await?;
    echoed(&mut stream, b"before").await?;
    fixture.toxiproxy.set_enabled("echo", false).await?;
    let mut byte = [0];
    let ended = timeout(Duration::from_secs(5), stream.read(&mut byte)).await?;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    fixture.toxiproxy.set_enabled("echo", true).await?;
    let mut stream = fixture.connect().await?;
    echoed(&mut stream, b"after").await?;
    assert!(fixture.toxiproxy.proxies().await?["echo"].enabled);
    Ok(())
}

#[tokio::test]
async fn what_the_interface_does_not_know_is_refused_with_its_status() -> Result<()> {
    let fixture = Fixture::start().await?;
    let check = |outcome: Result<()>, status: &str| {
        let told = outcome.map_err(|error| format!("{error:#}")).err().unwrap_or_default();
        assert!(told.contains(&format!("answered {status}")), "{told}");
    };
    check(fixture.toxiproxy.remove("echo", "nothing").await, "404");
    check(fixture.toxiproxy.remove("nobody", "nothing").await, "404");
    let address = &fixture.address;
    check(fixture.toxiproxy.create("echo", "127.0.0.1:0", address).await.map(drop), "409");
    let twice = Toxic::new(Kind::Latency, Stream::Upstream, Attributes::default());
    fixture.toxiproxy.add("echo", &twice).await?;
    check(fixture.toxiproxy.add("echo", &twice).await, "409");
    Ok(())
}
