//! Clients that fill histories: what they do to documents, how fast, and how they end.
//!
//! ```text
//! let recorder = Arc::new(Recorder::default());
//! let nodes = Arc::new(Nodes::new(cluster.everywhere(Some(&cluster.administrator))?));
//! let load = Load::start(&nodes, &recorder, Plan::default(), seed);
//! recorder.mode("kill -9");            // faults come and go ...
//! recorder.mode("healthy");
//! let answers = load.finish().await?;  // ... the clients end,
//! settle(&nodes, &admins, &recorder, &answers).await?; // everything is read once more,
//! judge(&recorder.finish(), &gate).passed()?;          // and judged.
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | `client` | one client: sends a request to one node after the other until it is answered, and records it |
//! | `mix` | what a client does next: registers, conditional documents, batches |
//! | `slots` | documents in use; they are replaced before a search over them grows too large |
//! | `pace` | how fast all clients together go |
//! | [`settle()`] | what became of unknown writes, and the last state on every node |
//!
//! [`authorization`] fills the other kind of history: of rights that are given and taken.
//!
//! A client that got no answer asks the next node under the same request id. Where no node answers the outcome is unknown:
//! the client goes on under a new number, and [`settle()`] asks again in the end.

pub mod authorization;
mod client;
mod mix;
mod pace;
mod requests;
mod settle;
mod slots;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use parking_lot::{Mutex, RwLock};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinHandle;

pub use client::Unresolved;
pub use settle::settle;

use crate::{caller::Caller, history::Recorder};
use client::Client;
use pace::Pace;
use slots::Documents;

/// Who is spoken to: the same identity on every node. May change while clients work, as members come and go.
pub struct Nodes {
    callers: RwLock<Vec<Caller>>,
}

impl Nodes {
    /// One caller a node, in the order of the nodes.
    #[must_use]
    pub fn new(callers: Vec<Caller>) -> Self {
        Self { callers: RwLock::new(callers) }
    }

    /// Another caller for one node, or for one more node.
    pub fn set(&self, node: usize, caller: Caller) {
        let callers = &mut *self.callers.write();
        match callers.get_mut(node) {
            Some(old) => *old = caller,
            None => callers.push(caller),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.callers.read().len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The caller of a node, counted round and round.
    #[must_use]
    pub fn at(&self, node: usize) -> (usize, Caller) {
        let callers = self.callers.read();
        let at = node % callers.len().max(1);
        (at, callers[at].clone())
    }
}

/// What clients do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The database; every document of the run stands in it.
    pub database: String,
    /// What the ids of the run start with, so that several runs can use one database.
    pub prefix: String,
    /// Clients at work; also the most operations under way.
    pub clients: usize,
    /// Operations a second of all clients together; `None`: as fast as they are answered.
    pub operations_per_second: Option<f64>,
    /// Longest wait for one answer before the next node is asked.
    pub attempt_limit: Duration,
    /// Nodes that are asked before an outcome is unknown.
    pub attempts_max: usize,
    /// Operations on one document before another takes its place.
    pub operations_per_key: u32,
    /// How much of each kind.
    pub mix: Mix,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            database: "ledger".to_owned(),
            prefix: "h/".to_owned(),
            clients: 24,
            operations_per_second: None,
            attempt_limit: Duration::from_secs(1),
            attempts_max: 3,
            operations_per_key: 600,
            mix: Mix::default(),
        }
    }
}

/// Shares of what clients do; they need not add up to anything.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Unconditional puts, reads and stale reads of registers.
    pub registers: u32,
    /// Creations, writes by etag, deletions.
    pub conditional: u32,
    /// Batches over whole groups, and lists of them.
    pub batches: u32,
    /// Batches over parts of groups with deletions and conditions.
    pub mixed_batches: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { registers: 40, conditional: 30, batches: 20, mixed_batches: 10 }
    }
}

/// What all clients of a load share.
pub(crate) struct Shared {
    pub plan: Plan,
    pub nodes: Arc<Nodes>,
    pub recorder: Arc<Recorder>,
    pub documents: Documents,
    pub pace: Pace,
    pub stop: AtomicBool,
    /// Failed attempts by status code.
    pub failures: Mutex<BTreeMap<String, u64>>,
    pub unresolved: Mutex<Vec<Unresolved>>,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Result<()>>>,
}

/// What a load leaves.
pub struct Answers {
    /// Failed attempts by status code.
    pub failures: BTreeMap<String, u64>,
    /// Writes that nobody knows about.
    pub unresolved: Vec<Unresolved>,
    /// What was done.
    pub plan: Plan,
}

impl Load {
    /// Starts the clients of a plan; they choose by `seed`.
    #[must_use]
    pub fn start(nodes: &Arc<Nodes>, recorder: &Arc<Recorder>, plan: Plan, seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let shared = Arc::new(Shared {
            nodes: Arc::clone(nodes),
            recorder: Arc::clone(recorder),
            documents: Documents::new(&plan),
            pace: Pace::new(plan.operations_per_second),
            stop: AtomicBool::new(false),
            failures: Mutex::default(),
            unresolved: Mutex::default(),
            plan,
        });
        let clients = (0..shared.plan.clients)
            .map(|place| {
                let dice = StdRng::seed_from_u64(dice.random());
                let client = Client::new(place, Arc::clone(&shared), dice);
                tokio::spawn(client.work())
            })
            .collect();
        Self { shared, clients }
    }

    /// Another speed from now on.
    pub fn speed(&self, operations_per_second: Option<f64>) {
        self.shared.pace.set(operations_per_second);
    }

    /// Ends the load: each client finishes what it does.
    ///
    /// # Errors
    /// A client met what it cannot record.
    pub async fn finish(self) -> Result<Answers> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await??;
        }
        let failures = std::mem::take(&mut *self.shared.failures.lock());
        let unresolved = std::mem::take(&mut *self.shared.unresolved.lock());
        Ok(Answers { failures, unresolved, plan: self.shared.plan.clone() })
    }
}
