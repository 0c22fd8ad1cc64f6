//! The store on RocksDB: sealed values in encrypted files.
//!
//! A key on disk is `group (8, big endian) ‖ generation (4, big endian) ‖ key`, so a space is one range of its column
//! family, and its 12 bytes are the prefix that scans and filters know. A value is sealed for its purpose, group,
//! table and the whole key on disk.
//!
//! What RocksDB is told, and why:
//! - Every file goes through the encrypting environment; logs are never recycled, nothing is mapped, nothing goes past
//!   the page cache: the cipher must see every byte, and no keystream is used twice.
//! - A damaged write-ahead log stops the start, and only a torn end is forgiven; the default would drop what follows a
//!   flipped bit without a word. Each log names its predecessor and how far it went, so one that is missing or cut
//!   before another is found as well; that includes a power cut in the few milliseconds between a new log and the sync
//!   of the full one before it, if the disk then kept the later writes and lost the earlier: the node must join anew.
//!   What no mode finds, the newest log cut at the end of a record, is what the sentinel is for (`sentinel.rs`).
//! - All column families are flushed together, so the state never gets ahead of, or behind, its own position.
//! - No compression: the length of a compressed value would tell of its content.
//! - The first failed write is final, a flush or compaction in the background included: [`Rocks::on_failure`] is told, and
//!   the process ends. RocksDB would try to recover by itself, and that could bring half writes back.
//! - Before a write there is a look at the room of the file system ([`Room`]); while there is little, nothing is compacted.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    ops::{Bound, ControlFlow},
    path::{Path, PathBuf},
    sync::{Arc, Weak, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::RwLock;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBPinnableSlice, DBRawIteratorWithThreadMode, DBRecoveryMode, FlushOptions, InfoLogger,
    LogLevel, Options, ReadOptions, SliceTransform, WriteBatch, WriteOptions,
};

use super::{
    Batch, Change, Durability, Error, Read, Result, Space, Store, Table,
    env::{self, OwnedSnapshot},
    failing::Failing,
    room::{Level, Room},
    sentinel,
};
use crate::{
    crypto::{
        self, FILE_HEADER_BYTES, FileCipher, KEYRING_FILE, Keyring, Place, Purpose,
        SENTINEL_FOLDER, STORE_FOLDER, make_private_folder, sync_folder,
    },
    fault::fault_point,
    names::GroupId,
};

mod files;
mod readers;
mod reseal;
mod verify;

pub use files::FilesByKey;
use readers::{Readers, Reading};
pub use reseal::{Named, Step, Unused, Walk};
pub use verify::{Failure, Verified, verify};

/// Group and generation.
const PREFIX_BYTES: usize = 8 + 4;
const BLOCK_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Of each of the four column families.
const WRITE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Of all column families together.
const WRITE_BUFFERS_BYTES: usize = 48 * 1024 * 1024;
const WAL_BYTES_MAX: u64 = 128 * 1024 * 1024;
const MANIFEST_BYTES_MAX: usize = 16 * 1024 * 1024;
const OPEN_FILES_MAX: i32 = 1_024;
const BLOOM_BITS_PER_KEY: f64 = 10.0;

const TABLES: [Table; 3] = [Table::Node, Table::Raft, Table::State];

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Raft => "raft",
            Self::State => "state",
        }
    }

    /// Stands in the associated data of every value: never change one.
    fn number(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Raft => 2,
            Self::State => 3,
        }
    }
}

/// The encrypted store of a node's data folder.
pub struct Rocks {
    inner: Arc<Inner>,
    _watch: Watch,
}

struct Inner {
    database: Arc<DB>,
    keyring: Arc<Keyring>,
    /// The folder of the engine's files, for messages.
    path: PathBuf,
    room: Arc<Room>,
    failing: Failing,
    /// Shared by writes; taken alone for a moment where records are sealed again (`reseal.rs`).
    gate: RwLock<()>,
    readers: Readers,
}

impl Rocks {
    /// Opens the store in a data folder, whose keyring this is; makes it where there is none yet.
    ///
    /// Blocks; replays the write-ahead log.
    ///
    /// # Errors
    /// [`Error::Folder`]: not private, in use, or parts of the data are gone. [`Error::Engine`]: damaged files, with
    /// the file and the check in the text, or a file system that fails.
    pub fn open(folder: &Path, keyring: Arc<Keyring>) -> Result<Arc<Self>> {
        Self::open_within(folder, keyring, Arc::new(Room::unwatched()))
    }

