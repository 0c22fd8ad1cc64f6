//! Canaries and probes: small clients of each node that write, read and ask for the state all the time, so that it is
//! known afterwards when writes succeeded, who served, and which state each node had at which log position.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::error::Elapsed};
use tonic::{Code, Status, TimeoutExpired};

use super::arena::{Arena, DATABASE, MEMBERS};
use crate::{
    caller::{Caller, put_request},
    cluster::{HEAL_LIMIT, local_status},
    probes::{Call, Target},
};

/// The deadline of a canary's write.
const CANARY_LIMIT: Duration = Duration::from_secs(1);
/// How long after its deadline a canary waits for the end of its write.
const CANARY_MARGIN: Duration = Duration::from_secs(1);
const CANARY_PAUSE: Duration = Duration::from_millis(25);
/// Documents that the canaries of one node write over and over.
const CANARY_DOCUMENTS: u64 = 20;
/// Longest time that a node may take to refuse a call without a deadline, on a machine that does other things too.
pub const REFUSAL_LIMIT: Duration = Duration::from_secs(6);
const PROBE_PAUSE: Duration = Duration::from_millis(120);
/// What probes call, without a deadline. All of them wait for a fresh registry; the write, which canaries make with a
/// deadline, shows that it is refused without one too.
const PROBES: [Call; 4] = [Call::Read, Call::StaleRead, Call::Write, Call::Topology];
/// The document that probes read.
pub const PLANTED: &str = "planted";
const STATE_PAUSE: Duration = Duration::from_millis(50);
/// Log positions whose hashes are kept.
const STATES_MAX: usize = 100_000;
/// Longest wait for one look whether a node is ready: a write, a read and its status. How fast it is then is not asked.
const READY_LOOK_LIMIT: Duration = Duration::from_secs(4);
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Times the limit of L2 after which it is not waited for any longer.
const GIVE_UP: u32 = 4;

/// One request and what became of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The node that was asked.
    pub node: usize,
    /// Before it was sent.
    pub start: Instant,
    /// After the answer came, or the client gave up.
    pub end: Instant,
    /// What the client was told.
    pub told: Told,
    /// What was asked.
    pub call: Call,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It was served.
    Served,
    /// The node answered with this code.
    Refused(Code),
    /// The deadline that the client had set passed on the client's side first.
    TooLate,
    /// The connection failed: nobody answered.
    Broken,
    /// No answer came within the client's limit, which is longer than any deadline that it set.
    Nothing,
}

impl Told {
    fn of<T>(outcome: &Result<Result<T, Status>, Elapsed>) -> Self {
        match outcome {
            Ok(Ok(_)) => Self::Served,
            Ok(Err(status)) => Self::of_status(status),
            Err(_) => Self::Nothing,
        }
    }

    /// A status that a node sent has no cause on this side; one that the client made of a failure has.
    fn of_status(status: &Status) -> Self {
        let mut cause = std::error::Error::source(status);
        if cause.is_none() {
            return Self::Refused(status.code());
        }
        while let Some(error) = cause {
            if error.is::<TimeoutExpired>() {
                return Self::TooLate;
            }
            cause = error.source();
        }
        Self::Broken
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Writes of the canaries, acknowledged or not.
    pub writes: Mutex<Vec<Asked>>,
    /// Answers to the probes.
    pub probes: Mutex<Vec<Asked>>,
    /// Log positions at which more than one node told its hash.
    states: Mutex<States>,
}

#[derive(Debug, Default)]
struct States {
    /// By group and applied index: who told which hash first.
    hashes: BTreeMap<(u64, u64), (usize, String)>,
    compared: u64,
    differ: Vec<(Instant, String)>,
}

impl States {
    fn note(&mut self, node: usize, group: (u64, u64), hash: String) {
        match self.hashes.get(&group) {
            None => {
                self.hashes.insert(group, (node, hash));
            }
            Some((first, _)) if *first == node => {}
            Some((_, known)) if *known == hash => self.compared += 1,
            Some((first, known)) => {
                let (first, node) = (first + 1, node + 1);
                let what = format!(
                    "group {} at index {}: n{first} has {known:.12}, n{node} has {hash:.12}",
                    group.0, group.1
                );
                // A node that stays at an index says the same again and again.
                if self.differ.last().is_none_or(|(_, last)| *last != what) {
                    self.differ.push((Instant::now(), what));
                }
            }
        }
        if self.hashes.len() > STATES_MAX {
            self.hashes.pop_first();
        }
    }
}

/// The clients at work. They end when this is dropped.
pub struct Watch {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Starts them on the original members, as the administrator.
    ///
    /// # Errors
    /// The planted document cannot be written.
    pub async fn start(arena: &Arena) -> Result<Self> {
        let callers = arena.admins()?;
        callers[0].put(DATABASE, PLANTED, "{}").await.context("the planted document")?;
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let mut tasks = Vec::new();
        for node in 0..MEMBERS {
            // A connection each: none waits behind another.
            tasks.push(tokio::spawn(canary(
                node,
                arena.cluster.admin(node)?,
                seen.clone(),
                stop.clone(),
            )));
            for call in PROBES {
                let caller = arena.cluster.admin(node)?;
                tasks.push(tokio::spawn(probe(node, call, caller, seen.clone(), stop.clone())));
            }
            tasks.push(tokio::spawn(states(
                node,
                arena.cluster.admin(node)?,
                seen.clone(),
                stop.clone(),
            )));
        }
        Ok(Self { seen, stop, tasks })
    }

