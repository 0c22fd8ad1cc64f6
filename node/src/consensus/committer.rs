//! Writes the logs of all groups: one thread, one write, one fsync for whatever waits at that moment (group commit).
//!
//! ```text
//! group 0  append, vote ─┐
//! group 7  append ───────┼─> bounded queue ─> committer ─> one batch, synced ─> sentinel ─> answers, in order
//! group 9  purge ────────┘
//! ```
//!
//! 1. It takes the first job and all that are there already, up to a bound. Nothing waits for a timer, so an append that
//!    comes alone is written at once, and appends that come during an fsync share the next one.
//! 2. Before a log is cut, the sentinel learns durably that it will be shorter.
//! 3. All changes go into one batch; it is synced unless nobody in it asked for that. A cut begins a batch of its own.
//! 4. The sentinel learns where the logs end now.
//! 5. The answers are given in the order of the jobs.
//!
//! The first error is final: nothing is written after it, every job that waits or comes is answered with an error, and
//! the node is told to end. An fsync that is repeated after a failure proves nothing.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use parking_lot::Mutex;
use rookery_proto::log::v1::SentinelGroup;
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, error::TryRecvError},
};

use crate::{
    fault::fault_point,
    limits,
    storage::{self, Batch, Change, Durability, Sentinel, Store},
};

/// Told how long each log is, to find one that was cut while the node was away.
pub trait Watermarks: Send + 'static {
    /// These logs will be cut to the length given here; returns when that is durable.
    ///
    /// # Errors
    /// Final for the node.
    fn before_cut(&mut self, groups: Vec<SentinelGroup>) -> storage::Result<()>;

    /// These logs are synced up to the length given here.
    ///
    /// # Errors
    /// Final for the node.
    fn synced(&mut self, groups: Vec<SentinelGroup>) -> storage::Result<()>;
}

impl Watermarks for Arc<Sentinel> {
    fn before_cut(&mut self, groups: Vec<SentinelGroup>) -> storage::Result<()> {
        self.record_durably(groups)
    }

    fn synced(&mut self, groups: Vec<SentinelGroup>) -> storage::Result<()> {
        self.record(groups)
    }
}

/// What a job does to the length of its log.
#[derive(Debug)]
pub(super) enum Mark {
    /// Nothing that the sentinel must know.
    None,
    /// The log ends where it did; its vote is this one once the job is synced.
    Voted(SentinelGroup),
    /// The log ends here once the job is synced.
    Appended(SentinelGroup),
    /// The log is cut to end here.
    Cut(SentinelGroup),
}

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Changes of one group's log.
pub(super) struct Job {
    pub(super) changes: Vec<Change>,
    pub(super) durability: Durability,
    pub(super) mark: Mark,
    /// Called from the committer's thread once the changes are as durable as asked for, or never will be.
    pub(super) done: Done,
}

struct Queued {
    job: Job,
    bytes: usize,
    room: OwnedSemaphorePermit,
}

/// The node's one writer of logs. Ends, with its thread, when the last handle is dropped.
pub struct Committer {
    queue: Option<mpsc::Sender<Queued>>,
    /// Room in the queue, in KiB.
    room: Arc<Semaphore>,
    failure: Arc<OnceLock<String>>,
    /// Since when the thread waits for the disk; `None` while it has nothing to write.
    writing: Arc<Mutex<Option<Instant>>>,
    /// Bytes of recent entries that the logs keep in memory.
    cached_bytes: AtomicUsize,
    thread: Option<JoinHandle<()>>,
}

const KIB: usize = 1024;
const QUEUE_KIB_MAX: usize = limits::COMMIT_QUEUE_BYTES_MAX / KIB;

impl Committer {
    /// Starts the thread. `on_fatal` is called at most once, from that thread: the process must end then.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn start(
        store: Arc<dyn Store>,
        watermarks: impl Watermarks,
        on_fatal: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let (queue, jobs) = mpsc::channel(limits::COMMIT_QUEUE_JOBS_MAX);
        let failure = Arc::new(OnceLock::new());
        let mut writer = Writer {
            store,
            watermarks: Box::new(watermarks),
            alarm: Alarm { failure: Arc::clone(&failure), on_fatal: Some(Box::new(on_fatal)) },
            writing: Arc::default(),
        };
        let writing = Arc::clone(&writer.writing);
        let thread =
            thread::Builder::new().name("committer".to_owned()).spawn(move || writer.run(jobs))?;
        Ok(Arc::new(Self {
            queue: Some(queue),
            room: Arc::new(Semaphore::new(QUEUE_KIB_MAX)),
            failure,
            writing,
            cached_bytes: AtomicUsize::new(0),
            thread: Some(thread),
        }))
    }

    /// Why nothing is written any more; `None` while all is well.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Since when the write that is under way waits for the disk.
    #[must_use]
    pub fn writing_since(&self) -> Option<Instant> {
        *self.writing.lock()
    }

    /// Jobs that wait to be written, for metrics.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    /// Queues a job behind all earlier ones; waits while the queue is full.
    pub(super) async fn submit(&self, job: Job) -> io::Result<()> {
        let bytes = job.changes.iter().map(bytes_of).sum::<usize>();
        let kib = (bytes / KIB + 1).min(QUEUE_KIB_MAX);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let stopped = || io::Error::other(self.failure().unwrap_or("the committer has stopped"));
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| stopped())?;
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Queued { job, bytes, room }).await.map_err(|_| stopped())
    }

    /// Waits until all that was queued before this call is written.
    pub(super) async fn drained(&self) -> io::Result<()> {
        let (written, heard) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| drop(written.send(result))); // Nobody may wait any more.
        let (changes, mark) = (Vec::new(), Mark::None);
        self.submit(Job { changes, durability: Durability::Buffered, mark, done }).await?;
        heard.await.map_err(|_| io::Error::other("the committer has stopped"))?
    }

    pub(super) fn cached_bytes(&self) -> &AtomicUsize {
        &self.cached_bytes
    }

    /// Whether the logs keep more in memory than they should.
    pub(super) fn cache_is_full(&self) -> bool {
        self.cached_bytes.load(Ordering::Relaxed) > limits::LOG_CACHE_BYTES_MAX
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue = None;
        // The last handle may go with a log that the thread itself drops.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic of the thread has been told by its alarm.
            let _ = thread.join();
        }
    }
}

