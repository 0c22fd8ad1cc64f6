//! `rookery bench`: puts load on a cluster through the client library and measures it.
//!
//! Closed loop: each client sends its next call when the last one is answered. Open loop (`--rate`): calls are due at fixed
//! times, and a latency counts from when the call was due, so that a stall is not hidden by the clients that wait in it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use rookery_client::{Client, Error, proto::document::v1 as proto};
use serde_json::{Value, json};

use super::{Failed, Result, Row, Session, duration};

/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Ticks a second of the times in `/proc/<pid>/stat`: fixed in Linux's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// Documents a batch while the keys are written.
const PRELOAD_BATCH: u64 = 500;

/// `rookery bench`
#[derive(Debug, Clone, Args)]
pub(super) struct Bench {
    /// The database; it must exist
    database: String,
    /// What to do
    #[arg(long, value_enum, default_value_t = Op::Put)]
    op: Op,
    /// Bytes of a document
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=4_000_000))]
    size: u32,
    /// Clients that send at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: u16,
    /// Connections that they share
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// How long
    #[arg(long, value_parser = duration, default_value = "10s", conflicts_with = "count")]
    duration: Duration,
    /// How many operations, instead of how long
    #[arg(long)]
    count: Option<u64>,
    /// Operations a second that are due, whatever the answers (open loop)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Different documents
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
    /// Read the node's own copy, which may be old
    #[arg(long)]
    stale: bool,
    /// Processes whose CPU time is counted, such as the nodes'
    #[arg(long, value_delimiter = ',', value_name = "PID,…")]
    pid: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Op {
    /// Write documents
    Put,
    /// Read documents
    Get,
    /// Half of each
    Mixed,
}

/// When the run ends, and who takes the next operation.
struct Course {
    started: Instant,
    until: Option<Instant>,
    count: Option<u64>,
    rate: Option<f64>,
    taken: AtomicU64,
}

impl Course {
    /// The number of the next operation and when it is due; `None` at the end.
    fn next(&self) -> Option<(u64, Instant)> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if self.count.is_some_and(|count| number >= count) {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // Due times of a load generator.
        let due = match self.rate {
            Some(rate) => self.started + Duration::from_secs_f64(number as f64 / rate),
            None => Instant::now(),
        };
        (self.until.is_none_or(|until| due < until)).then_some((number, due))
    }
}

/// What one client saw.
struct Seen {
    latencies: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    ended: Instant,
}

