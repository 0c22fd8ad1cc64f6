//! The keys of this node as its administrators see them: which are in use, new ones, and the recovery export.
//!
//! Nothing here gives a key to anybody, but for [`NodeKeys::export`], which hands the owner of the node's files what opens
//! them elsewhere. The next master key is named by `[encryption.next]` of the configuration, which is read again when it
//! is asked for: no key and no path to one comes over the network.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use rookery_proto::security::v1::{
    DataKeyStatus, FileKeyStatus, GetKeyStatusResponse, MasterKeyStatus, MemoryStatus,
    RecoveryStatus, RotateMasterKeyResponse, RotationStatus,
};
use zeroize::Zeroizing;

use crate::{
    clock::{Clock as _, SystemClock},
    config::{self, Config, Encryption, MasterKeySource as Configured},
    crypto::{
        self, KeyId, Keyring, MasterKey, MasterKeySource, PassphraseSource, RecoveryKey,
        SealingKey, memory::Protection,
    },
    names::{GroupId, Timestamp},
    own_certificate::OwnCertificate,
    storage::{
        self, Batch, Durability, Phase, Progress, Read as _, Rocks, Rotation, Sentinel, Space,
        Store as _, Subject, Table,
    },
};

/// Where the node notes that a recovery export was made.
const SPACE: Space = Space { table: Table::Node, group: GroupId::CLUSTER, generation: 0 };
const EXPORTED_KEY: &[u8] = b"recovery export";