    /// As [`Rocks::open`], in a file system whose room is looked at before each write, and a few times a second.
    ///
    /// # Errors
    /// As [`Rocks::open`].
    pub fn open_within(folder: &Path, keyring: Arc<Keyring>, room: Arc<Room>) -> Result<Arc<Self>> {
        make_private_folder(folder)?;
        let store = folder.join(STORE_FOLDER);
        let env = env::encrypting(FileCipher::new(Arc::clone(&keyring)));
        if !exists(&store)? {
            create(folder, &store, &keyring, &env)?;
        }
        make_private_folder(&store)?;
        empty_unwritten_log(&store)?;
        files::drop_remade(&store, keyring.keys().file_versions().last().unwrap_or_default())?;
        let database = Arc::new(open_database(&store, &env, false)?);
        let inner = Inner {
            database,
            keyring,
            path: store,
            room,
            failing: Failing::default(),
            gate: RwLock::new(()),
            readers: Readers::default(),
        };
        let inner = Arc::new(inner);
        let watch = Watch::start(Arc::downgrade(&inner))?;
        Ok(Arc::new(Self { inner, _watch: watch }))
    }

    /// Called once, from another thread, when a write, a flush, a compaction or a change of the keyring failed: the
    /// process must end, because nobody can tell what is on the disk.
    pub fn on_failure(&self, callback: impl FnOnce(&str) + Send + 'static) {
        self.inner.failing.on_failure(callback);
    }

    /// Writes what is in memory to tables, so that the next start replays little.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn flush(&self) -> Result<()> {
        let mut handles = vec![column_family(&self.inner.database, "default")?];
        for table in TABLES {
            handles.push(column_family(&self.inner.database, table.name())?);
        }
        let handles: Vec<_> = handles.iter().collect();
        let result = self.inner.database.flush_cfs_opt(&handles, &FlushOptions::default());
        result.map_err(|error| self.inner.fail(&error))
    }

    /// Whether the engine has given up a flush or a compaction.
    #[cfg(test)]
    fn has_failed(&self) -> bool {
        self.inner.failing.why().is_some()
    }

    /// Rewrites the tables of a group's column family range without what was deleted.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn compact(&self, space: Space) -> Result<()> {
        let handle = column_family(&self.inner.database, space.table.name())?;
        let prefix = prefix(space);
        let end = after_prefix(&prefix);
        self.inner.database.compact_range_cf(&handle, Some(prefix.as_slice()), end.as_deref());
        Ok(())
    }

    /// The generations of a group that hold a record, ascending.
    fn generations(&self, table: Table, group: GroupId) -> Result<Vec<u32>> {
        let handle = column_family(&self.inner.database, table.name())?;
        let mut found = Vec::new();
        let mut iterator = self.inner.database.raw_iterator_cf_opt(&handle, total_order());
        iterator.seek(prefix(Space { table, group, generation: 0 }));
        while let Some(key) = iterator.key() {
            let Some(generation) = generation_of(key, group) else { break };
            found.push(generation);
            let Some(next) = after_prefix(&prefix(Space { table, group, generation })) else {
                break;
            };
            iterator.seek(next);
        }
        iterator.status().map_err(|error| self.inner.fail(&error))?;
        Ok(found)
    }
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| file_error("cannot be looked for", path, &error))
}

fn file_error(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::Engine(format!("{} {what}: {error}", path.display()))
}

/// Makes the store aside and renames it, so that a store that exists was once complete.
fn create(folder: &Path, store: &Path, keyring: &Keyring, env: &rocksdb::Env) -> Result<()> {
    match sentinel::newest(folder, keyring)? {
        Some(sentinel) if sentinel.sequence > sentinel::FIRST_SEQUENCE => {
            return Err(Error::Folder(format!(
                "{} is gone, but the sentinel in {SENTINEL_FOLDER} says that there was one; restore it from a copy, \
                 or delete the whole data folder and let the node join anew",
                store.display()
            )));
        }
        Some(_) => {}
        None => sentinel::create(folder, keyring)?,
    }
    let aside = store.with_extension("new");
    if exists(&aside)? {
        fs::remove_dir_all(&aside)
            .map_err(|error| file_error("cannot be removed", &aside, &error))?;
    }
    make_private_folder(&aside)?;
    drop(open_database(&aside, env, true)?);
    sync_folder(&aside)?;
    fs::rename(&aside, store).map_err(|error| file_error("cannot be renamed", &aside, &error))?;
    sync_folder(folder)?;
    Ok(())
}