impl Bench {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        let client = session.client()?;
        if self.op != Op::Put {
            self.preload(&client).await?;
        }
        let connections: Vec<Client> =
            (0..self.connections).map(|_| client.with_own_connections()).collect();
        let cpu_before = self.cpu_seconds()?;
        let started = Instant::now();
        let course = Arc::new(Course {
            started,
            until: self.count.is_none().then(|| started + self.duration),
            count: self.count,
            rate: self.rate.map(f64::from),
            taken: AtomicU64::new(0),
        });
        let mut tasks = tokio::task::JoinSet::new();
        for (number, client) in (0..self.clients).zip(connections.iter().cycle()) {
            let (bench, client, course) = (self.clone(), client.clone(), Arc::clone(&course));
            // Clients on one connection start at different nodes of the context.
            let client = spread(&client, usize::from(number));
            tasks.spawn(async move { bench.work(client, &course).await });
        }
        let mut all = seen()?;
        while let Some(one) = tasks.join_next().await {
            let one = one.map_err(|e| Failed::unexpected(e.to_string()))??;
            all.latencies.add(&one.latencies).map_err(|e| Failed::unexpected(e.to_string()))?;
            all.ended = all.ended.max(one.ended);
            for (kind, count) in one.errors {
                *all.errors.entry(kind).or_default() += count;
            }
        }
        let cpu = self.cpu_seconds()? - cpu_before;
        session.out.one("operations_per_second", &self.report(&all, started, cpu))
    }

    async fn work(self, client: Client, course: &Course) -> Result<Seen> {
        let mut seen = seen()?;
        while let Some((number, due)) = course.next() {
            tokio::time::sleep_until(due.into()).await;
            match self.operation(&client, number).await {
                Ok(()) => {
                    let us = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                    seen.latencies.saturating_record(us.max(1));
                }
                Err(e) => {
                    let kind = if e.reason().is_empty() { e.kind() } else { e.reason() };
                    *seen.errors.entry(kind.to_owned()).or_default() += 1;
                }
            }
            seen.ended = Instant::now();
        }
        Ok(seen)
    }

    async fn operation(&self, client: &Client, number: u64) -> std::result::Result<(), Error> {
        // A multiplicative step, so that neighbours in time are not neighbours in the key order.
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.keys;
        let reads = match self.op {
            Op::Put => false,
            Op::Get => true,
            Op::Mixed => number.is_multiple_of(2),
        };
        let database = self.database.clone();
        if reads {
            let request = proto::GetDocumentRequest { database, id: id(key), stale_ok: self.stale };
            client.get_document(request).await.map(drop)
        } else {
            client.put(&database, &id(key), "Bench", self.document(number)).await.map(drop)
        }
    }

    fn document(&self, number: u64) -> Vec<u8> {
        let start = format!("{{\"n\":{number},\"pad\":\"");
        let pad = (self.size as usize).saturating_sub(start.len() + 2);
        format!("{start}{}\"}}", "x".repeat(pad)).into_bytes()
    }

    async fn preload(&self, client: &Client) -> Result<()> {
        let mut key = 0;
        while key < self.keys {
            let end =
                (key + PRELOAD_BATCH.min(1 + 4_000_000 / u64::from(self.size))).min(self.keys);
            let write = |key: u64| proto::Write {
                id: id(key),
                precondition: None,
                operation: Some(proto::write::Operation::Put(proto::PutWrite {
                    collection: "Bench".to_owned(),
                    json: self.document(key),
                })),
            };
            let request = proto::BatchWriteRequest {
                database: self.database.clone(),
                writes: (key..end).map(write).collect(),
                request_id: String::new(),
            };
            client.batch_write(request).await?;
            key = end;
        }
        Ok(())
    }

    /// CPU time of the processes so far, user and system.
    fn cpu_seconds(&self) -> Result<f64> {
        let mut sum = 0.0;
        for pid in &self.pid {
            let path = format!("/proc/{pid}/stat");
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Failed::file(std::path::Path::new(&path), &e))?;
            sum += ticks(&text).ok_or_else(|| Failed::unexpected(format!("{path} is odd")))?
                / TICKS_PER_SECOND;
        }
        Ok(sum)
    }

    fn report(&self, seen: &Seen, started: Instant, cpu_seconds: f64) -> Row {
        let operations = seen.latencies.len();
        let seconds = seen.ended.saturating_duration_since(started).as_secs_f64().max(1e-9);
        #[allow(clippy::cast_precision_loss)] // Rates for people.
        let count = operations as f64;
        let errors: u64 = seen.errors.values().sum();
        let row = Row::new()
            .with("op", format!("{:?}", self.op).to_lowercase())
            .with("loop", if self.rate.is_some() { "open" } else { "closed" })
            .with("rate", self.rate.map_or(Value::Null, Value::from))
            .with("clients", self.clients)
            .with("connections", self.connections)
            .with("size", self.size)
            .with("seconds", rounded(seconds))
            .with("operations", operations)
            .with("errors", errors)
            .with("errors_by_reason", json!(seen.errors))
            .with("operations_per_second", rounded(count / seconds))
            .with("latency_us", latencies(&seen.latencies));
        if self.pid.is_empty() || operations == 0 {
            return row;
        }
        row.with("cpu_seconds", rounded(cpu_seconds))
            .with("cpu_seconds_per_1000", rounded(cpu_seconds * 1000.0 / count))
    }
}

fn spread(client: &Client, number: usize) -> Client {
    let addresses = client.addresses();
    match addresses.get(number % addresses.len().max(1)) {
        Some(address) if addresses.len() > 1 => client.preferring(address),
        Some(_) | None => client.clone(),
    }
}

fn seen() -> Result<Seen> {
    let latencies = Histogram::new_with_max(LATENCY_US_MAX, 3)
        .map_err(|e| Failed::unexpected(format!("no histogram: {e}")))?;
    Ok(Seen { latencies, errors: BTreeMap::new(), ended: Instant::now() })
}

fn id(key: u64) -> String {
    format!("bench/{key:08}")
}

fn latencies(histogram: &Histogram<u64>) -> Value {
    json!({
        "mean": rounded(histogram.mean()),
        "p50": histogram.value_at_quantile(0.50),
        "p90": histogram.value_at_quantile(0.90),
        "p99": histogram.value_at_quantile(0.99),
        "p999": histogram.value_at_quantile(0.999),
        "max": histogram.max(),
    })
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// User and system ticks of a line of `/proc/<pid>/stat` (proc(5)); the program's name may hold blanks and brackets.
fn ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn cpu_ticks_are_read_past_odd_names() {
        let line = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(line), Some(150.0));
        assert_eq!(ticks("42"), None);
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(ticks(&own).is_some());
    }

    #[test]
    fn an_open_loop_ends_by_due_time_and_a_closed_one_by_count() {
        let started = Instant::now();
        let course =
            |count, rate, until| Course { started, until, count, rate, taken: AtomicU64::new(0) };
        let open = course(None, Some(10.0), Some(started + Duration::from_millis(450)));
        let due: Vec<u128> = std::iter::from_fn(|| open.next())
            .map(|(_, due)| (due - started).as_millis())
            .collect();
        assert_eq!(due, [0, 100, 200, 300, 400]);
        let closed = course(Some(3), None, None);
        assert_eq!(std::iter::from_fn(|| closed.next()).count(), 3);
    }
}
