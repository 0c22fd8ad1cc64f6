//! The keyring: all data keys of a node in one small file, sealed by the master key.
//!
//! ```text
//! file    = "ROOKERYK" (8) ‖ version 1 (1) ‖ purpose (1) ‖ master key id (8) ‖ nonce (24) ‖ ciphertext ‖ tag (16)
//! content = next version (4) ‖ { kind (1) ‖ group (8) ‖ version (4) ‖ key (32) }*          integers are big endian
//! ```
//!
//! The first 18 bytes are the associated data. Versions are counted over the whole keyring and never used again, so a
//! record that names a version was sealed with exactly that key. An owner's last key is the one that seals. The next
//! version rises with every change, also where keys are destroyed: the sentinel remembers it, and so knows an older copy.
//!
//! **Invariant:** what is in memory was durable before. A change is written, synced and renamed into place first.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{
    Error, KeyId, MasterKey, Place, RecoveryExport, RecoveryKey, Result, SecretKey,
    folder::{self, SENTINEL_FOLDER, STORE_FOLDER},
    memory::LockedBytes,
    passphrase, random, seal,
};
use crate::{limits, names::GroupId};

/// The keyring's file in the data folder.
pub const KEYRING_FILE: &str = "keyring";

const MAGIC: &[u8; 8] = b"ROOKERYK";
const VERSION: u8 = 1;
/// The data keys of a node; another number would be another kind of keyring.
const PURPOSE: u8 = 1;
const HEADER_BYTES: usize = 8 + 1 + 1 + 8;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const ENTRY_BYTES: usize = 1 + 8 + 4 + 32;

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Group(GroupId),
    Files,
}

/// The keys of a node. Lookups take no lock; changes are serialised and durable when they return.
pub struct Keyring {
    path: PathBuf,
    keys: ArcSwap<Keys>,
    /// Seals the file; held while a change is written.
    wrap: Mutex<Wrap>,
    /// The data folder belongs to this process as long as this is open.
    _lock: File,
}

struct Wrap {
    key: SecretKey,
    master: KeyId,
}

impl Wrap {
    /// From an export of the time when this master key sealed the keyring.
    fn recovered(export: &RecoveryExport) -> Self {
        let mut key = Zeroizing::new(*export.wrapping_key.expose());
        Self { key: SecretKey::take(&mut key), master: export.master }
    }

    fn new(master: &MasterKey) -> Self {
        Self { key: SecretKey::derive(master.expose(), "rookery keyring v1"), master: master.id() }
    }

    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8] = VERSION;
        header[9] = PURPOSE;
        header[10..].copy_from_slice(&self.master.0);
        header
    }

    fn seal(&self, content: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        self.seal_with_nonce(content, nonce)
    }

    fn seal_with_nonce(&self, content: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>> {
        let header = self.header();
        let mut body = Zeroizing::new(content.to_vec());
        let tag = seal::encrypt(self.key.expose(), nonce, &header, &mut body)?;
        Ok([header.as_slice(), &nonce, &body, &tag].concat())
    }

    /// The content of a sealed keyring, and why it cannot be had.
    fn open(&self, path: &Path, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let damaged = |why| Error::Keyring { path: path.to_owned(), why };
        let Some((header, body)) = sealed.split_first_chunk::<HEADER_BYTES>() else {
            return Err(damaged("it is too short"));
        };
        let (magic, rest) = header.split_at(8);
        let (kind, id) = rest.split_at(2);
        if magic != MAGIC {
            return Err(damaged("it is not a keyring"));
        }
        if kind != [VERSION, PURPOSE] {
            return Err(damaged("it is of a version that this program does not know"));
        }
        if id != self.master.0 {
            let expected = KeyId(id.try_into().map_err(|_| damaged("it is too short"))?);
            return Err(Error::WrongMasterKey { expected, given: self.master });
        }
        let (Some((nonce, _)), Some((_, tag))) =
            (body.split_first_chunk::<NONCE_BYTES>(), body.split_last_chunk::<TAG_BYTES>())
        else {
            return Err(damaged("it is too short"));
        };
        let Some(ciphertext) = body.get(NONCE_BYTES..body.len() - TAG_BYTES) else {
            return Err(damaged("it is too short"));
        };
        let mut content = Zeroizing::new(ciphertext.to_vec());
        seal::decrypt(self.key.expose(), *nonce, header, &mut content, *tag)
            .map_err(|_| damaged("it was changed or damaged: its tag does not match"))?;
        Ok(content)
    }
}

