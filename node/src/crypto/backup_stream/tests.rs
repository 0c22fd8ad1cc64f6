//! Tests of the format: golden bytes, every change refused by name, any split of writes and reads.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use sha2::Digest as _;

use super::*;
use crate::crypto::{Keyring, MasterKey};

const DATABASE: DatabaseId = DatabaseId(7);
const CHUNK: usize = limits::BACKUP_CHUNK_BYTES_MIN;
const SEALED_CHUNK: usize = CHUNK + TAG_BYTES;

fn key() -> BackupKey {
    BackupKey::given(SecretKey::take(&mut [7; 32]))
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251).to_le_bytes()[0]).collect()
}

fn write(position: &Position<'_>, content: &[u8]) -> (Vec<u8>, WholeBackup) {
    let mut writer = BackupWriter::begin(Vec::new(), &key(), position, CHUNK, [9; 32]).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn full(content: &[u8]) -> (Vec<u8>, WholeBackup) {
    write(&Position::Full(DATABASE, ChainId([3; 16])), content)
}

/// What was given out, and how it ended.
fn read(
    stream: &[u8],
    key: &BackupKey,
    expected: Expected<'_>,
) -> (Vec<u8>, Result<WholeBackup, BackupError>) {
    let mut given = Vec::new();
    let ended = BackupReader::open(Cursor::new(stream), key, expected)
        .and_then(|mut reader| reader.read_to_end(&mut given).and_then(|_| reader.finish()))
        .map_err(|error| error.downcast().unwrap());
    (given, ended)
}

fn read_full(stream: &[u8]) -> (Vec<u8>, Result<WholeBackup, BackupError>) {
    read(stream, &key(), Expected::Full(DATABASE))
}

/// The stream ends with this error, and gave out nothing but a beginning of what was written.
fn refused(stream: &[u8], written: &[u8], why: &str) -> BackupError {
    let (given, ended) = read_full(stream);
    assert!(written.starts_with(&given), "{why}: gave out what was never written");
    ended.expect_err(why)
}

#[test]
fn the_bytes_of_a_stream_do_not_change() {
    let (stream, whole) = full(b"content");
    // Computed by an implementation of its own, too.
    assert_eq!(
        hex::encode(&stream),
        "524f4f4b45525942011ac874ec2c92aed600000000000000070303030303030303030303030303030300000000000000\
         000000000000000000000000000000000000000000000000000000000000000000000004000909090909090909090909\
         09090909090909090909090909090909090909090929ddb3ad713f236e629a69f3b4a2eab528e434f0a5c99fe65f8852\
         ff4d57ef5dd226c46170b8df6dee8949d9bd08f49f5bd95826254fa7"
    );
    let (increment, _) = write(&Position::After(&whole), &content(CHUNK + 1));
    assert_eq!(stream.len(), BACKUP_HEADER_BYTES + b"content".len() + TAG_BYTES);
    assert_eq!(increment.len(), BACKUP_HEADER_BYTES + SEALED_CHUNK + 1 + TAG_BYTES);
    assert_eq!(
        hex::encode(sha2::Sha256::digest(&increment)),
        "323142a4bfe0e07ffeacf1affbe816413eba94bc5ffa5a6c00a7398a30e975e5"
    );
    assert_eq!(read_full(&stream), (b"content".to_vec(), Ok(whole)));
}

#[test]
fn what_was_written_is_read_at_every_length_around_a_chunk() {
    for bytes in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 3 * CHUNK + 17] {
        let written = content(bytes);
        let (stream, whole) = full(&written);
        assert_eq!(read_full(&stream), (written, Ok(whole)), "{bytes} bytes");
        let chunks = bytes.div_ceil(CHUNK).max(1);
        assert_eq!(stream.len(), BACKUP_HEADER_BYTES + bytes + chunks * TAG_BYTES, "{bytes} bytes");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_where_it_is() {
    let written = content(2 * CHUNK + 100);
    let (stream, _) = full(&written);
    let body = stream.len() - BACKUP_HEADER_BYTES;
    // Every bit of the header; of the chunks the ends of each, their tags, and some in between.
    let borders = (0..3).flat_map(|chunk| {
        let (from, to) = (chunk * SEALED_CHUNK, ((chunk + 1) * SEALED_CHUNK).min(body));
        (from..from + 4).chain(to - TAG_BYTES - 4..to)
    });
    let bytes = (0..BACKUP_HEADER_BYTES)
        .chain(borders.chain((0..body).step_by(97)).map(|at| BACKUP_HEADER_BYTES + at));
    for bit in bytes.flat_map(|byte| byte * 8..byte * 8 + 8) {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (given, ended) = read_full(&flipped);
        let error = ended.expect_err("a flipped bit is read");
        match (bit / 8).checked_sub(BACKUP_HEADER_BYTES) {
            None => assert!(given.is_empty(), "bit {bit}"),
            Some(at) => {
                let chunk = at / SEALED_CHUNK;
                assert_eq!(error, BackupError::Chunk(chunk as u64), "bit {bit}");
                assert_eq!(given, written[..chunk * CHUNK], "bit {bit}");
            }
        }
    }
}

#[test]
fn a_stream_that_was_cut_anywhere_is_refused() {
    let written = content(2 * CHUNK + 100);
    let (stream, _) = full(&written);
    for len in 0..stream.len() {
        refused(&stream[..len], &written, &format!("cut at {len}"));
    }
    let border = |chunks| &stream[..BACKUP_HEADER_BYTES + chunks * SEALED_CHUNK];
    assert_eq!(refused(border(0), &written, "no chunk"), BackupError::CutOff(0));
    assert_eq!(refused(border(1), &written, "one chunk"), BackupError::CutOff(0));
    assert_eq!(refused(border(2), &written, "two chunks"), BackupError::CutOff(1));
    let header = &stream[..BACKUP_HEADER_BYTES - 1];
    let short = BackupError::Malformed("it is shorter than a header");
    assert_eq!(refused(header, &written, "half a header"), short);
}

#[test]
fn chunks_that_were_moved_repeated_left_out_or_added_are_refused() {
    let written = content(3 * CHUNK + 100);
    let (stream, _) = full(&written);
    let (header, body) = stream.split_at(BACKUP_HEADER_BYTES);
    let chunks: Vec<&[u8]> = body.chunks(SEALED_CHUNK).collect();
    for (order, expected) in [
        (&[1, 0, 2, 3][..], BackupError::Chunk(0)),
        (&[0, 2, 1, 3], BackupError::Chunk(1)),
        (&[0, 0, 1, 2, 3], BackupError::Chunk(1)),
        (&[0, 2, 3], BackupError::Chunk(1)),
        (&[0, 1, 3], BackupError::Chunk(2)),
        (&[0, 1, 2], BackupError::CutOff(2)),
        (&[0, 1, 2, 3, 3], BackupError::Chunk(3)),
        (&[0, 1, 2, 3, 0], BackupError::Chunk(3)),
        (&[3], BackupError::Chunk(0)),
    ] {
        let moved: Vec<u8> = order.iter().flat_map(|at| chunks[*at]).copied().collect();
        let moved = [header, &moved].concat();
        assert_eq!(refused(&moved, &written, "moved"), expected, "{order:?}");
    }
    let even = content(2 * CHUNK);
    let (stream, _) = full(&even);
    for behind in [&b"\0"[..], &[0; TAG_BYTES], &[0; SEALED_CHUNK], &stream] {
        let error = refused(&[&stream, behind].concat(), &even, "appended");
        assert_eq!(error, BackupError::Appended(1), "{} bytes", behind.len());
    }
}

#[test]
fn no_content_ends_with_an_empty_chunk() {
    let (stream, whole) = full(&content(CHUNK));
    let header = whole.header();
    let key = header.derive(&key(), "rookery backup v1 chunks");
    let mut sealed = content(CHUNK);
    let tag =
        crate::crypto::seal::encrypt(key.expose(), nonce(0, false), &[], &mut sealed).unwrap();
    let empty = crate::crypto::seal::encrypt(key.expose(), nonce(1, true), &[], &mut []).unwrap();
    let odd = [&stream[..BACKUP_HEADER_BYTES], &sealed, &tag, &empty].concat();
    assert_eq!(refused(&odd, &content(CHUNK), "an empty last chunk"), BackupError::Chunk(1));
}

#[test]
fn what_is_not_the_expected_backup_is_refused_by_name() {
    let (stream, whole) = full(b"content");
    let (second_stream, second) = write(&Position::After(&whole), b"more");
    let (third_stream, third) = write(&Position::After(&second), b"yet more");
    let (other_chain, other) = write(&Position::Full(DATABASE, ChainId([4; 16])), b"another chain");
    let other_database = write(&Position::Full(DatabaseId(8), ChainId([3; 16])), b"x").0;
    // The same increment, made again after the first attempt: another stream, so no place for what follows the first.
    let mut again = BackupWriter::after(Vec::new(), &key(), &whole, CHUNK).unwrap();
    again.write_all(b"more").unwrap();
    let again = again.finish().unwrap().1;

    let other_key = BackupKey::given(SecretKey::take(&mut [8; 32]));
    let full = Expected::Full(DATABASE);
    for (stream, key, expected, why) in [
        (&stream, &other_key, full, "encrypted with key"),
        (&other_database, &key(), full, "its database is 8, expected is 7"),
        (&second_stream, &key(), full, "its sequence is 1, expected is 0"),
        (&third_stream, &key(), Expected::After(&whole), "its sequence is 2, expected is 1"),
        (&second_stream, &key(), Expected::After(&second), "its sequence is 1, expected is 2"),
        (&second_stream, &key(), Expected::After(&other), "its chain is 0303"),
        (&third_stream, &key(), Expected::After(&again), "its predecessor is"),
        (&stream, &key(), Expected::After(&whole), "its sequence is 0, expected is 1"),
    ] {
        let (given, ended) = read(stream, key, expected);
        let error = ended.expect_err(why).to_string();
        assert!(error.contains(why), "{error}: expected {why}");
        assert_eq!(given, b"", "{why}");
    }
    assert_eq!(read(&second_stream, &key(), Expected::After(&whole)).1, Ok(second.clone()));
    assert_eq!(read(&third_stream, &key(), Expected::After(&second)).1, Ok(third));
    assert_eq!(read(&other_chain, &key(), full).1, Ok(other));
    let BackupError::WrongKey { expected, given } = read(&stream, &other_key, full).1.unwrap_err()
    else {
        panic!("another error")
    };
    assert_eq!((expected, given), (key().id(), other_key.id()));
}

#[test]
fn the_key_id_is_proven_with_the_header() {
    // A header that names this key and was made with another one.
    let (stream, _) = full(b"content");
    let other = BackupKey { key: SecretKey::take(&mut [8; 32]), id: key().id() };
    assert_eq!(read(&stream, &other, Expected::Full(DATABASE)).1, Err(BackupError::Header));
}

#[test]
fn data_keys_encrypt_backups_and_old_ones_still_open_them() {
    let folder = tempfile::tempdir().unwrap();
    let keyring =
        Keyring::open(&folder.path().join("data"), &MasterKey::random().unwrap()).unwrap();
    let group = GroupId::from(DATABASE);
    let none = BackupKey::of_group(&keyring.keys(), group).unwrap_err();
    assert_eq!(none.to_string(), "there is no key for this backup: group 7 has no data key");
    keyring.create(group).unwrap();
    let old = BackupKey::of_group(&keyring.keys(), group).unwrap();
    let mut writer = BackupWriter::full(Vec::new(), &old, DATABASE, CHUNK).unwrap();
    writer.write_all(b"content").unwrap();
    let (stream, whole) = writer.finish().unwrap();
    keyring.rotate(group).unwrap();
    let new = BackupKey::of_group(&keyring.keys(), group).unwrap();
    assert_ne!(new.id(), old.id());
    let header = BackupHeader::parse(stream.first_chunk().unwrap()).unwrap();
    let found = BackupKey::find(&keyring.keys(), group, header.key).unwrap();
    let (given, ended) = read(&stream, &found, Expected::Full(DATABASE));
    assert_eq!((given.as_slice(), ended), (&b"content"[..], Ok(whole)));
    keyring.destroy(group).unwrap();
    let gone = BackupKey::find(&keyring.keys(), group, header.key).unwrap_err().to_string();
    assert!(gone.contains(&old.id().to_string()), "{gone}");
    assert_eq!(format!("{old:?}"), format!("BackupKey({})", old.id()));
}

#[test]
fn chunks_out_of_bounds_are_refused_before_memory_is_taken() {
    for bytes in [0, CHUNK - 1, limits::BACKUP_CHUNK_BYTES_MAX + 1, usize::MAX] {
        let error = BackupWriter::full(Vec::new(), &key(), DATABASE, bytes).map(drop).unwrap_err();
        assert_eq!(error.downcast::<BackupError>().unwrap(), BackupError::ChunkBytes(bytes));
    }
    let (mut stream, _) = full(b"content");
    stream[81..85].fill(0xff);
    assert_eq!(refused(&stream, b"", "4 GiB"), BackupError::ChunkBytes(0xffff_ffff));
}

/// Takes so many bytes, then fails; gives at most 3 at a time.
struct Limited<T> {
    inner: T,
    left: usize,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(self.left).min(100);
        self.left -= now;
        if now == 0 { Err(io::Error::other("no space")) } else { self.inner.write(&bytes[..now]) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let now = to.len().min(self.left).min(3);
        self.left -= now;
        if now == 0 { Err(io::Error::other("no disk")) } else { self.inner.read(&mut to[..now]) }
    }
}

#[test]
fn a_file_that_fails_ends_writing_and_reading_for_good() {
    let written = content(3 * CHUNK);
    for left in [BACKUP_HEADER_BYTES, BACKUP_HEADER_BYTES + 10, BACKUP_HEADER_BYTES + SEALED_CHUNK]
    {
        let mut out = Vec::new();
        let limited = Limited { inner: &mut out, left };
        let mut writer = BackupWriter::full(limited, &key(), DATABASE, CHUNK).unwrap();
        writer.write_all(&written).unwrap_err();
        assert!(writer.write(b"x").unwrap_err().to_string().contains("no space"));
        assert!(writer.flush().is_err());
        assert!(writer.finish().is_err());
        let (given, ended) = read_full(&out);
        assert!(ended.is_err() && written.starts_with(&given), "{left}");
    }
    let (stream, _) = full(&written);
    let limited = Limited { inner: Cursor::new(&stream), left: BACKUP_HEADER_BYTES + 2_500 };
    let mut reader = BackupReader::open(limited, &key(), Expected::Full(DATABASE)).unwrap();
    let mut given = Vec::new();
    assert!(reader.read_to_end(&mut given).is_err());
    assert_eq!(given, written[..2 * CHUNK]);
    for _ in 0..3 {
        assert!(reader.read(&mut [0; 10]).unwrap_err().to_string().contains("no disk"));
    }
    assert!(reader.finish().is_err());
}

#[test]
fn a_backup_is_whole_only_when_it_was_read_to_its_end() {
    let (stream, _) = full(&content(2 * CHUNK));
    for read in [0, 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1] {
        let mut reader =
            BackupReader::open(Cursor::new(&stream), &key(), Expected::Full(DATABASE)).unwrap();
        let mut buffer = vec![0; read];
        reader.read_exact(&mut buffer).unwrap();
        assert!(reader.finish().unwrap_err().to_string().contains("not read to its end"), "{read}");
    }
    // Dropped, not finished.
    let mut out = Vec::new();
    let mut writer = BackupWriter::full(&mut out, &key(), DATABASE, CHUNK).unwrap();
    writer.write_all(&content(2 * CHUNK)).unwrap();
    drop(writer);
    assert_eq!(refused(&out, &content(2 * CHUNK), "unfinished"), BackupError::CutOff(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_split_of_writes_and_reads_gives_the_same(
        pieces in prop::collection::vec(0..3 * CHUNK, 0..8),
        reads in prop::collection::vec(1..2 * CHUNK, 1..8),
    ) {
        let written = content(pieces.iter().sum());
        let position = Position::Full(DATABASE, ChainId([3; 16]));
        let mut writer = BackupWriter::begin(Vec::new(), &key(), &position, CHUNK, [9; 32]).unwrap();
        let mut rest = written.as_slice();
        for piece in pieces {
            let (now, later) = rest.split_at(piece);
            writer.write_all(now).unwrap();
            writer.flush().unwrap();
            rest = later;
        }
        let (stream, whole) = writer.finish().unwrap();
        prop_assert_eq!(&stream, &full(&written).0, "how it was written shows in the stream");
        let mut reader =
            BackupReader::open(Cursor::new(&stream), &key(), Expected::Full(DATABASE)).unwrap();
        let mut given = Vec::new();
        for bytes in reads.into_iter().cycle() {
            let mut buffer = vec![0; bytes];
            match reader.read(&mut buffer).unwrap() {
                0 => break,
                now => given.extend_from_slice(&buffer[..now]),
            }
        }
        prop_assert_eq!(given, written);
        prop_assert_eq!(reader.finish().unwrap(), whole);
    }
}
