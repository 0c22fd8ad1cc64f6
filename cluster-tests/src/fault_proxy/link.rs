//! One direction of one connection: bytes are read as they come, and written when the toxics let them.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{ReadHalf, WriteHalf},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::toxic::{Kind, Stream, Toxic};

/// Bytes read at once.
const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// Bytes that a link holds back before it stops reading; the sender then feels the slow link as TCP lets it.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its sender is done; the other direction goes on.
    Done,
    /// A side is gone, or a toxic closes the connection.
    Closed,
    /// To be reset: the other side shall see RST.
    Reset,
}

/// The toxics of a proxy, as they are now.
pub(super) type Toxics = Arc<Vec<Toxic>>;

pub(super) struct Link {
    stream: Stream,
    toxics: watch::Receiver<Toxics>,
    random: SmallRng,
    /// By the name of a toxic: whether this link has it.
    drawn: BTreeMap<String, bool>,
    passed: u64,
    began: Instant,
}

struct Held {
    bytes: Vec<u8>,
    due: Instant,
}

impl Link {
    pub(super) fn new(stream: Stream, toxics: watch::Receiver<Toxics>, seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        let began = Instant::now();
        Self { stream, toxics, random, drawn: BTreeMap::new(), passed: 0, began }
    }

    /// Copies until one side closes, or a toxic ends the link.
    pub(super) async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        match self.copy(&mut from, &mut to).await {
            Ok(end) => end,
            Err(_) => End::Closed, // One side is gone; the other is closed with it.
        }
    }

    async fn copy(&mut self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<End> {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let mut held: VecDeque<Held> = VecDeque::new();
        let mut held_bytes = 0;
        let mut open = true;
        loop {
            if let Some(end) = self.ended_by_toxic() {
                return Ok(end);
            }
            if !open && held.is_empty() {
                self.slow_close().await;
                to.shutdown().await?;
                return Ok(End::Done);
            }
            let next = held.front().map(|held| held.due);
            tokio::select! {
                read = from.read(&mut buffer), if open && held_bytes < HELD_BYTES_MAX => {
                    let count = read?;
                    open = count > 0;
                    if let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty())
                        && !self.swallows()
                    {
                        held_bytes += count;
                        held.push_back(Held { bytes: bytes.to_vec(), due: self.due() });
                    }
                }
                () = at(next) => {
                    if let Some(due) = held.pop_front() {
                        held_bytes -= due.bytes.len();
                        if let Some(end) = self.pass(&due.bytes, to).await? {
                            return Ok(end);
                        }
                    }
                }
                changed = self.toxics.changed() => {
                    if changed.is_err() {
                        return Ok(End::Closed); // The proxy is gone.
                    }
                }
                () = sleep(Duration::from_millis(20)), if self.has_deadline() => {}
            }
        }
    }

    /// The toxics of this link, in the order they were added.
    fn mine(&mut self) -> Vec<Toxic> {
        let all = Arc::clone(&self.toxics.borrow());
        let mut mine = Vec::new();
        for toxic in all.iter().filter(|toxic| toxic.stream == self.stream) {
            let has = match self.drawn.get(&toxic.name) {
                Some(has) => *has,
                None => {
                    let has = self.random.random::<f32>() < toxic.toxicity;
                    self.drawn.insert(toxic.name.clone(), has);
                    has
                }
            };
            if has {
                mine.push(toxic.clone());
            }
        }
        mine
    }

    fn of(&mut self, kind: Kind) -> Option<Toxic> {
        self.mine().into_iter().find(|toxic| toxic.kind == kind)
    }

    fn has_deadline(&mut self) -> bool {
        self.of(Kind::Timeout).is_some() || self.of(Kind::ResetPeer).is_some()
    }

    fn ended_by_toxic(&mut self) -> Option<End> {
        let age = self.began.elapsed();
        let over = |toxic: &Toxic| age >= Duration::from_millis(toxic.attributes.timeout);
        if self.of(Kind::ResetPeer).is_some_and(|toxic| over(&toxic)) {
            return Some(End::Reset);
        }
        let closes = |toxic: Toxic| toxic.attributes.timeout > 0 && over(&toxic);
        self.of(Kind::Timeout).is_some_and(closes).then_some(End::Closed)
    }

    /// A timed out link takes data and gives none of it on.
    fn swallows(&mut self) -> bool {
        self.of(Kind::Timeout).is_some()
    }

    fn due(&mut self) -> Instant {
        let mut delay = 0_i64;
        for toxic in self.mine().iter().filter(|toxic| toxic.kind == Kind::Latency) {
            let jitter = i64::try_from(toxic.attributes.jitter).unwrap_or(i64::MAX / 4);
            let around = if jitter == 0 { 0 } else { self.random.random_range(-jitter..=jitter) };
            delay += i64::try_from(toxic.attributes.latency).unwrap_or(i64::MAX / 4) + around;
        }
        Instant::now() + Duration::from_millis(u64::try_from(delay).unwrap_or(0))
    }

    async fn slow_close(&mut self) {
        if let Some(toxic) = self.of(Kind::SlowClose) {
            sleep(Duration::from_millis(toxic.attributes.delay)).await;
        }
    }

    /// Writes a chunk as slicer, bandwidth and data limit allow.
    async fn pass(&mut self, bytes: &[u8], to: &mut WriteHalf<'_>) -> io::Result<Option<End>> {
        let mut slicer = self.of(Kind::Slicer).map(|toxic| toxic.attributes);
        let mut rate = self.of(Kind::Bandwidth).map(|toxic| toxic.attributes.rate.max(1));
        let mut rest = bytes;
        while !rest.is_empty() {
            // A toxic that was taken away lets go of the chunk it had in hand, as Toxiproxy's do.
            if self.toxics.has_changed().unwrap_or(true) {
                slicer = self.of(Kind::Slicer).map(|toxic| toxic.attributes);
                rate = self.of(Kind::Bandwidth).map(|toxic| toxic.attributes.rate.max(1));
            }
            let size = slicer.map_or(rest.len(), |slicer| {
                let spread = slicer.size_variation.min(slicer.average_size);
                let low = slicer.average_size.saturating_sub(spread).max(1);
                let size = self.random.random_range(low..=slicer.average_size.max(1) + spread);
                usize::try_from(size).unwrap_or(usize::MAX).min(rest.len())
            });
            let (piece, after) = rest.split_at(size);
            rest = after;
            if let Some(end) = self.limited(piece, to).await? {
                return Ok(Some(end));
            }
            if let Some(rate) = rate {
                // KB as the interface counts them: 1,000 bytes.
                sleep(Duration::from_micros(piece.len() as u64 * 1_000 / rate)).await;
            }
            if let Some(slicer) = slicer.filter(|slicer| slicer.delay > 0) {
                sleep(Duration::from_micros(slicer.delay)).await;
            }
        }
        Ok(None)
    }

    async fn limited(&mut self, piece: &[u8], to: &mut WriteHalf<'_>) -> io::Result<Option<End>> {
        let Some(limit) = self.of(Kind::LimitData).map(|toxic| toxic.attributes.bytes) else {
            to.write_all(piece).await?;
            self.passed += piece.len() as u64;
            return Ok(None);
        };
        let left = usize::try_from(limit.saturating_sub(self.passed)).unwrap_or(usize::MAX);
        let allowed = piece.get(..left.min(piece.len())).unwrap_or_default();
        to.write_all(allowed).await?;
        self.passed += allowed.len() as u64;
        Ok((self.passed >= limit).then_some(End::Closed))
    }
}

/// At a moment; never where there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