impl Keyring {
    /// Opens the keyring of a data folder; makes the folder and the keyring where there is nothing yet. Takes the
    /// folder for this process.
    ///
    /// # Errors
    /// [`Error::WrongMasterKey`], [`Error::KeyringMissing`], [`Error::Keyring`], [`Error::Folder`] (not private, or
    /// in use): nothing was changed. [`Error::Io`].
    pub fn open(folder: &Path, master: &MasterKey) -> Result<Arc<Self>> {
        folder::make_private_folder(folder)?;
        Self::open_with(folder, Wrap::new(master), None)
    }

    /// Opens the keyring of a data folder with a recovery export, in whose place the master key is not needed; where its
    /// file is gone, takes the keyring of the export, without writing it. Takes the folder for this process.
    ///
    /// # Errors
    /// As [`Keyring::open`]; [`Error::WrongMasterKey`] where the master key was rotated since the export.
    pub fn recover(folder: &Path, export: &RecoveryExport) -> Result<Arc<Self>> {
        Self::open_with(folder, Wrap::recovered(export), Some(&export.keyring))
    }

    fn open_with(folder: &Path, wrap: Wrap, fallback: Option<&[u8]>) -> Result<Arc<Self>> {
        let lock = folder::lock(folder)?;
        let path = folder.join(KEYRING_FILE);
        let found = read(&path)?.or_else(|| fallback.map(<[u8]>::to_vec));
        let keys = match found {
            Some(sealed) => Keys::parse(&wrap.open(&path, &sealed)?)
                .map_err(|why| Error::Keyring { path: path.clone(), why })?,
            None => {
                refuse_data(folder)?;
                let keys = Keys::first()?;
                folder::replace_file(&path, &wrap.seal(keys.content())?)?;
                tracing::info!(master_key = %wrap.master, "made a new keyring in an empty data folder");
                keys
            }
        };
        let keys = ArcSwap::from_pointee(keys);
        Ok(Arc::new(Self { path, keys, wrap: Mutex::new(wrap), _lock: lock }))
    }

    /// The master key that the keyring of a data folder names; `None` where there is no keyring.
    ///
    /// # Errors
    /// [`Error::Keyring`] where the file is no keyring; [`Error::Io`].
    pub fn sealed_by(folder: &Path) -> Result<Option<KeyId>> {
        let path = folder.join(KEYRING_FILE);
        let Some(sealed) = read(&path)? else { return Ok(None) };
        let id = sealed.get(HEADER_BYTES - 8..HEADER_BYTES).and_then(|id| id.try_into().ok());
        let why = match id {
            Some(id) if sealed.starts_with(MAGIC) => return Ok(Some(KeyId(id))),
            Some(_) => "it is not a keyring",
            None => "it is too short",
        };
        Err(Error::Keyring { path, why })
    }

    /// The keys of this moment, without a lock. Hold it for one batch, not for long.
    #[must_use]
    pub fn keys(&self) -> Guard<Arc<Keys>> {
        self.keys.load()
    }

    /// The master key that seals the keyring.
    #[must_use]
    pub fn master_key_id(&self) -> KeyId {
        self.wrap.lock().master
    }

    /// Makes a data key for a group; one that has a key keeps it.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Random`]; [`Error::Folder`] where the keyring is full.
    pub fn create(&self, group: GroupId) -> Result<()> {
        self.change(|keys| {
            if keys.current(Owner::Group(group)).is_some() {
                return Ok(None);
            }
            keys.with(Owner::Group(group)).map(Some)
        })
    }