fn open_database(store: &Path, env: &rocksdb::Env, create: bool) -> Result<DB> {
    let options = database_options(env, create)?;
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let families = ["default"].into_iter().chain(TABLES.map(Table::name));
    let families =
        families.map(|name| ColumnFamilyDescriptor::new(name, family_options(env, &cache)));
    DB::open_cf_descriptors(&options, store, families.collect::<Vec<_>>()).map_err(|error| {
        let text = error.to_string();
        if text.contains("lock") && text.contains("LOCK") {
            return Error::Folder(format!("{} is in use by another process", store.display()));
        }
        Error::Engine(format!("the store in {} cannot be opened: {text}", store.display()))
    })
}

fn database_options(env: &rocksdb::Env, create: bool) -> Result<Options> {
    // Two options that the binding has no call for.
    let mut options = Options::default()
        .get_options_from_string("track_and_verify_wals=true;max_bgerror_resume_count=0")
        .map_err(|error| Error::Engine(error.to_string()))?;
    options.set_env(env);
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_atomic_flush(true);
    options.set_recycle_log_file_num(0);
    options.set_manual_wal_flush(false);
    options.set_allow_mmap_reads(false);
    options.set_allow_mmap_writes(false);
    options.set_use_direct_reads(false);
    options.set_use_direct_io_for_flush_and_compaction(false);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1024 * 1024);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, log));
    Ok(options)
}

fn family_options(env: &rocksdb::Env, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_env(env);
    options.set_block_based_table_factory(&table);
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(PREFIX_BYTES));
    options.set_memtable_prefix_bloom_ratio(0.05);
    options.set_compression_type(DBCompressionType::None);
    options.set_bottommost_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(3);
    options
}

/// RocksDB's own log, from warnings up: lower lines name keys.
fn log(level: LogLevel, line: &str) {
    let line = line.trim_end().escape_debug();
    match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "rocksdb", "{line}"),
        LogLevel::Warn => tracing::warn!(target: "rocksdb", "{line}"),
        LogLevel::Debug | LogLevel::Info | LogLevel::Header => {}
    }
}

/// Empties the newest write-ahead log where a crash came between its creation and its first sync.
///
/// Then its header is short, or the file has a length and no content yet. It never held anything that was synced.
fn empty_unwritten_log(store: &Path) -> Result<()> {
    let Some(path) = newest_log(store)? else { return Ok(()) };
    let failed = |error: io::Error| file_error("cannot be checked", &path, &error);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() == 0 {
        return Ok(());
    }
    let mut header = Vec::with_capacity(FILE_HEADER_BYTES);
    (&file).take(FILE_HEADER_BYTES as u64).read_to_end(&mut header).map_err(failed)?;
    if header.len() == FILE_HEADER_BYTES && header.iter().any(|byte| *byte != 0) {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "the newest write-ahead log was never written; it is taken as empty");
    file.set_len(0).and_then(|()| file.sync_all()).map_err(failed)
}

fn newest_log(store: &Path) -> Result<Option<PathBuf>> {
    let failed = |error: io::Error| file_error("cannot be listed", store, &error);
    let mut newest = None;
    for entry in fs::read_dir(store).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".log")?.parse::<u64>().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(highest, _)| *highest < number)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

fn column_family<'a>(database: &'a DB, name: &str) -> Result<Arc<BoundColumnFamily<'a>>> {
    database
        .cf_handle(name)
        .ok_or_else(|| Error::Engine(format!("the store has no column family {name}")))
}

fn prefix(space: Space) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..8].copy_from_slice(&space.group.0.to_be_bytes());
    prefix[8..].copy_from_slice(&space.generation.to_be_bytes());
    prefix
}

/// The generation in the prefix of a key, if the key belongs to `group`.
fn generation_of(key: &[u8], group: GroupId) -> Option<u32> {
    let (of, rest) = key.split_first_chunk::<8>()?;
    let (generation, _) = rest.split_first_chunk::<4>()?;
    (u64::from_be_bytes(*of) == group.0).then(|| u32::from_be_bytes(*generation))
}

/// Reads that cross prefixes.
fn total_order() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options
}

