//! What is counted, and its text form for Prometheus.

use std::{fmt::Write as _, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use rookery_proto::cluster::v1::NodeStatus;
use tonic::Code;

use crate::edge::{
    expiry::{STATES, Survey},
    history::History,
    listener::Surface,
    rpcs::{Kind, Label},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    rpc: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    listener: &'static str,
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    operation: &'static str,
    /// "allowed", or the reason of the denial.
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Group {
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClearance {
    clearance: &'static str,
}

/// The counters of the edge. All labels come from fixed sets, except the names of groups.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    connections: Family<Listener, Gauge>,
    refused: Family<Failure, Counter>,
    decisions: Family<Decision, Counter>,
    applied: Family<Group, Gauge>,
    leader: Family<Group, Gauge>,
    fresh: Gauge,
    revision: Gauge,
    resident: Gauge,
    disk_free: Gauge,
    disk_full: Gauge,
    disk_reserve: Gauge,
    own_not_after: Gauge,
    certificates: Family<OfState, Gauge>,
    earliest_not_after: Family<OfClearance, Gauge>,
    /// The last hour, for people without Prometheus.
    pub history: History,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("rookery")),
            requests: Family::default(),
            seconds: Histogram::new(SECONDS),
            connections: Family::default(),
            refused: Family::default(),
            decisions: Family::default(),
            applied: Family::default(),
            leader: Family::default(),
            fresh: Gauge::default(),
            revision: Gauge::default(),
            resident: Gauge::default(),
            disk_free: Gauge::default(),
            disk_full: Gauge::default(),
            disk_reserve: Gauge::default(),
            own_not_after: Gauge::default(),
            certificates: Family::default(),
            earliest_not_after: Family::default(),
            history: History::default(),
        };
        metrics.register();
        metrics
    }
}

/// Upper bounds of the latency buckets in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock();
        registry.register(
            "requests",
            "Calls by RPC, and pages by area, by gRPC code",
            self.requests.clone(),
        );
        registry.register("request_seconds", "Time to the answer of a call", self.seconds.clone());
        registry.register("connections", "Open connections by listener", self.connections.clone());
        registry.register(
            "connections_refused",
            "Connections that ended before their first call, by cause",
            self.refused.clone(),
        );
        registry.register(
            "authorization_decisions",
            "Authorization decisions by operation and result",
            self.decisions.clone(),
        );
        registry.register("applied_index", "Last applied log index", self.applied.clone());
        registry.register("leader", "1 where this node leads the group", self.leader.clone());
        registry.register(
            "authorization_fresh",
            "1 while the registry is fresh enough to decide on",
            self.fresh.clone(),
        );
        registry.register("registry_revision", "Revision of the registry", self.revision.clone());
        registry.register("resident_bytes", "Resident memory", self.resident.clone());
        registry.register("disk_free_bytes", "Room for the data folder", self.disk_free.clone());
        registry.register(
            "disk_full",
            "1 while writes are refused for want of room",
            self.disk_full.clone(),
        );
        registry.register(
            "disk_reserve_held",
            "0 while the reserve for revocations is given up",
            self.disk_reserve.clone(),
        );
        registry.register(
            "node_certificate_not_after_seconds",
            "Last moment of this node's own certificate, Unix time",
            self.own_not_after.clone(),
        );
        registry.register(
            "registered_certificates",
            "Registered certificates by state",
            self.certificates.clone(),
        );
        registry.register(
            "certificate_earliest_not_after_seconds",
            "Last moment of the certificate in force that expires first, by clearance, Unix time",
            self.earliest_not_after.clone(),
        );
    }

    /// A request was answered. A page is counted as a page and nowhere else: what it asks of the services is counted as
    /// the calls that it makes.
    pub fn answered(&self, label: Label, code: Code, took: Duration) {
        self.requests.get_or_create(&Request { rpc: label.name, code: code_name(code) }).inc();
        match label.kind {
            Kind::Rpc => {
                self.seconds.observe(took.as_secs_f64());
                self.history.note(code, took);
            }
            Kind::Page | Kind::Other => {}
        }
    }

    /// A connection is open until the guard is dropped.
    #[must_use]
    pub fn connected(&self, surface: Surface) -> OpenConnection {
        let gauge = self.connections.get_or_create(&Listener { listener: surface.name() }).clone();
        gauge.inc();
        OpenConnection(gauge)
    }

    /// A connection ended before its first call.
    pub fn refused(&self, surface: Surface, why: &'static str) {
        self.refused.get_or_create(&Failure { listener: surface.name(), why }).inc();
    }

    /// A decision was made; `result` is "allowed" or the reason of the denial.
    pub fn decided(&self, operation: &'static str, result: &'static str) {
        self.decisions.get_or_create(&Decision { operation, result }).inc();
    }

    fn set_certificates(&self, status: &NodeStatus, survey: &Survey) {
        self.own_not_after.set(status.certificate_not_after_unix_ms.div_euclid(1_000));
        for (state, count) in STATES.iter().copied().zip(survey.by_state) {
            self.certificates.get_or_create(&OfState { state }).set(gauge_value(count));
        }
        self.earliest_not_after.clear(); // Without a certificate in force a clearance has no date.
        for (clearance, not_after) in &survey.earliest {
            let label = OfClearance { clearance: clearance.title() };
            self.earliest_not_after.get_or_create(&label).set(not_after.0.div_euclid(1_000));
        }
    }

    /// The text form, with the gauges as `status` and `survey` say.
    #[must_use]
    pub fn encode(&self, status: &NodeStatus, survey: &Survey) -> String {
        self.set_certificates(status, survey);
        self.fresh.set(i64::from(status.authorization_fresh));
        self.revision.set(gauge_value(status.registry_revision));
        self.resident.set(gauge_value(status.resident_bytes));
        self.disk_free.set(gauge_value(status.disk_free_bytes));
        self.disk_full.set(i64::from(status.disk_full));
        self.disk_reserve.set(i64::from(status.disk_reserve_held));
        self.applied.clear(); // Deleted databases.
        self.leader.clear();
        for group in &status.groups {
            let label = Group { group: told_to_anybody(group.group_id) };
            self.applied.get_or_create(&label).set(gauge_value(group.applied_index));
            self.leader.get_or_create(&label).set(i64::from(group.role == "leader"));
        }
        let mut page = String::new();
        if text::encode(&mut page, &self.registry.lock()).is_err() {
            page.clear();
            let _ = writeln!(page, "# the metrics could not be encoded"); // A String takes all.
        }
        page
    }
}

/// A group as nobody needs a right to know it: the names of databases stay within the cluster.
fn told_to_anybody(group: u64) -> String {
    if group == 0 { "cluster".to_owned() } else { format!("database {group}") }
}

/// Counts one open connection down when dropped.
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The code as gRPC writes it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