    /// Makes a new key for a group, which seals from now on; the older ones go on opening what they sealed.
    ///
    /// # Errors
    /// As [`Keyring::create`]; [`Error::NoKey`].
    pub fn rotate(&self, group: GroupId) -> Result<()> {
        self.change(|keys| {
            keys.current(Owner::Group(group)).ok_or(Error::NoKey(group))?;
            keys.with(Owner::Group(group)).map(Some)
        })
    }

    /// Makes a new key for files that are made from now on.
    ///
    /// # Errors
    /// As [`Keyring::create`].
    pub fn rotate_files(&self) -> Result<()> {
        self.change(|keys| keys.with(Owner::Files).map(Some))
    }

    /// Destroys all keys of a group but the newest. What the older ones sealed opens no more: the caller has proved that
    /// nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Random`].
    pub fn destroy_older(&self, group: GroupId) -> Result<()> {
        self.change(|keys| keys.with_newest_of(Owner::Group(group)))
    }

    /// Destroys all keys of files but the newest. The caller has proved that no file names an older one.
    ///
    /// # Errors
    /// As [`Keyring::destroy_older`].
    pub fn destroy_older_of_files(&self) -> Result<()> {
        self.change(|keys| keys.with_newest_of(Owner::Files))
    }

    /// Destroys all keys of a group: nothing that they sealed can be opened again, here or from a copy of the store.
    ///
    /// # Errors
    /// [`Error::Folder`] for the node's own group, whose key goes only with the whole data folder; [`Error::Io`].
    pub fn destroy(&self, group: GroupId) -> Result<()> {
        if group == GroupId::CLUSTER {
            return Err(Error::Folder(
                "the node's own data key is destroyed by deleting the data folder".to_owned(),
            ));
        }
        self.change(|keys| {
            keys.current(Owner::Group(group)).map(|_| keys.without(Owner::Group(group))).transpose()
        })
    }

    /// Seals the keyring by another master key, which is the only one that opens it from now on.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Random`].
    pub fn rewrap(&self, master: &MasterKey) -> Result<()> {
        let mut wrap = self.wrap.lock();
        let new = Wrap::new(master);
        folder::replace_file(&self.path, &new.seal(self.keys.load().content())?)?;
        *wrap = new;
        if let Some(folder) = self.path.parent() {
            passphrase::settle(folder, master)?;
        }
        // The former key is about to be thrown away: what stands on the disk must open by the new one alone.
        let written = read(&self.path)?.unwrap_or_default();
        if wrap.open(&self.path, &written)?.as_slice() != self.keys.load().content() {
            let why = "it holds something else than what was just written";
            return Err(Error::Keyring { path: self.path.clone(), why });
        }
        Ok(())
    }

    /// What opens this folder without its master key, sealed to a recovery key: the content of a file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Random`].
    pub fn export(&self, key: &RecoveryKey) -> Result<Vec<u8>> {
        let wrap = self.wrap.lock();
        let keyring = read(&self.path)?.unwrap_or_default();
        RecoveryExport::seal(key, wrap.master, &wrap.key, &keyring)
    }