fn full_key(space: Space, key: &[u8]) -> Vec<u8> {
    [prefix(space).as_slice(), key].concat()
}

/// The first key after all keys of a space; `None` at the very end.
fn after_prefix(prefix: &[u8; PREFIX_BYTES]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn place<'a>(space: Space, full_key: &'a [u8]) -> Place<'a> {
    Place {
        purpose: Purpose::Record,
        group: space.group,
        table: space.table.number(),
        key: full_key,
    }
}

/// One line for whoever has to mend it.
pub(super) fn write_failure(path: &Path, error: &impl std::fmt::Display) -> String {
    let error = error.to_string();
    let what_to_do = match error.to_ascii_lowercase().contains("no space") {
        true => "make room on its file system",
        false => "look at its disk and file system",
    };
    format!(
        "{} cannot be written: {error}; {what_to_do}, then start the node again",
        path.display()
    )
}

const BACKGROUND_ERRORS: &str = "rocksdb.background-errors";

/// Looks at the engine and its room a few times a second, until the store is dropped.
struct Watch {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

const WATCH_INTERVAL: Duration = Duration::from_millis(200);

impl Watch {
    fn start(inner: Weak<Inner>) -> Result<Self> {
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store-watch".to_owned())
            .spawn(move || watch(&inner, &ended))
            .map_err(|error| Error::Engine(format!("no thread to watch the store: {error}")))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end = None;
        // The last handle may go with what the thread itself drops.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // It panics nowhere, and nothing is left to do here.
            let _ = thread.join();
        }
    }
}

fn watch(inner: &Weak<Inner>, ended: &mpsc::Receiver<()>) {
    let mut compacts = true;
    while ended.recv_timeout(WATCH_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        let Some(inner) = inner.upgrade() else { return };
        match inner.room.look() {
            Ok(look) => {
                let enough = look.level == Level::Enough;
                if compacts != enough {
                    inner.compact_by_itself(enough);
                    compacts = enough;
                }
            }
            Err(error) => {
                let _told = inner.fail(&error); // There is nobody here to give it to.
            }
        }
        inner.check_background();
    }
}

fn engine(error: &rocksdb::Error) -> Error {
    Error::Engine(error.to_string())
}

impl From<crypto::Error> for Error {
    fn from(error: crypto::Error) -> Self {
        match error {
            crypto::Error::NoKey(group) => Self::NoKey(group),
            crypto::Error::Random(why) => Self::Engine(why),
            crypto::Error::MasterKey(_)
            | crypto::Error::WrongMasterKey { .. }
            | crypto::Error::KeyringMissing { .. }
            | crypto::Error::Keyring { .. }
            | crypto::Error::Folder(_)
            | crypto::Error::Io { .. }
            | crypto::Error::NotAuthentic(_)
            | crypto::Error::OtherFileKey { .. } => Self::Folder(error.to_string()),
        }
    }
}

impl Inner {
    fn open(&self, space: Space, full_key: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        self.keyring.keys().open(&place(space, full_key), sealed).map_err(|error| {
            if let crypto::Error::NotAuthentic(why) = error {
                return Error::Corrupt { space, why };
            }
            error.into()
        })
    }

    /// Remembers that a write failed, and has it told.
    fn fail(&self, error: &impl std::fmt::Display) -> Error {
        self.fail_with(&self.path, error)
    }

    fn fail_with(&self, path: &Path, error: &impl std::fmt::Display) -> Error {
        let why = write_failure(path, error);
        self.failing.fail(&why);
        Error::Engine(why)
    }

    /// A change of the keyring; one that did not get to the disk is as final as a failed write.
    fn keyring<T>(&self, changed: crypto::Result<T>) -> Result<T> {
        changed.map_err(|error| {
            if let crypto::Error::Io { source, .. } = &error {
                return self.fail_with(&self.path.with_file_name(KEYRING_FILE), source);
            }
            error.into()
        })
    }

    /// What the engine did in the background.
    fn check_background(&self) {
        let errors = self.database.property_int_value(BACKGROUND_ERRORS);
        if errors.ok().flatten().is_some_and(|errors| errors > 0) {
            let error =
                "a flush or a compaction in the background failed; the lines before say why";
            let _told = self.fail(&error); // There is nobody here to give it to.
        }
    }