    /// What has been seen until now.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Ends the clients, and gives what they saw.
    ///
    /// # Errors
    /// One of them panicked.
    pub async fn finish(mut self) -> Result<Arc<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await?;
        }
        Ok(Arc::clone(&self.seen))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Seen {
    /// How often two nodes were at the same index of a group, and where their states differed.
    #[must_use]
    pub fn states(&self) -> (u64, Vec<(Instant, String)>) {
        let states = self.states.lock();
        (states.compared, states.differ.clone())
    }

    #[cfg(test)]
    pub(super) fn note_for_tests(&self, node: usize, group: (u64, u64), hash: &str) {
        self.states.lock().note(node, group, hash.to_owned());
    }
}

async fn canary(node: usize, caller: Caller, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    for count in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("canary/{node}/{}", count % CANARY_DOCUMENTS);
        let mut request =
            tonic::Request::new(put_request(DATABASE, &id, &format!("{{\"count\":{count}}}")));
        request.set_timeout(CANARY_LIMIT);
        let start = Instant::now();
        let mut documents = caller.documents();
        let answer = documents.put_document(request);
        let answer = tokio::time::timeout(CANARY_LIMIT + CANARY_MARGIN, answer).await;
        let (end, told, call) = (Instant::now(), Told::of(&answer), Call::Write);
        seen.writes.lock().push(Asked { node, start, end, told, call });
        tokio::time::sleep(CANARY_PAUSE).await;
    }
}

async fn probe(node: usize, call: Call, caller: Caller, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let target = Target { database: DATABASE, id: PLANTED };
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = tokio::time::timeout(REFUSAL_LIMIT, call.make(&caller, target)).await;
        let (end, told) = (Instant::now(), Told::of(&answer));
        seen.probes.lock().push(Asked { node, start, end, told, call });
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}

async fn states(node: usize, caller: Caller, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let status = tokio::time::timeout(CANARY_LIMIT, local_status(&caller)).await;
        if let Ok(Ok(status)) = status {
            let mut states = seen.states.lock();
            for group in status.groups {
                states.note(node, (group.group_id, group.applied_index), group.state_hash);
            }
        }
        tokio::time::sleep(STATE_PAUSE).await;
    }
}

/// What became of waiting for all nodes.
#[derive(Debug)]
pub struct Ready {
    /// From the end of the faults until the last node was ready; `None`: not within four times the limit.
    pub after: Option<Duration>,
    /// What nodes that were late said of themselves meanwhile.
    pub notes: Vec<String>,
}