    /// Writes a changed keyring, and only then shows it.
    fn change(&self, make: impl FnOnce(&Keys) -> Result<Option<Keys>>) -> Result<()> {
        let wrap = self.wrap.lock();
        let Some(new) = make(&self.keys.load())? else { return Ok(()) };
        folder::replace_file(&self.path, &wrap.seal(new.content())?)?;
        self.keys.store(Arc::new(new));
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = || Error::io(format!("the keyring {} cannot be read", path.display()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    let mut sealed = Vec::new();
    let len_max = limits::KEYRING_BYTES_MAX + HEADER_BYTES + NONCE_BYTES + TAG_BYTES;
    file.take(len_max as u64 + 1).read_to_end(&mut sealed).map_err(failed())?;
    if sealed.len() > len_max {
        return Err(Error::Keyring { path: path.to_owned(), why: "it is too long" });
    }
    Ok(Some(sealed))
}

/// A folder without a keyring must hold nothing that a lost keyring would open.
fn refuse_data(folder: &Path) -> Result<()> {
    for name in [STORE_FOLDER, SENTINEL_FOLDER] {
        let path = folder.join(name);
        match fs::symlink_metadata(&path) {
            Ok(_) => {
                let found = format!("`{name}`");
                return Err(Error::KeyringMissing { folder: folder.to_owned(), found });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::io(format!("{} cannot be read", path.display()))(error));
            }
        }
    }
    Ok(())
}

/// All keys at one moment, in pages that are locked and left out of dumps.
pub struct Keys {
    memory: LockedBytes,
    len: usize,
    next_version: u32,
    /// Versions, oldest first, and where in `memory` their keys stand.
    owners: BTreeMap<Owner, Vec<(u32, usize)>>,
    file_key: (u32, usize),
}

impl Keys {
    /// Seals content for its place with the newest data key of the place's group.
    ///
    /// # Errors
    /// [`Error::NoKey`], [`Error::Random`].
    pub fn seal(&self, place: &Place<'_>, content: &[u8]) -> Result<Vec<u8>> {
        let owner = Owner::Group(place.group);
        let (version, at) = self.current(owner).ok_or(Error::NoKey(place.group))?;
        seal::seal(self.key(at), version, place, content)
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`] where it was changed, moved, or sealed with a key that is gone; [`Error::NoKey`].
    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Vec<u8>> {
        let owner = Owner::Group(place.group);
        let versions = self.owners.get(&owner).ok_or(Error::NoKey(place.group))?;
        let version = seal::key_version(sealed)?;
        let (_, at) = versions.iter().rfind(|(held, _)| *held == version).ok_or(
            Error::NotAuthentic("the record names a key version that its group does not have"),
        )?;
        seal::open(self.key(*at), place, sealed)
    }

    /// Counts the changes of the keyring; an older copy of it has a lower one.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.next_version
    }

    /// The versions of a group's keys, ascending; the last one seals.
    pub fn versions(&self, group: GroupId) -> impl Iterator<Item = u32> + '_ {
        self.versions_of(Owner::Group(group))
    }

    /// The versions of the keys of files, ascending; new files take the last one.
    pub fn file_versions(&self) -> impl Iterator<Item = u32> + '_ {
        self.versions_of(Owner::Files)
    }

    fn versions_of(&self, owner: Owner) -> impl Iterator<Item = u32> + '_ {
        self.owners.get(&owner).into_iter().flatten().map(|(version, _)| *version)
    }

    /// The groups that have a key, ascending.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.owners.keys().filter_map(|owner| match owner {
            Owner::Group(group) => Some(*group),
            Owner::Files => None,
        })
    }

    /// Whether a group has a data key.
    #[must_use]
    pub fn has(&self, group: GroupId) -> bool {
        self.current(Owner::Group(group)).is_some()
    }

    pub(super) fn file_key(&self) -> (u32, &[u8; 32]) {
        (self.file_key.0, self.key(self.file_key.1))
    }

    pub(super) fn file_key_of_version(&self, version: u32) -> Option<&[u8; 32]> {
        let versions = self.owners.get(&Owner::Files)?;
        versions.iter().rfind(|(held, _)| *held == version).map(|(_, at)| self.key(*at))
    }

    fn current(&self, owner: Owner) -> Option<(u32, usize)> {
        self.owners.get(&owner)?.last().copied()
    }

    fn key(&self, at: usize) -> &[u8; 32] {
        self.content()[at..].first_chunk().expect("`parse` found 32 bytes here")
    }

    fn content(&self) -> &[u8] {
        &self.memory.as_slice()[..self.len]
    }

    /// A new node's keys: one for the files, one for its own group.
    fn first() -> Result<Self> {
        let empty = [0, 0, 0, 1];
        let files = append(&empty, 1, Owner::Files)?;
        let both = append(&files, 2, Owner::Group(GroupId::CLUSTER))?;
        Self::parse(&both).map_err(|why| Error::Folder(why.to_owned()))
    }

    /// These keys and a new one.
    fn with(&self, owner: Owner) -> Result<Self> {
        let content = append(self.content(), self.next_version, owner)?;
        Self::parse(&content).map_err(|why| Error::Folder(format!("the keyring is full: {why}")))
    }

    /// These keys without those of one owner.
    fn without(&self, owner: Owner) -> Result<Self> {
        self.filtered(|held, _| held != owner)
    }

    /// These keys with the newest one of an owner alone; `None` where that changes nothing.
    fn with_newest_of(&self, owner: Owner) -> Result<Option<Self>> {
        let mut versions = self.versions_of(owner);
        match (versions.next(), versions.last()) {
            (Some(_), Some(newest)) => {
                self.filtered(|held, version| held != owner || version == newest).map(Some)
            }
            (Some(_) | None, None) | (None, Some(_)) => Ok(None),
        }
    }

    /// Some of these keys, as another revision.
    fn filtered(&self, keep: impl Fn(Owner, u32) -> bool) -> Result<Self> {
        let content = self.content();
        let next = next_version(self.next_version)?;
        let mut kept = Zeroizing::new(Vec::with_capacity(content.len()));
        kept.extend_from_slice(&next.to_be_bytes());
        for entry in content[4..].chunks_exact(ENTRY_BYTES) {
            if parse_entry(entry).is_some_and(|(owner, version)| keep(owner, version)) {
                kept.extend_from_slice(entry);
            }
        }
        Self::parse(&kept).map_err(|why| Error::Folder(why.to_owned()))
    }

    fn parse(content: &[u8]) -> std::result::Result<Self, &'static str> {
        if content.len() > limits::KEYRING_BYTES_MAX {
            return Err("it holds too many keys");
        }
        let Some((next_version, entries)) = content.split_first_chunk::<4>() else {
            return Err("its content is too short");
        };
        let next_version = u32::from_be_bytes(*next_version);
        let mut owners: BTreeMap<Owner, Vec<(u32, usize)>> = BTreeMap::new();
        let mut at = 4;
        for entry in entries.chunks(ENTRY_BYTES) {
            let (owner, version) = parse_entry(entry).ok_or("one of its entries is unknown")?;
            if version >= next_version {
                return Err("a key version is higher than the next one");
            }
            let versions = owners.entry(owner).or_default();
            if versions.last().is_some_and(|(last, _)| *last >= version) {
                return Err("its key versions are out of order");
            }
            versions.push((version, at + ENTRY_BYTES - 32));
            at += ENTRY_BYTES;
        }
        let newest = |owner| owners.get(&owner).and_then(|versions| versions.last().copied());
        newest(Owner::Group(GroupId::CLUSTER)).ok_or("the node's own key is missing")?;
        let file_key = newest(Owner::Files).ok_or("the file key is missing")?;
        let mut memory = LockedBytes::zeroed(content.len()).map_err(|_| "there is no memory")?;
        memory.as_mut_slice()[..content.len()].copy_from_slice(content);
        Ok(Self { memory, len: content.len(), next_version, owners, file_key })
    }
}

fn parse_entry(entry: &[u8]) -> Option<(Owner, u32)> {
    let (kind, rest) = entry.split_first()?;
    let (group, rest) = rest.split_first_chunk::<8>()?;
    let (version, key) = rest.split_first_chunk::<4>()?;
    let owner = match (kind, u64::from_be_bytes(*group)) {
        (0, group) => Owner::Group(GroupId(group)),
        (1, 0) => Owner::Files,
        _ => return None,
    };
    (key.len() == 32).then_some((owner, u32::from_be_bytes(*version)))
}

fn next_version(version: u32) -> Result<u32> {
    let used_up = || Error::Folder("the keyring has used up its key versions".to_owned());
    version.checked_add(1).ok_or_else(used_up)
}

/// The content with a new random key of `owner` at the end.
fn append(content: &[u8], version: u32, owner: Owner) -> Result<Zeroizing<Vec<u8>>> {
    let next = next_version(version)?;
    let (kind, group) = match owner {
        Owner::Group(group) => (0, group.0),
        Owner::Files => (1, 0),
    };
    let key = SecretKey::random()?;
    let mut new = Zeroizing::new(Vec::with_capacity(content.len() + ENTRY_BYTES));
    new.extend_from_slice(&next.to_be_bytes());
    new.extend_from_slice(&content[4..]);
    new.push(kind);
    new.extend_from_slice(&group.to_be_bytes());
    new.extend_from_slice(&version.to_be_bytes());
    new.extend_from_slice(key.expose());
    Ok(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::os::unix::fs::MetadataExt;

    use super::{super::Purpose, *};

    const GROUP: GroupId = GroupId(9);

    fn place(group: GroupId) -> Place<'static> {
        Place { purpose: Purpose::Record, group, table: 1, key: b"key" }
    }

    fn refused(folder: &Path, master: &MasterKey) -> Error {
        match Keyring::open(folder, master) {
            Ok(_) => panic!("opened"),
            Err(error) => error,
        }
    }

    #[test]
    fn keys_survive_a_restart_and_a_destroyed_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("data");
        let master = MasterKey::random().unwrap();
        let keyring = Keyring::open(&folder, &master).unwrap();
        assert_eq!(fs::metadata(folder.join(KEYRING_FILE)).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(keyring.keys().seal(&place(GROUP), b"x"), Err(Error::NoKey(GROUP))));
        keyring.create(GROUP).unwrap();
        keyring.create(GROUP).unwrap();
        let sealed = keyring.keys().seal(&place(GROUP), b"x").unwrap();
        drop(keyring);

        let keyring = Keyring::open(&folder, &master).unwrap();
        assert_eq!(keyring.keys().open(&place(GROUP), &sealed).unwrap(), b"x");
        keyring.destroy(GROUP).unwrap();
        keyring.destroy(GROUP).unwrap();
        assert!(matches!(keyring.keys().open(&place(GROUP), &sealed), Err(Error::NoKey(GROUP))));
        assert!(keyring.destroy(GroupId::CLUSTER).is_err());
        drop(keyring);

        let keyring = Keyring::open(&folder, &master).unwrap();
        assert!(!keyring.keys().has(GROUP) && keyring.keys().has(GroupId::CLUSTER));
        keyring.create(GROUP).unwrap();
        let result = keyring.keys().open(&place(GROUP), &sealed);
        assert!(matches!(result, Err(Error::NotAuthentic(_))), "a new key opens nothing old");
    }

    #[test]
    fn a_rotated_key_opens_the_old_and_seals_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let keyring =
            Keyring::open(&folder.path().join("data"), &MasterKey::random().unwrap()).unwrap();
        assert!(matches!(keyring.rotate(GROUP), Err(Error::NoKey(GROUP))));
        keyring.create(GROUP).unwrap();
        let old = keyring.keys().seal(&place(GROUP), b"x").unwrap();
        keyring.rotate(GROUP).unwrap();
        let new = keyring.keys().seal(&place(GROUP), b"x").unwrap();
        assert_ne!(seal::key_version(&old).unwrap(), seal::key_version(&new).unwrap());
        for sealed in [old, new] {
            assert_eq!(keyring.keys().open(&place(GROUP), &sealed).unwrap(), b"x");
        }
    }

    #[test]
    fn another_master_key_is_refused_by_its_id_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("data");
        let (right, wrong) = (MasterKey::random().unwrap(), MasterKey::random().unwrap());
        drop(Keyring::open(&folder, &right).unwrap());
        let before = fs::read(folder.join(KEYRING_FILE)).unwrap();
        let error = refused(&folder, &wrong).to_string();
        assert!(error.contains(&right.id().to_string()), "{error}");
        assert!(error.contains(&wrong.id().to_string()), "{error}");
        assert_eq!(fs::read(folder.join(KEYRING_FILE)).unwrap(), before);
        let keyring = Keyring::open(&folder, &right).unwrap();
        keyring.rewrap(&wrong).unwrap();
        assert_eq!(keyring.master_key_id(), wrong.id());
        drop(keyring);
        assert!(matches!(refused(&folder, &right), Error::WrongMasterKey { .. }));
        Keyring::open(&folder, &wrong).unwrap();
    }

    #[test]
    fn a_flipped_bit_or_a_cut_in_the_keyring_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("data");
        let master = MasterKey::random().unwrap();
        drop(Keyring::open(&folder, &master).unwrap());
        let path = folder.join(KEYRING_FILE);
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            refused(&folder, &master);
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            refused(&folder, &master);
        }
        fs::write(&path, vec![b'R'; limits::KEYRING_BYTES_MAX + 1_000]).unwrap();
        assert!(refused(&folder, &master).to_string().contains("too long"));
        fs::write(&path, &good).unwrap();
        Keyring::open(&folder, &master).unwrap();
    }

    #[test]
    fn no_keyring_is_made_over_data() {
        for name in [STORE_FOLDER, SENTINEL_FOLDER] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("data");
            folder::make_private_folder(&folder).unwrap();
            fs::create_dir(folder.join(name)).unwrap();
            let error = refused(&folder, &MasterKey::random().unwrap());
            assert!(matches!(error, Error::KeyringMissing { .. }), "{error}");
            assert!(!folder.join(KEYRING_FILE).exists());
        }
    }

    #[test]
    fn two_at_once_are_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("data");
        let master = MasterKey::random().unwrap();
        let first = Keyring::open(&folder, &master).unwrap();
        assert!(refused(&folder, &master).to_string().contains("in use by another process"));
        drop(first);
        Keyring::open(&folder, &master).unwrap();
    }

    #[test]
    fn the_bytes_of_a_keyring_do_not_change() {
        let master = {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            fs::write(&path, b"0123456789abcdef0123456789ABCDEF").unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&path, private).unwrap();
            MasterKey::load(&super::super::MasterKeySource::File(path), folder.path(), None)
                .unwrap()
        };
        let mut content = vec![0, 0, 0, 3];
        for (kind, version, key) in [(1, 1, 7), (0, 2, 8)] {
            content.push(kind);
            content.extend_from_slice(&[0; 8]);
            content.extend_from_slice(&[0, 0, 0, version]);
            content.extend_from_slice(&[key; 32]);
        }
        let wrap = Wrap::new(&master);
        let sealed = wrap.seal_with_nonce(&content, [9; 24]).unwrap();
        assert_eq!(
            hex::encode(&sealed),
            "524f4f4b4552594b0101148dad7391d32f9409090909090909090909090909090909090909090909\
             090983cb99a817c623d768d070ddf00756f161b309e850117cc5e6fced5185046df4296e5c9a6ebc\
             a7c440015f7a14c8c3d5433025b9cfbfc58a0db95fe42daefa9b2149cb5ae767cd11e757417b3b33\
             5e1f48c1def0987ea813e7f8cdeb4452e9d298e6987472e2bad6c0e9e20e4864"
        );
        let opened = wrap.open(Path::new("keyring"), &sealed).unwrap();
        let keys = Keys::parse(&opened).unwrap();
        assert_eq!(keys.file_key(), (1, &[7; 32]));
        assert_eq!(
            keys.current(Owner::Group(GroupId::CLUSTER)).map(|(version, _)| version),
            Some(2)
        );
    }
}
