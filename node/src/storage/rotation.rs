//! The thread that seals records again after a rotation of data keys: one group at a time, in small steps with rests.
//!
//! It keeps no position on disk. Which rotations are not at their end stands in the keyring (a group with two keys), and
//! how far one got stands in the records themselves, each of which names its key; so a restart begins the walk anew and
//! passes over what is done.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{Error, Named, Result, Rocks, Step, Store as _, Walk};
use crate::names::GroupId;

/// So many times as long as a step took, nothing is done after it: writes keep most of the disk and of the processor.
const REST_FACTOR: u32 = 3;
const REST_MIN: Duration = Duration::from_millis(1);
/// Longest rest, also between two looks whether readers are gone.
const REST_MAX: Duration = Duration::from_millis(500);

/// What a rotation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The data key of a group.
    Group(GroupId),
    /// The key of the engine's files.
    Files,
}

/// Where a rotation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It waits for another one.
    Queued,
    /// Records are sealed again, or files written anew.
    Resealing,
    /// Nothing names the older key any more; so many who began to read before are waited for.
    Waiting(usize),
    /// So many files are written anew when the node starts the next time, and the older key destroyed then.
    NextStart(u64),
    /// The older key is destroyed.
    Done,
    /// It stopped, and the older key stays: a record did not authenticate, or the storage failed.
    Stopped(String),
}

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub phase: Phase,
    /// Records that named an older key when this process began with it.
    pub records: u64,
    /// How many of them were sealed again since.
    pub resealed: u64,
}

/// What is sealed by the node's own key besides the tables, sealed again by whoever keeps it.
pub type Others = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// Rotations of data keys in the background; ends with its owner.
pub struct Rotation {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    store: Arc<Rocks>,
    /// For the cluster group: the sentinel, the sealing key, the node's certificates.
    others: Others,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Subject>,
    progress: BTreeMap<Subject, Progress>,
    /// Files are written anew, which can take long and is broken off at the end.
    rewriting: bool,
    closing: bool,
}

