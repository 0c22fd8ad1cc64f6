//! This node's own certificate over its life: where it comes from, where it is kept, and how another takes its place.
//!
//! ```text
//! source (PEM, PFX, command) ──changed──► candidate ──registered, known to the others──┐
//! log: replacement ──sealed key──► installed, confirmed ──told to swap─────────────────┴─► kept in the data folder
//!                                                                                          └─► shown by new handshakes
//! ```
//!
//! | file | what it does |
//! | --- | --- |
//! | `source` | reads what the configuration names |
//! | `kept` | the certificates and keys in the data folder, sealed |
//! | `steps` | what this node does next, after the log and the source |
//! | `watch` | hears of changed files and of SIGHUP |
//!
//! The data folder decides what is served ([ADR 13](../../../docs/adr/0013-server-certificates.md)): the source is looked at
//! when it changes, and a certificate that the cluster installed stays in force until the source holds something new.
//! So a source that nobody can write, such as a command, needs no special way, and no key is ever written in clear.
//!
//! **Invariant:** what new handshakes show is durable in the data folder before, and registered for this node before that.
//!
//! **Invariant:** an identity is forgotten only when the cluster has retired its certificate; until then a peer that
//! was away can be met with the certificate that it knows.

mod kept;
mod source;
mod steps;
mod watch;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::{
    kept::{FILE as KEPT_FILE, Kept},
    source::Source,
    steps::seal_key,
    watch::watch,
};
use crate::{
    clock::Clock,
    consensus::Consensus,
    crypto::SealingKey,
    names::Thumbprint,
    tls::{CurrentIdentity, IdentityError, TlsIdentity},
};

/// A certificate that this node cannot take; says why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured source cannot be read or does not hold what it must.
    #[error(transparent)]
    Source(#[from] IdentityError),
    /// What was found cannot be this node's certificate.
    #[error("{0}")]
    Unfit(String),
    /// The data folder cannot be read or written, or what it holds is not authentic.
    #[error(transparent)]
    Kept(#[from] crate::crypto::Error),
    /// The cluster refuses.
    #[error("the cluster: {0}")]
    Refused(String),
    /// The cluster could not be asked.
    #[error("the cluster: {0}")]
    Cluster(String),
    /// No leader at the moment.
    #[error("the cluster has no leader at the moment")]
    Waits,
}

/// How a look at the source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// It holds what it held.
    Unchanged,
    /// It holds another certificate, which this node will present as soon as the others know it.
    Taken,
    /// It holds another certificate, which waits for the end of a replacement.
    Waiting,
}

impl Looked {
    /// The word for answers.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Taken => "taken",
            Self::Waiting => "waiting",
        }
    }
}

/// This node's own certificate.
pub struct OwnCertificate {
    consensus: Arc<Consensus>,
    source: Source,
    kept: Mutex<Kept>,
    current: Arc<CurrentIdentity>,
    sealing: Arc<SealingKey>,
    clock: Arc<dyn Clock>,
    /// What the source holds and this node does not present yet.
    candidate: Mutex<Option<Arc<TlsIdentity>>>,
    /// Held while the source is read and judged.
    looking: tokio::sync::Mutex<()>,
    /// What the cluster refused at which revision of the registry, and why: it would refuse it again.
    refused: Mutex<Option<(Thumbprint, u64, String)>>,
    /// The last reason why a step failed, so that it is told once.
    told: Mutex<Option<String>>,
    /// Whether the last look at the source found something sound.
    sound: AtomicBool,
    wake: Notify,
}

/// How often the next step is looked for when nothing wakes it.
const STEP_INTERVAL: Duration = Duration::from_secs(1);