/// Waits until every original member serves reads and writes and knows a leader of each group (contract L2), at most
/// four times the limit: later, the time is not even known.
///
/// # Errors
/// The key of the administrator cannot be loaded.
pub async fn all_ready(arena: &Arena, since: Instant) -> Result<Ready> {
    let callers = arena.admins()?;
    let waits = callers.iter().enumerate().map(|(node, caller)| ready(node, caller, since));
    let outcomes = futures::future::join_all(waits).await;
    let is_ready = outcomes.iter().all(|(is_ready, _)| *is_ready);
    let notes = outcomes.into_iter().flat_map(|(_, notes)| notes).collect();
    Ok(Ready { after: is_ready.then(|| since.elapsed()), notes })
}

async fn ready(node: usize, caller: &Caller, since: Instant) -> (bool, Vec<String>) {
    let mut notes = Vec::new();
    let mut next_note = HEAL_LIMIT / 2;
    while since.elapsed() < GIVE_UP * HEAL_LIMIT {
        let mut doing = "status";
        let asked =
            tokio::time::timeout(READY_LOOK_LIMIT, is_ready(node, caller, &mut doing)).await;
        let why = match asked {
            Ok(Ok(())) => return (true, notes),
            Ok(Err(why)) => format!("{why:#}"),
            Err(_) => format!("no answer within {READY_LOOK_LIMIT:?}"),
        };
        if since.elapsed() > next_note {
            next_note += HEAL_LIMIT / 5;
            let told = tokio::time::timeout(CANARY_LIMIT, progress(caller)).await;
            let told = told.unwrap_or_else(|_| "no status".to_owned());
            let after = since.elapsed().as_secs_f64();
            notes.push(format!("n{} after {after:.1} s, {doing}: {why}; {told}", node + 1));
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
    (false, notes)
}

async fn is_ready(node: usize, caller: &Caller, doing: &mut &'static str) -> Result<()> {
    let status = local_status(caller).await?;
    anyhow::ensure!(status.authorization_fresh, "its registry is not fresh");
    let leaderless = status.groups.iter().find(|group| group.leader_id == 0);
    anyhow::ensure!(leaderless.is_none(), "it knows no leader of a group");
    *doing = "write";
    caller.put(DATABASE, &format!("canary/{node}/ready"), "{}").await?;
    *doing = "read";
    caller.get(DATABASE, PLANTED).await?;
    Ok(())
}

/// How far a node is, by its own account.
async fn progress(caller: &Caller) -> String {
    let Ok(status) = local_status(caller).await else { return "no status".to_owned() };
    let of = |group: &rookery_proto::cluster::v1::GroupStatus| {
        format!(
            "{} {} of n{} term {}: log {}, committed {}, applied {}, snapshot {}",
            group.group,
            group.role,
            group.leader_id,
            group.term,
            group.last_log_index,
            group.committed_index,
            group.applied_index,
            group.snapshot_index
        )
    };
    status.groups.iter().map(of).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::connection;

    #[tokio::test]
    async fn a_refusal_is_told_from_a_deadline_and_from_a_connection_that_failed() {
        let sent = |code| Told::of_status(&Status::new(code, "told by a node"));
        assert_eq!(sent(Code::Unavailable), Told::Refused(Code::Unavailable));
        assert_eq!(sent(Code::Internal), Told::Refused(Code::Internal));
        let of = |error| Told::of_status(&Status::from_error(error));
        assert_eq!(of(Box::new(TimeoutExpired(()))), Told::TooLate);
        assert_eq!(of(Box::new(std::io::Error::other("reset"))), Told::Broken);
        // What the real client makes of a port at which nobody listens, and of one at which nobody answers.
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = port.local_addr().unwrap();
        assert_eq!(asked(address).await, Told::Nothing); // A deadline counts from the connection on.
        drop(port);
        assert_eq!(asked(address).await, Told::Broken);
    }

    async fn asked(address: std::net::SocketAddr) -> Told {
        let identity = crate::identity::Identity::new("n1").unwrap();
        let caller =
            Caller { channel: connection::channel(address, identity.leaf(), None).unwrap() };
        let mut request = tonic::Request::new(put_request(DATABASE, "a", "{}"));
        request.set_timeout(CANARY_LIMIT / 10);
        Told::of(
            &tokio::time::timeout(CANARY_LIMIT, caller.documents().put_document(request)).await,
        )
    }
}