    /// Compaction needs room before it gives any back.
    fn compact_by_itself(&self, wanted: bool) {
        let value = if wanted { "false" } else { "true" };
        for table in TABLES {
            let set = column_family(&self.database, table.name()).and_then(|handle| {
                let options = [("disable_auto_compactions", value)];
                let set = self.database.set_options_cf(&handle, &options);
                set.map_err(|error| engine(&error))
            });
            if let Err(error) = set {
                tracing::warn!(table = table.name(), %error, "compaction cannot be switched");
            }
        }
    }

    fn check_working(&self) -> Result<()> {
        match self.failing.why() {
            Some(why) => Err(Error::Engine(format!("nothing is written after a failure: {why}"))),
            None => Ok(()),
        }
    }

    fn engine_batch(&self, batch: &Batch) -> Result<WriteBatch> {
        let keys = self.keyring.keys();
        let mut out = WriteBatch::default();
        for change in &batch.changes {
            match change {
                Change::Put(space, key, value) => {
                    let handle = column_family(&self.database, space.table.name())?;
                    let full_key = full_key(*space, key);
                    out.put_cf(&handle, &full_key, keys.seal(&place(*space, &full_key), value)?);
                }
                Change::Delete(space, key) => {
                    let handle = column_family(&self.database, space.table.name())?;
                    out.delete_cf(&handle, full_key(*space, key));
                }
                Change::DeleteRange(space, from, to) => {
                    let handle = column_family(&self.database, space.table.name())?;
                    let from = full_key(*space, from);
                    let to = match to {
                        Some(to) => full_key(*space, to),
                        None => after_prefix(&prefix(*space)).ok_or_else(|| {
                            Error::Engine("no range ends after the last space".to_owned())
                        })?,
                    };
                    // RocksDB refuses a range that ends before it begins; it holds nothing.
                    if from < to {
                        out.delete_range_cf(&handle, from, to);
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Where reads go: to the newest data, or to a snapshot.
trait Source: Send + Sync {
    fn inner(&self) -> &Inner;

    fn pinned(
        &self,
        handle: &Arc<BoundColumnFamily<'_>>,
        key: &[u8],
    ) -> std::result::Result<Option<DBPinnableSlice<'_>>, rocksdb::Error>;

    fn iterator<'a>(
        &'a self,
        handle: &Arc<BoundColumnFamily<'a>>,
        options: ReadOptions,
    ) -> DBRawIteratorWithThreadMode<'a, DB>;
}

impl Source for Rocks {
    fn inner(&self) -> &Inner {
        &self.inner
    }

    fn pinned(
        &self,
        handle: &Arc<BoundColumnFamily<'_>>,
        key: &[u8],
    ) -> std::result::Result<Option<DBPinnableSlice<'_>>, rocksdb::Error> {
        self.inner.database.get_pinned_cf(handle, key)
    }

    fn iterator<'a>(
        &'a self,
        handle: &Arc<BoundColumnFamily<'a>>,
        options: ReadOptions,
    ) -> DBRawIteratorWithThreadMode<'a, DB> {
        self.inner.database.raw_iterator_cf_opt(handle, options)
    }
}

/// A consistent view; keeps the database open as long as it lives.
struct View {
    inner: Arc<Inner>,
    snapshot: OwnedSnapshot,
    reader: u64,
}

impl Drop for View {
    fn drop(&mut self) {
        self.inner.readers.leave(self.reader);
    }
}

impl Source for View {
    fn inner(&self) -> &Inner {
        &self.inner
    }

    fn pinned(
        &self,
        handle: &Arc<BoundColumnFamily<'_>>,
        key: &[u8],
    ) -> std::result::Result<Option<DBPinnableSlice<'_>>, rocksdb::Error> {
        self.snapshot.snapshot().get_pinned_cf(handle, key)
    }

    fn iterator<'a>(
        &'a self,
        handle: &Arc<BoundColumnFamily<'a>>,
        options: ReadOptions,
    ) -> DBRawIteratorWithThreadMode<'a, DB> {
        self.snapshot.snapshot().raw_iterator_cf_opt(handle, options)
    }
}

fn get(source: &impl Source, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let inner = source.inner();
    let _reading = Reading::begin(&inner.readers);
    let handle = column_family(&inner.database, space.table.name())?;
    let full_key = full_key(space, key);
    let sealed = source.pinned(&handle, &full_key).map_err(|error| engine(&error))?;
    sealed.map(|sealed| inner.open(space, &full_key, &sealed)).transpose()
}