impl OwnCertificate {
    /// Puts it together; [`OwnCertificate::run`] does its work.
    #[must_use]
    pub fn new(
        consensus: Arc<Consensus>,
        source: Source,
        kept: Kept,
        current: Arc<CurrentIdentity>,
        sealing: Arc<SealingKey>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            consensus,
            source,
            kept: Mutex::new(kept),
            current,
            sealing,
            clock,
            candidate: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            refused: Mutex::default(),
            told: Mutex::default(),
            sound: AtomicBool::new(true),
            wake: Notify::new(),
        })
    }

    /// Takes the steps that log and source ask for, as long as the node runs.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.consensus.registry_changes();
        loop {
            let stepped = self.step().await;
            let failed = stepped.is_err();
            match stepped {
                Ok(()) => drop(self.told.lock().take()),
                Err(Error::Waits) => {}
                Err(error) => self.tell(&error.to_string()),
            }
            if failed {
                // Even where the failed step itself wrote to the log, which would wake this loop.
                tokio::time::sleep(STEP_INTERVAL).await;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = tokio::time::sleep(STEP_INTERVAL) => {}
            }
        }
    }

    /// Looks at the source now.
    ///
    /// # Errors
    /// The source cannot be read, or holds what cannot be this node's certificate; the old one goes on serving.
    pub async fn look(&self) -> Result<(Thumbprint, Looked), Error> {
        // One after the other: what was read first is not to take the place of what was read later.
        let _alone = self.looking.lock().await;
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let found = read.map_err(|e| Error::Unfit(e.to_string()))??;
        let thumbprint = found.thumbprint();
        if self.kept.lock().holds_nothing_new(thumbprint)? {
            self.candidate.lock().take();
            return Ok((thumbprint, Looked::Unchanged));
        }
        self.fit(&found)?;
        tracing::info!(%thumbprint, "the source of this node's certificate holds another one");
        *self.candidate.lock() = Some(Arc::new(found));
        self.wake.notify_one();
        let waits = self.consensus.registry().replacement().is_some_and(crate::cluster::is_running);
        Ok((thumbprint, if waits { Looked::Waiting } else { Looked::Taken }))
    }

    /// Seals what is kept of certificates again, with the newest key of the node.
    ///
    /// # Errors
    /// The file cannot be written; the older one stands.
    pub fn reseal(&self) -> Result<(), crate::crypto::Error> {
        self.kept.lock().reseal()
    }

    fn tell(&self, why: &str) {
        let mut told = self.told.lock();
        if told.as_deref() != Some(why) {
            tracing::warn!(why, "this node's certificate: a step failed; it is tried again");
            *told = Some(why.to_owned());
        }
    }

    /// Notes whether the source is sound; says whether that is news.
    fn sound(&self, sound: bool) -> bool {
        self.sound.swap(sound, Ordering::Relaxed) != sound
    }

    /// What the source is, for people.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The paths whose changes matter.
    #[must_use]
    pub fn watched(&self) -> Vec<PathBuf> {
        self.source.paths()
    }
}

/// The identity that a node starts with, and what it knows of others.
///
/// The data folder decides for a member: a source that changed while the node was down is followed when it runs, because
/// the others do not know the new certificate yet. A passive node takes what the source holds.
///
/// # Errors
/// There is no identity in the data folder, and none in the source.
pub fn begin(
    kept: &mut Kept,
    found: Result<TlsIdentity, IdentityError>,
    member: bool,
) -> Result<Arc<CurrentIdentity>, Error> {
    let begun = kept.current().filter(|_| member);
    let identity = match (begun, found) {
        (Some(kept), Ok(_)) => kept,
        (Some(kept), Err(error)) => {
            tracing::error!(
                %error,
                "the source of this node's certificate cannot be used; it starts with the one it had"
            );
            kept
        }
        (None, found) => {
            let found = Arc::new(found?);
            kept.add(found.clone())?;
            kept.present_from_source(found.thumbprint())?;
            found
        }
    };
    let current = CurrentIdentity::new(TlsIdentity::clone(&identity));
    current.set_others(kept.others());
    Ok(current)
}