fn bytes_of(change: &Change) -> usize {
    match change {
        Change::Put(_, key, value) => key.len() + value.len(),
        Change::Delete(_, key) => key.len(),
        Change::DeleteRange(_, from, to) => from.len() + to.as_ref().map_or(0, Vec::len),
    }
}

/// Tells of the first failure, also of a panic: without the committer nothing is ever acknowledged.
struct Alarm {
    failure: Arc<OnceLock<String>>,
    on_fatal: Option<Box<dyn FnOnce(String) + Send>>,
}

impl Alarm {
    fn raise(&mut self, why: String) {
        if self.failure.set(why.clone()).is_ok()
            && let Some(on_fatal) = self.on_fatal.take()
        {
            on_fatal(why);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.raise("the committer panicked".to_owned());
        }
    }
}

struct Writer {
    store: Arc<dyn Store>,
    watermarks: Box<dyn Watermarks>,
    alarm: Alarm,
    writing: Arc<Mutex<Option<Instant>>>,
}

impl Writer {
    fn run(&mut self, mut jobs: mpsc::Receiver<Queued>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut run = vec![first];
            drain(&mut jobs, &mut run);
            let (jobs, rooms): (Vec<_>, Vec<_>) =
                run.into_iter().map(|queued| (queued.job, queued.room)).unzip();
            *self.writing.lock() = Some(Instant::now());
            self.commit(jobs);
            *self.writing.lock() = None;
            drop(rooms);
        }
    }

    fn commit(&mut self, mut jobs: Vec<Job>) {
        while !jobs.is_empty() {
            // A cut begins a write of its own: what the sentinel says of it must be on the disk already.
            let cut = jobs.iter().skip(1).position(|job| matches!(job.mark, Mark::Cut(_)));
            let later = cut.map(|at| jobs.split_off(at + 1)).unwrap_or_default();
            self.commit_together(std::mem::replace(&mut jobs, later));
        }
    }

    fn commit_together(&mut self, jobs: Vec<Job>) {
        let (writes, dones): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| ((job.changes, job.durability, job.mark), job.done)).unzip();
        if self.alarm.failure.get().is_none()
            && let Err(error) = self.write(writes)
        {
            self.alarm.raise(error.to_string());
        }
        for done in dones {
            done(self.result());
        }
    }

    fn result(&self) -> io::Result<()> {
        self.alarm.failure.get().map_or(Ok(()), |why| Err(io::Error::other(why.clone())))
    }

    /// Steps 2 to 4 of the module's text.
    fn write(&mut self, writes: Vec<(Vec<Change>, Durability, Mark)>) -> storage::Result<()> {
        let mut batch = Batch::default();
        let mut together = Durability::Buffered;
        let mut cuts = Vec::new();
        let mut ends = BTreeMap::new();
        let mut appended = false;
        for (changes, durability, mark) in writes {
            batch.changes.extend(changes);
            if durability == Durability::Synced {
                together = Durability::Synced;
            }
            match mark {
                Mark::None => {}
                Mark::Voted(end) => drop(ends.insert(end.group, end)),
                Mark::Appended(end) => {
                    appended = true;
                    ends.insert(end.group, end);
                }
                Mark::Cut(end) => {
                    cuts.push(end);
                    ends.insert(end.group, end);
                }
            }
        }
        if !cuts.is_empty() {
            self.watermarks.before_cut(cuts)?;
        }
        self.store.write(batch, together)?;
        if appended {
            fault_point!("log-append-after").map_err(storage::Error::file)?;
        }
        if !ends.is_empty() {
            self.watermarks.synced(ends.into_values().collect())?;
        }
        Ok(())
    }
}

/// Adds the jobs that wait already, as far as one write goes.
fn drain(jobs: &mut mpsc::Receiver<Queued>, run: &mut Vec<Queued>) {
    let mut bytes = run.iter().map(|queued| queued.bytes).sum::<usize>();
    while run.len() < limits::COMMIT_QUEUE_JOBS_MAX && bytes < limits::COMMIT_BYTES_MAX {
        match jobs.try_recv() {
            Ok(queued) => {
                bytes += queued.bytes;
                run.push(queued);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
        }
    }
}