fn scan(
    source: &impl Source,
    space: Space,
    from: &[u8],
    to: Bound<&[u8]>,
    visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
) -> Result<()> {
    let inner = source.inner();
    let _reading = Reading::begin(&inner.readers);
    let handle = column_family(&inner.database, space.table.name())?;
    let prefix = prefix(space);
    let mut options = ReadOptions::default();
    options.set_prefix_same_as_start(true);
    let end = match to {
        Bound::Excluded(to) => Some(full_key(space, to)),
        Bound::Included(to) => Some([prefix.as_slice(), to, &[0]].concat()),
        Bound::Unbounded => after_prefix(&prefix),
    };
    let from = full_key(space, from);
    if end.as_ref().is_some_and(|end| *end <= from) {
        return Ok(());
    }
    if let Some(end) = end {
        options.set_iterate_upper_bound(end);
    }
    let mut iterator = source.iterator(&handle, options);
    iterator.seek(&from);
    while let Some((full_key, sealed)) = iterator.item() {
        // The bounds above already hold it inside; this is the second fence.
        let Some(key) = full_key.strip_prefix(prefix.as_slice()) else { break };
        let value = inner.open(space, full_key, sealed)?;
        if visit(key, value).is_break() {
            return Ok(());
        }
        iterator.next();
    }
    iterator.status().map_err(|error| engine(&error))
}

fn last(source: &impl Source, space: Space) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let inner = source.inner();
    let _reading = Reading::begin(&inner.readers);
    let handle = column_family(&inner.database, space.table.name())?;
    let prefix = prefix(space);
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options.set_iterate_lower_bound(prefix.as_slice());
    if let Some(end) = after_prefix(&prefix) {
        options.set_iterate_upper_bound(end);
    }
    let mut iterator = source.iterator(&handle, options);
    iterator.seek_to_last();
    let Some((full_key, sealed)) = iterator.item() else {
        return iterator.status().map(|()| None).map_err(|error| engine(&error));
    };
    let Some(key) = full_key.strip_prefix(prefix.as_slice()) else { return Ok(None) };
    Ok(Some((key.to_vec(), inner.open(space, full_key, sealed)?)))
}

macro_rules! read_through_source {
    ($($name:ident),*) => {$(
        impl Read for $name {
            fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
                get(self, space, key)
            }

            fn scan(
                &self,
                space: Space,
                from: &[u8],
                to: Bound<&[u8]>,
                visit: &mut dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()>,
            ) -> Result<()> {
                scan(self, space, from, to, visit)
            }

            fn last(&self, space: Space) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
                last(self, space)
            }
        }
    )*};
}
read_through_source!(Rocks, View);

impl Store for Rocks {
    fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        self.inner.check_working()?;
        let _among_others = self.inner.gate.read();
        let batch = self.inner.engine_batch(&batch)?;
        self.inner.room.make_room(batch.size_in_bytes())?;
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        fault_point!("store-write-before").map_err(|error| self.inner.fail(&error))?;
        self.inner.database.write_opt(batch, &options).map_err(|error| self.inner.fail(&error))?;
        fault_point!("store-write-after").map_err(|error| self.inner.fail(&error))
    }

    fn view(&self) -> Arc<dyn Read> {
        let inner = Arc::clone(&self.inner);
        let reader = inner.readers.enter();
        let snapshot = OwnedSnapshot::new(Arc::clone(&inner.database));
        Arc::new(View { inner, snapshot, reader })
    }

    fn has_key(&self, group: GroupId) -> bool {
        self.inner.keyring.keys().has(group)
    }

    fn clear_group(&self, group: GroupId) -> Result<()> {
        if group == GroupId::CLUSTER {
            return Err(Error::Folder("the cluster group's records are never cleared".to_owned()));
        }
        let mut batch = Batch::default();
        for table in TABLES {
            for generation in self.generations(table, group)? {
                batch.delete_range(Space { table, group, generation }, Vec::new(), None);
            }
        }
        self.write(batch, Durability::Synced)
    }

    fn create_key(&self, group: GroupId) -> Result<()> {
        self.inner.keyring(self.inner.keyring.create(group))
    }

    fn destroy_key(&self, group: GroupId) -> Result<()> {
        self.inner.keyring(self.inner.keyring.destroy(group))
    }
}

#[cfg(test)]
mod tests;