impl Rotation {
    /// Starts the thread, which first takes up what a stop or a crash left.
    ///
    /// # Errors
    /// [`Error::Engine`] where there is no thread.
    pub fn start(store: Arc<Rocks>, others: Others) -> Result<Self> {
        let mut state = State::default();
        for group in store.rotating() {
            tracing::info!(%group, "a rotation of a data key goes on");
            state.enqueue(Subject::Group(group));
        }
        if store.file_key_versions().len() > 1 {
            state.enqueue(Subject::Files);
        }
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { store, others, state, changed });
        let working = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("rotation".to_owned())
            .spawn(move || working.run())
            .map_err(|error| Error::Engine(format!("no thread for rotations: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Makes a new key, which counts from now on, and has the older one made superfluous; false where a rotation of the
    /// same is under way, which is left as it is.
    ///
    /// # Errors
    /// [`Error::NoKey`]; [`Error::Folder`] where the keyring cannot be written.
    pub fn rotate(&self, subject: Subject) -> Result<bool> {
        let mut state = self.shared.state.lock();
        let store = &self.shared.store;
        let keys = match subject {
            Subject::Group(group) if !store.has_key(group) => return Err(Error::NoKey(group)),
            Subject::Group(group) => usize::from(store.rotating().contains(&group)) + 1,
            Subject::Files => store.file_key_versions().len(),
        };
        if keys > 1 {
            // One that had stopped gets another chance.
            let stopped = |it: &Progress| matches!(it.phase, Phase::Stopped(_));
            if state.progress.get(&subject).is_some_and(stopped) {
                state.enqueue(subject);
                self.shared.changed.notify_all();
            }
            return Ok(false);
        }
        match subject {
            Subject::Group(group) => store.rotate_key(group)?,
            Subject::Files => store.rotate_file_key()?,
        }
        state.enqueue(subject);
        self.shared.changed.notify_all();
        Ok(true)
    }

    /// What was rotated since the start of this process, and how far it is.
    #[must_use]
    pub fn progress(&self) -> BTreeMap<Subject, Progress> {
        self.shared.state.lock().progress.clone()
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        let rewriting = {
            let mut state = self.shared.state.lock();
            state.closing = true;
            state.rewriting
        };
        self.shared.changed.notify_all();
        if rewriting {
            self.shared.store.stop_compactions();
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported already, and nothing is left to do here.
            let _ = thread.join();
        }
    }
}

impl State {
    fn enqueue(&mut self, subject: Subject) {
        self.queue.push_back(subject);
        let queued = Progress { phase: Phase::Queued, records: 0, resealed: 0 };
        self.progress.insert(subject, queued);
    }
}

/// Why a step did not go on: the process ends, or what is in the error.
enum Ended {
    Closing,
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Shared {
    fn run(&self) {
        while let Some(subject) = self.next() {
            let ended = match subject {
                Subject::Group(group) => self.reseal(group),
                Subject::Files => self.rewrite_files(),
            };
            let phase = match ended {
                Ok(phase) => phase,
                Err(Ended::Closing) => return,
                // Deleted meanwhile: its keys are gone, all of them.
                Err(Ended::Failed(Error::NoKey(_))) => Phase::Done,
                Err(Ended::Failed(error)) => {
                    tracing::error!(?subject, %error, "a rotation of a key stopped; the older key stays");
                    Phase::Stopped(error.to_string())
                }
            };
            if phase == Phase::Done {
                tracing::info!(?subject, "a key was rotated, and the older one destroyed");
            }
            self.tell(subject, |progress| progress.phase = phase.clone());
        }
    }

    /// Waits for something to do; `None` at the end.
    fn next(&self) -> Option<Subject> {
        let mut state = self.state.lock();
        while !state.closing {
            if let Some(subject) = state.queue.pop_front() {
                return Some(subject);
            }
            self.changed.wait(&mut state);
        }
        None
    }

    fn reseal(&self, group: GroupId) -> std::result::Result<Phase, Ended> {
        let subject = Subject::Group(group);
        let mut first = true;
        let unused = loop {
            match self.store.older_records(group)? {
                Named::ByNone(unused) => break unused,
                Named::By(records) if first => self.tell(subject, |progress| {
                    *progress = Progress { phase: Phase::Resealing, records, resealed: 0 };
                }),
                Named::By(_) => {}
            }
            first = false;
            self.walk(group)?;
        };
        if group == GroupId::CLUSTER {
            (self.others)()?;
        }
        loop {
            let readers = self.store.destroy_older_keys(&unused)?;
            if readers == 0 {
                return Ok(Phase::Done);
            }
            self.tell(subject, |progress| progress.phase = Phase::Waiting(readers));
            self.rest(REST_MAX)?;
        }
    }

    /// One walk over all records of a group.
    fn walk(&self, group: GroupId) -> std::result::Result<(), Ended> {
        let mut walk = Walk::default();
        loop {
            let began = Instant::now();
            match self.store.reseal_step(group, &mut walk)? {
                Step::Finished => return Ok(()),
                Step::Busy => {}
                Step::Walked { resealed } => self.tell(Subject::Group(group), |progress| {
                    progress.resealed += resealed as u64;
                }),
            }
            self.rest((began.elapsed() * REST_FACTOR).clamp(REST_MIN, REST_MAX))?;
        }
    }

    fn rewrite_files(&self) -> std::result::Result<Phase, Ended> {
        self.tell(Subject::Files, |progress| progress.phase = Phase::Resealing);
        if self.store.retire_file_keys()? > 0 {
            {
                let mut state = self.state.lock();
                if state.closing {
                    return Err(Ended::Closing);
                }
                state.rewriting = true;
            }
            let rewritten = self.store.rewrite_files();
            let mut state = self.state.lock();
            state.rewriting = false;
            if state.closing {
                return Err(Ended::Closing);
            }
            drop(state);
            rewritten?;
        }
        Ok(match self.store.retire_file_keys()? {
            0 => Phase::Done,
            files => Phase::NextStart(files),
        })
    }

    fn tell(&self, subject: Subject, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.state.lock().progress.get_mut(&subject) {
            change(progress);
        }
    }

    /// Does nothing for a while, but ends at once with the owner.
    fn rest(&self, time: Duration) -> std::result::Result<(), Ended> {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.closing {
            if self.changed.wait_until(&mut state, until).timed_out() {
                return Ok(());
            }
        }
        Err(Ended::Closing)
    }
}

#[cfg(test)]
mod tests;