/// A failure of what is asked of the keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration names no next master key, or cannot be read.
    #[error("{0}")]
    Configuration(String),
    /// The next master key is the one in use.
    #[error(
        "the next master key is {0}, which seals the keyring already; let [encryption] name its source, and take \
         [encryption.next] out of the configuration"
    )]
    SameKey(KeyId),
    /// An export was made before.
    #[error(
        "a recovery export of this node was made before; another one is given only when it is forced"
    )]
    Exported,
    /// The keyring, or a source of a key.
    #[error(transparent)]
    Crypto(#[from] crypto::Error),
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// What the keys of a node are made of.
pub struct Parts {
    /// The configuration that the node runs with.
    pub config: Arc<Config>,
    /// The store.
    pub store: Arc<Rocks>,
    /// The keyring.
    pub keyring: Arc<Keyring>,
    /// The next master key opened the keyring.
    pub by_next: bool,
    /// The key of secrets for this node.
    pub sealing: Arc<SealingKey>,
    /// The sentinel.
    pub sentinel: Arc<Sentinel>,
    /// The node's certificates.
    pub own: Arc<OwnCertificate>,
}

/// The keys of this node.
pub struct NodeKeys {
    node: String,
    folder: PathBuf,
    config: Arc<Config>,
    store: Arc<Rocks>,
    keyring: Arc<Keyring>,
    /// Where the master key in use came from. Held while it is changed.
    source: Mutex<MasterKeySource>,
    rotation: Rotation,
}

impl NodeKeys {
    /// Takes up rotations that are not at their end.
    ///
    /// # Errors
    /// There is no thread for them, or the configuration names no master key.
    pub fn start(parts: Parts) -> Result<Arc<Self>, Error> {
        let Parts { config, store, keyring, by_next, sealing, sentinel, own } = parts;
        tell_of_memory();
        let (current, next) = sources(&config.encryption)?;
        let folder = config.node.data.clone();
        let source = if by_next { next.unwrap_or(current) } else { current };
        let others = {
            let (folder, keyring) = (folder.clone(), keyring.clone());
            // The certificates hold consensus, which ends before its owner does.
            let own: Weak<OwnCertificate> = Arc::downgrade(&own);
            Box::new(move || -> storage::Result<()> {
                let failed = |error: crypto::Error| storage::Error::Folder(error.to_string());
                sealing.reseal(&folder, &keyring).map_err(failed)?;
                own.upgrade().map_or(Ok(()), |own| own.reseal()).map_err(failed)?;
                sentinel.reseal()
            })
        };
        let rotation = Rotation::start(store.clone(), others)?;
        let (node, source) = (config.node.name.clone(), Mutex::new(source));
        Ok(Arc::new(Self { node, folder, config, store, keyring, source, rotation }))
    }

    /// Seals the keyring by the next master key of the configuration. Blocks, at most 30 seconds for a command.
    ///
    /// # Errors
    /// [`Error::Configuration`], [`Error::SameKey`], [`Error::Crypto`]: the former master key goes on being the one.
    pub fn rotate_master(&self) -> Result<RotateMasterKeyResponse, Error> {
        let mut source = self.source.lock();
        let config = self.configured()?;
        let (current, next) = sources(&config.encryption)?;
        let next = next.ok_or_else(|| {
            let why = "the configuration of this node names no next master key: set one of the keys of \
                       [encryption.next]; a restart is not needed";
            Error::Configuration(why.to_owned())
        })?;
        let former = self.keyring.master_key_id();
        let master = MasterKey::load_next(&next, &self.folder)?;
        if master.id() == former {
            return Err(Error::SameKey(former));
        }
        self.keyring.rewrap(&master)?;
        tracing::warn!(%former, master_key = %master.id(), source = %next, "the master key was rotated");
        *source = next.clone();
        Ok(RotateMasterKeyResponse {
            node: self.node.clone(),
            former_id: former.to_string(),
            id: master.id().to_string(),
            source: next.to_string(),
            advice: settle_advice(&next, &current),
        })
    }

    /// Makes a new data key and has everything sealed with it; false where that is under way already.
    ///
    /// # Errors
    /// [`Error::Storage`]: the group has no key here, or the keyring cannot be written.
    pub fn rotate(&self, subject: Subject) -> Result<bool, Error> {
        Ok(self.rotation.rotate(subject)?)
    }

    /// Whether this node has a key for a group.
    #[must_use]
    pub fn holds(&self, group: GroupId) -> bool {
        self.store.has_key(group)
    }

    /// Everything that can be told of the keys.
    ///
    /// # Errors
    /// [`Error::Storage`] where the store cannot be looked at.
    pub fn status(&self, name: impl Fn(GroupId) -> String) -> Result<GetKeyStatusResponse, Error> {
        let progress = self.rotation.progress();
        let keys = self.keyring.keys();
        let data_key = |group: GroupId| {
            let (version, older_versions) = newest(keys.versions(group).collect());
            let rotation = Some(rotation(progress.get(&Subject::Group(group))));
            DataKeyStatus {
                group: name(group),
                group_id: group.0,
                version,
                older_versions,
                rotation,
            }
        };
        let data_keys = keys.groups().map(data_key).collect();
        Ok(GetKeyStatusResponse {
            node: self.node.clone(),
            master_key: Some(self.master_key_status()),
            data_keys,
            file_key: Some(self.file_key_status(&progress)?),
            memory: Some(memory_status()),
            recovery: self.recovery_status()?,
        })
    }

    /// What opens this node's folder without its master key: the content of a file, the key to it, and the master key
    /// that it stands for.
    ///
    /// # Errors
    /// [`Error::Exported`] where one was made before and this one is not forced; [`Error::Crypto`], [`Error::Storage`].
    pub fn export(&self, force: bool) -> Result<(Vec<u8>, Zeroizing<String>, KeyId), Error> {
        let _no_rotation = self.source.lock();
        if !force && self.exported()?.is_some() {
            return Err(Error::Exported);
        }
        let key = RecoveryKey::random()?;
        let content = self.keyring.export(&key)?;
        let master = self.keyring.master_key_id();
        let at = SystemClock.wall().0.to_be_bytes();
        let mut note = Batch::default();
        note.put(SPACE, EXPORTED_KEY, [at.as_slice(), master.to_string().as_bytes()].concat());
        self.store.write(note, Durability::Synced)?;
        Ok((content, key.expose_text(), master))
    }

    /// When the last export was made, and for which master key.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn exported(&self) -> Result<Option<(Timestamp, String)>, Error> {
        let Some(note) = self.store.get(SPACE, EXPORTED_KEY)? else { return Ok(None) };
        let parsed = note.split_first_chunk::<8>().map(|(at, master)| {
            (Timestamp(i64::from_be_bytes(*at)), String::from_utf8_lossy(master).into_owned())
        });
        Ok(parsed)
    }

    /// The configuration as the file is now.
    fn configured(&self) -> Result<Config, Error> {
        let again = self.config.loaded_from.as_ref().map(|from| from.again());
        let failed = |error: config::Error| Error::Configuration(error.to_string());
        again.unwrap_or_else(|| Ok(Config::clone(&self.config))).map_err(failed)
    }

    fn master_key_status(&self) -> MasterKeyStatus {
        let source = self.source.lock().clone();
        let configured = self.configured().and_then(|config| sources(&config.encryption));
        let (from_next, advice) = match &configured {
            Ok((current, _)) if *current == source => (false, String::new()),
            Ok((current, _)) => (true, settle_advice(&source, current)),
            Err(error) => (false, error.to_string()),
        };
        let id = self.keyring.master_key_id().to_string();
        MasterKeyStatus { id, source: source.to_string(), from_next, advice }
    }

    fn file_key_status(
        &self,
        progress: &BTreeMap<Subject, Progress>,
    ) -> Result<FileKeyStatus, Error> {
        let (version, older_versions) = newest(self.store.file_key_versions());
        let files = self.store.files_by_key()?;
        Ok(FileKeyStatus {
            version,
            older_versions,
            files: files.values().sum(),
            older_files: files.range(..version).map(|(_, files)| files).sum(),
            rotation: Some(rotation(progress.get(&Subject::Files))),
        })
    }

    fn recovery_status(&self) -> Result<Option<RecoveryStatus>, Error> {
        let current = self.keyring.master_key_id().to_string();
        Ok(self.exported()?.map(|(at, master_key_id)| RecoveryStatus {
            made_unix_ms: at.0,
            current: master_key_id == current,
            master_key_id,
        }))
    }
}

