//! Sealed bytes of every kind: changed by a script they open as what they were, or not at all.

use std::{
    io::{Cursor, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;

use super::input::{Input, mutate};
use crate::{
    crypto::{
        self, BACKUP_HEADER_BYTES, BackupHeader, BackupKey, BackupReader, BackupWriter,
        ClusterSecret, Expected, FILE_HEADER_BYTES, FileCipher, KEYRING_FILE, Keyring, MasterKey,
        Place, Purpose, SEAL_OVERHEAD_BYTES, SealingKey, SecretKey,
    },
    limits,
    names::{DatabaseId, GroupId, Thumbprint},
};

const GROUP: GroupId = GroupId(3);
const PURPOSES: [Purpose; 4] =
    [Purpose::Record, Purpose::Sentinel, Purpose::SealingKey, Purpose::ServerCertificates];

/// A data folder of this process, removed by the next run that finds it without its owner; a few kilobytes.
struct Folder {
    path: PathBuf,
    master: MasterKey,
}

impl Folder {
    fn new(what: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rookery-fuzz-{what}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path); // That of a process that had the same id.
        Self { path, master: MasterKey::random().unwrap() }
    }

    fn keyring(&self) -> Arc<Keyring> {
        Keyring::open(&self.path, &self.master).unwrap()
    }
}

static KEYRING: LazyLock<Arc<Keyring>> = LazyLock::new(|| {
    let folder = Folder::new("keys");
    let keyring = folder.keyring();
    keyring.create(GROUP).unwrap();
    // It is open, and what was made of it stays in memory.
    let _ = std::fs::remove_dir_all(&folder.path);
    keyring
});

// ---- records ----

/// A record opens in its place with its content, and never as anything else; arbitrary bytes never open.
pub(super) fn record(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let (purpose, table) = (PURPOSES[usize::from(input.byte()) % 4], input.byte());
    let (key, content, script) = (input.piece(), input.piece(), input.piece());
    let keys = KEYRING.keys();
    let place = Place { purpose, group: GROUP, table, key };
    let sealed = keys.seal(&place, content).unwrap();
    assert_eq!(sealed.len(), content.len() + SEAL_OVERHEAD_BYTES);
    assert_eq!(keys.open(&place, &sealed).unwrap(), content);
    let changed = mutate(&sealed, script);
    let tried = changed != sealed;
    match keys.open(&place, &changed) {
        Ok(opened) => assert_eq!((&changed, opened.as_slice()), (&sealed, content), "forged"),
        Err(crypto::Error::NotAuthentic(_)) => assert_ne!(changed, sealed),
        Err(error) => panic!("another error: {error}"),
    }
    let arbitrary = input.rest();
    assert!(keys.open(&place, arbitrary).is_err(), "arbitrary bytes open");
    // The same bytes in any other place.
    let longer = [key, &[0]].concat();
    for elsewhere in [
        Place { key: &longer, ..place },
        Place { table: table.wrapping_add(1), ..place },
        Place { group: GroupId::CLUSTER, ..place },
        Place {
            purpose: PURPOSES[(usize::from(bytes.first().copied().unwrap_or(0)) + 1) % 4],
            ..place
        },
    ] {
        assert!(keys.open(&elsewhere, &sealed).is_err(), "moved");
    }
    tried
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let seed = |key: &[u8], content: &[u8], script: &[u8], rest: &[u8]| {
        let mut bytes = vec![0, 2];
        for piece in [key, content, script] {
            super::input::push_piece(&mut bytes, piece);
        }
        bytes.extend_from_slice(rest);
        bytes
    };
    vec![
        seed(b"key", b"content", b"", b""),
        seed(b"", b"", &[0, 0, 0, 9, 0, 0, 0, 3], &[1; 60]),
        seed(b"key", b"content", &[2, 0, 0, 45, 0, 0, 0, 0], &[1, 0, 0, 0, 1]),
    ]
}

/// Scripts of [`mutate`], for bodies that change what they made themselves.
pub(super) fn script_seeds() -> Vec<Vec<u8>> {
    (0..8).map(|what| vec![what, 0, 0, 20, 0, 0, 30, 5]).chain([Vec::new()]).collect()
}

// ---- headers of files ----

/// The header of a file opens as it was made; the input is a script, then a header.
pub(super) fn file_header(bytes: &[u8]) -> bool {
    let cipher = FileCipher::new(Arc::clone(&KEYRING));
    let mut header = [0; FILE_HEADER_BYTES];
    cipher.new_header(&mut header).unwrap();
    let changed = mutate(&header, bytes);
    let opened = cipher.open(&changed);
    assert_eq!(
        opened.is_ok(),
        changed == header,
        "a changed header opens, or an unchanged does not"
    );
    let mut arbitrary = [0; FILE_HEADER_BYTES];
    let taken = bytes.len().min(FILE_HEADER_BYTES);
    arbitrary[..taken].copy_from_slice(&bytes[..taken]);
    assert!(
        cipher.open(&arbitrary).is_err() && cipher.open(bytes).is_err(),
        "arbitrary bytes open"
    );
    if let Ok(stream) = opened {
        let mut content = bytes.to_vec();
        let offset = bytes.iter().fold(0_u64, |sum, byte| sum * 31 % (1 << 50) + u64::from(*byte));
        stream.apply(offset, &mut content).unwrap();
        stream.apply(offset, &mut content).unwrap();
        assert_eq!(content, bytes);
    }
    changed != header
}

// ---- the keyring ----

static KEYRING_FOLDER: LazyLock<Mutex<(Folder, Vec<u8>)>> = LazyLock::new(|| {
    let folder = Folder::new("keyring");
    let keyring = folder.keyring();
    keyring.create(GROUP).unwrap();
    drop(keyring);
    let valid = std::fs::read(folder.path.join(KEYRING_FILE)).unwrap();
    Mutex::new((folder, valid))
});

/// A keyring opens as it was written; a changed one is refused, and stays as it is for whoever mends it.
pub(super) fn keyring(bytes: &[u8]) -> bool {
    let folder = KEYRING_FOLDER.lock();
    let (folder, valid) = &*folder;
    let path = folder.path.join(KEYRING_FILE);
    let tried = mutate(valid, bytes) != *valid;
    for file in [mutate(valid, bytes), bytes.to_vec()] {
        write_private(&path, &file);
        let opened = Keyring::open(&folder.path, &folder.master);
        assert_eq!(opened.is_ok(), file == *valid, "a changed keyring opens, or its own does not");
        match opened.map(|keyring| keyring.keys().has(GROUP)) {
            Ok(has) => assert!(has),
            Err(crypto::Error::Keyring { .. } | crypto::Error::WrongMasterKey { .. }) => {}
            Err(error) => panic!("another error: {error}"),
        }
        assert_eq!(std::fs::read(&path).unwrap(), file, "a refused keyring was changed");
    }
    tried
}

fn write_private(path: &Path, content: &[u8]) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(content).unwrap();
}