/// The sources of the current and of the next master key.
///
/// # Errors
/// [`Error::Configuration`]: no master key is named.
pub fn sources(
    encryption: &Encryption,
) -> Result<(MasterKeySource, Option<MasterKeySource>), Error> {
    let current = encryption.source().map(source).ok_or_else(|| {
        let why = "no master key is configured; set one of the keys of [encryption]";
        Error::Configuration(why.to_owned())
    })?;
    Ok((current, encryption.next.as_ref().and_then(|next| next.source()).map(source)))
}

fn source(configured: Configured<'_>) -> MasterKeySource {
    let passphrase = MasterKeySource::Passphrase;
    match configured {
        Configured::File(path) => MasterKeySource::File(path.to_owned()),
        Configured::Env(name) => MasterKeySource::Environment(name.to_owned()),
        Configured::Exec(words) => MasterKeySource::Command(words.to_vec()),
        Configured::PassphraseFile(path) => passphrase(PassphraseSource::File(path.to_owned())),
        Configured::PassphraseExec(words) => passphrase(PassphraseSource::Command(words.to_vec())),
        Configured::PassphrasePrompt => passphrase(PassphraseSource::Prompt),
    }
}

/// What is left to do after a rotation of the master key.
fn settle_advice(in_use: &MasterKeySource, configured: &MasterKeySource) -> String {
    format!(
        "let [encryption] name {in_use} in the place of {configured}, and take [encryption.next] out; the former key is \
         not needed for this folder any more, only for copies of it that are older"
    )
}

/// The version that seals, and the older ones.
fn newest(mut versions: Vec<u32>) -> (u32, Vec<u32>) {
    (versions.pop().unwrap_or_default(), versions)
}

fn rotation(progress: Option<&Progress>) -> RotationStatus {
    let Some(progress) = progress else { return RotationStatus::default() };
    let (phase, details) = match &progress.phase {
        Phase::Queued => ("queued", String::new()),
        Phase::Resealing => ("resealing", String::new()),
        Phase::Waiting(readers) => ("waiting", format!("for {readers} readers who began before")),
        Phase::NextStart(files) => {
            ("next-start", format!("{files} files are written anew when the node starts"))
        }
        Phase::Done => ("done", String::new()),
        Phase::Stopped(why) => ("stopped", why.clone()),
    };
    let (records, resealed) = (progress.records, progress.resealed);
    RotationStatus { phase: phase.to_owned(), records, resealed, details }
}

fn memory_status() -> MemoryStatus {
    let now = Protection::now();
    MemoryStatus {
        held_bytes: now.held_bytes,
        locked_bytes: now.locked_bytes,
        limit_bytes: now.limit_bytes.unwrap_or_default(),
        needed_bytes: now.needed_bytes(),
        core_dumps_off: now.core_dumps_off,
        dumpable_off: now.dumpable_off,
    }
}

/// The line of the start about memory: how much is locked, and what the limit must be.
fn tell_of_memory() {
    let now = Protection::now();
    if now.all_locked() {
        tracing::info!(
            core_dumps_off = now.core_dumps_off,
            dumpable_off = now.dumpable_off,
            "{now}"
        );
    } else {
        tracing::warn!("{now}: the rest may reach swap; raise the limit (ulimit -l, LimitMEMLOCK)");
    }
}