// ---- backups ----

/// A backup gives out a beginning of what was written, whole chunks of it, and its end only where nothing was changed.
pub(super) fn backup(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let (length, pieces, script) = (input.short() % 5_000, input.byte(), input.piece());
    let key = BackupKey::given(SecretKey::take(&mut [7; 32]));
    let content: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0] ^ pieces).collect();
    let chunk_bytes = limits::BACKUP_CHUNK_BYTES_MIN;
    let mut writer = BackupWriter::full(Vec::new(), &key, DatabaseId(1), chunk_bytes).unwrap();
    for piece in content.chunks(usize::from(pieces) + 1) {
        writer.write_all(piece).unwrap();
    }
    let (stream, whole) = writer.finish().unwrap();
    let changed = mutate(&stream, script);
    let (given, ended) = read_backup(&changed, &key);
    assert!(content.starts_with(&given), "gave out what was never written");
    let whole_chunks = given.len() % chunk_bytes == 0 || given.len() == content.len();
    assert!(whole_chunks, "gave out a part of a chunk");
    match ended {
        Ok(read) => {
            assert_eq!(
                (&changed, given, read),
                (&stream, content, whole),
                "a changed backup is whole"
            );
        }
        Err(error) => {
            assert_ne!(changed, stream, "an unchanged backup is refused: {error}");
        }
    }
    let (given, ended) = read_backup(input.rest(), &key);
    assert!(given.is_empty() && ended.is_err(), "arbitrary bytes are a backup");
    if let Some(header) = changed_header(script, bytes) {
        assert!(header.chunk_bytes <= limits::BACKUP_CHUNK_BYTES_MAX);
    }
    changed != stream
}

fn changed_header(script: &[u8], bytes: &[u8]) -> Option<BackupHeader> {
    let mut header = [0; BACKUP_HEADER_BYTES];
    let taken = bytes.len().min(BACKUP_HEADER_BYTES);
    header[..taken].copy_from_slice(&bytes[..taken]);
    BackupHeader::parse(mutate(&header, script).first_chunk()?).ok()
}

fn read_backup(stream: &[u8], key: &BackupKey) -> (Vec<u8>, std::io::Result<crypto::WholeBackup>) {
    let mut given = Vec::new();
    let reader = BackupReader::open(Cursor::new(stream), key, Expected::Full(DatabaseId(1)));
    let ended =
        reader.and_then(|mut reader| reader.read_to_end(&mut given).and_then(|_| reader.finish()));
    (given, ended)
}

pub(super) fn backup_seeds() -> Vec<Vec<u8>> {
    let seed = |length: u16, script: &[u8]| {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.push(200);
        super::input::push_piece(&mut bytes, script);
        bytes
    };
    vec![
        seed(0, &[]),
        seed(1_024, &[2, 0, 0, 149, 0, 0, 0, 0]),
        seed(3_000, &[6, 0, 0, 150, 4, 160, 0, 31]),
        seed(2_048, &[7, 0, 0, 16, 0, 0, 0, 0]),
    ]
}

// ---- secrets for members ----

/// What is sealed to a node or by the cluster secret opens for its purpose and owner, unchanged, alone.
pub(super) fn secret(bytes: &[u8]) -> bool {
    static SEALING: LazyLock<SealingKey> = LazyLock::new(|| SealingKey::make().unwrap());
    let owner = Thumbprint::of(b"owner");
    let sealed = SEALING.public().seal("purpose", b"context", bytes).unwrap();
    let changed = mutate(&sealed, bytes);
    let opened = SEALING.open("purpose", b"context", &changed);
    assert_eq!(opened.is_ok(), changed == sealed, "sealed to a node");
    assert!(SEALING.open("purpose", b"context", bytes).is_err());
    assert!(SEALING.open("another", b"context", &sealed).is_err());
    let secret = ClusterSecret::take(1, &vec![8; 32].into()).unwrap();
    let sealed = secret.seal("purpose", &owner, bytes).unwrap();
    let changed = mutate(&sealed, bytes);
    let opened = secret.open("purpose", &owner, &changed);
    assert_eq!(opened.is_ok(), changed == sealed, "sealed by the cluster secret");
    assert!(secret.open("purpose", &owner, bytes).is_err());
    assert!(secret.open("purpose", &Thumbprint::of(b"another"), &sealed).is_err());
    assert!(secret.open("another", &owner, &sealed).is_err());
    changed != sealed
}
