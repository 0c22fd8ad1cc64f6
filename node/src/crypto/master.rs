//! Where the master key comes from: 256 bits from a file, the environment or a command, or a passphrase.

use std::{
    fmt, fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::{Zeroize, Zeroizing};

use super::{Error, KeyId, Result, SecretKey, passphrase, refuse_master as refuse};
use crate::{
    limits,
    os::{command::secret_output, terminal},
};

/// How long a command may take that prints the master key.
pub const MASTER_KEY_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// More than any accepted form has; what is longer is refused without being read.
const INPUT_BYTES_MAX: usize = 128;

/// Where to take the master key from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeySource {
    /// A file with exactly 32 raw bytes: regular, mode 0600 or 0400, owned by this user, no symbolic link.
    File(PathBuf),
    /// The name of an environment variable with 64 hex digits.
    Environment(String),
    /// A program and its arguments; prints 32 raw bytes or 64 hex digits within 30 seconds.
    Command(Vec<String>),
    /// Words that a person knows; see [`passphrase`].
    Passphrase(PassphraseSource),
}

/// Where to take a passphrase from. Never from the arguments of this process, which every user of the machine sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassphraseSource {
    /// A file, as private as that of a key; the end of the line does not count.
    File(PathBuf),
    /// A program and its arguments, as for a key.
    Command(Vec<String>),
    /// The terminal of this process.
    Prompt,
}

/// In the words of a sentence about the master key; tells nothing of a command's arguments.
impl fmt::Display for MasterKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = |words: &[String]| words.first().cloned().unwrap_or_default();
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the variable {name}"),
            Self::Command(words) => write!(f, "the command {}", program(words)),
            Self::Passphrase(PassphraseSource::File(path)) => {
                write!(f, "the passphrase in {}", path.display())
            }
            Self::Passphrase(PassphraseSource::Command(words)) => {
                write!(f, "the passphrase of the command {}", program(words))
            }
            Self::Passphrase(PassphraseSource::Prompt) => write!(f, "a typed passphrase"),
        }
    }
}

/// The key that seals the keyring. Held in memory, never stored by this program.
pub struct MasterKey {
    key: SecretKey,
    id: KeyId,
    /// Its salt stands where that of the next master key does, and takes its place once the keyring has it.
    pub(super) settles: bool,
}

impl MasterKey {
    /// Reads the key of a data folder from its source. Blocks, at most 30 seconds, or until a person has typed.
    ///
    /// `sealed_by` is the master key that the folder's keyring names; a passphrase's salt is only made where there is no
    /// keyring.
    ///
    /// # Errors
    /// [`Error::MasterKey`]: names the source and what is wrong with it, never the content.
    pub fn load(source: &MasterKeySource, folder: &Path, sealed_by: Option<KeyId>) -> Result<Self> {
        match source {
            MasterKeySource::File(path) => from_file(path),
            MasterKeySource::Environment(name) => from_environment(name),
            MasterKeySource::Command(words) => from_command(words, MASTER_KEY_COMMAND_TIMEOUT),
            MasterKeySource::Passphrase(source) => {
                passphrase::load(folder, &passphrase_of(source)?, sealed_by)
            }
        }
    }

    /// Reads the key that a rotation is to take into use; a passphrase is stretched with a new salt.
    ///
    /// # Errors
    /// As [`MasterKey::load`].
    pub fn load_next(source: &MasterKeySource, folder: &Path) -> Result<Self> {
        match source {
            MasterKeySource::Passphrase(source) => {
                passphrase::next(folder, &passphrase_of(source)?)
            }
            MasterKeySource::File(_)
            | MasterKeySource::Environment(_)
            | MasterKeySource::Command(_) => Self::load(source, folder, None),
        }
    }

    /// A new random key, for a tool that makes one and for tests.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn random() -> Result<Self> {
        Self::new(SecretKey::random()?)
    }

    pub(super) fn new(key: SecretKey) -> Result<Self> {
        let [first, rest @ ..] = key.expose();
        if rest.iter().all(|byte| byte == first) {
            return refuse("32 equal bytes are not a key; make one with `head -c 32 /dev/urandom`");
        }
        let id = KeyId::of("rookery master key v1", key.expose());
        Ok(Self { key, id, settles: false })
    }

    /// The same key, whose salt stands elsewhere.
    pub(super) fn settling(self, settles: bool) -> Self {
        Self { settles, ..self }
    }

    /// Names the key in messages and in the keyring's header.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The bytes, for a tool that writes a new key to a file.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.key.expose()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

fn from_file(path: &Path) -> Result<MasterKey> {
    let content = private_file(path, INPUT_BYTES_MAX)?;
    let key = raw(&content).or_else(|why| refuse(format!("the file {} {why}", path.display())))?;
    MasterKey::new(key)
}

fn passphrase_of(source: &PassphraseSource) -> Result<Zeroizing<Vec<u8>>> {
    let bytes_max = *limits::PASSPHRASE_BYTES.end() + 2;
    match source {
        PassphraseSource::File(path) => {
            let shown = format!("the file {}", path.display());
            passphrase::checked(private_file(path, bytes_max)?, &shown)
        }
        PassphraseSource::Command(words) => {
            let content = command_output(words, bytes_max + 1, MASTER_KEY_COMMAND_TIMEOUT)?;
            passphrase::checked(content, "the command")
        }
        PassphraseSource::Prompt => {
            let typed = terminal::secret("Passphrase of the master key", bytes_max);
            let typed = typed.map_err(|error| {
                let why = "a passphrase is to be typed, and there is no terminal to ask at";
                Error::MasterKey(format!("{why}: {error}"))
            })?;
            passphrase::checked(typed, "the terminal")
        }
    }
}

/// The content of a file that only its owner can read, which is this user; at most one byte more than `bytes_max`.
fn private_file(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>> {
    let shown = path.display();
    let fail = |error| Error::MasterKey(format!("the file {shown} cannot be read: {error}"));
    let named = fs::symlink_metadata(path).map_err(fail)?;
    if named.is_symlink() {
        return refuse(format!("{shown} is a symbolic link; give the file itself"));
    }
    if !named.is_file() {
        return refuse(format!("{shown} is not a regular file"));
    }
    let file = fs::File::open(path).map_err(fail)?;
    let opened = file.metadata().map_err(fail)?;
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return refuse(format!("{shown} was replaced while it was being opened"));
    }
    if opened.uid() != crate::os::effective_user() {
        return refuse(format!("{shown} belongs to another user (uid {})", opened.uid()));
    }
    if opened.mode() & 0o177 != 0 {
        let mode = opened.mode() & 0o7777;
        return refuse(format!("{shown} has mode {mode:04o}; others must not see it: chmod 0600"));
    }
    read_bounded(file, bytes_max).map_err(fail)
}

fn from_environment(name: &str) -> Result<MasterKey> {
    let Some(value) = std::env::var_os(name) else {
        return refuse(format!("the environment variable {name} is not set"));
    };
    let value = Zeroizing::new(value.into_encoded_bytes());
    let key = hexadecimal(&value).or_else(|why| refuse(format!("the variable {name} {why}")))?;
    MasterKey::new(key)
}

/// Exactly 32 bytes; says which usual mistake was made otherwise.
fn raw(content: &[u8]) -> std::result::Result<SecretKey, String> {
    if let Ok(mut bytes) = <[u8; 32]>::try_from(content) {
        return Ok(SecretKey::take(&mut bytes));
    }
    let trimmed = content.trim_ascii_end();
    let hint = match (trimmed.len(), trimmed.iter().all(u8::is_ascii_hexdigit)) {
        (64, true) => ": it looks like hex; convert it with `xxd -r -p`",
        (32, _) if content.len() == 33 => ": there is a newline at the end",
        (44, _) => ": it looks like base64; decode it with `base64 -d`",
        (0, _) => ": make one with `head -c 32 /dev/urandom`",
        _ => "",
    };
    let len = content.len();
    let len = if len > 128 { "more than 128".to_owned() } else { len.to_string() };
    Err(format!("must hold exactly 32 raw bytes, not {len}{hint}"))
}

/// 64 hex digits, in either case.
fn hexadecimal(content: &[u8]) -> std::result::Result<SecretKey, String> {
    let mut bytes = [0; 32];
    if content.len() != 64 {
        let newline = if content.ends_with(b"\n") { ", a newline at the end included" } else { "" };
        return Err(format!("must be 64 hex digits, not {} bytes{newline}", content.len()));
    }
    if hex::decode_to_slice(content, &mut bytes).is_err() {
        bytes.zeroize();
        return Err("must be 64 hex digits; something else stands among them".to_owned());
    }
    Ok(SecretKey::take(&mut bytes))
}

fn read_bounded(from: impl Read, bytes_max: usize) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // The whole capacity at once, so that no half-read key is left behind by a growing buffer.
    let mut content = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    from.take(bytes_max as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn from_command(words: &[String], timeout: Duration) -> Result<MasterKey> {
    let content = command_output(words, INPUT_BYTES_MAX + 1, timeout)?;
    let program = words.first().map(String::as_str).unwrap_or_default();
    let key = raw(&content).or_else(|why| {
        hexadecimal(content.trim_ascii_end())
            .or_else(|_| refuse(format!("what {program} prints {why}; 64 hex digits are fine too")))
    })?;
    MasterKey::new(key)
}

fn command_output(
    words: &[String],
    bytes_max: usize,
    timeout: Duration,
) -> Result<Zeroizing<Vec<u8>>> {
    let Some((program, arguments)) = words.split_first() else {
        return refuse("the command is empty");
    };
    let fail = |what: String| Error::MasterKey(format!("the command {program} {what}"));
    let purpose = "master key command";
    secret_output(program, arguments, purpose, bytes_max, timeout).map_err(fail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &[u8; 32] = b"0123456789abcdef0123456789ABCDEF";

    fn check(result: Result<MasterKey>, expected: std::result::Result<(), &str>) {
        match (result, expected) {
            (Ok(key), Ok(())) => assert_eq!(key.expose(), KEY),
            (Err(error), Err(part)) => {
                let text = error.to_string();
                assert!(text.contains(part), "{text}");
                assert!(!text.contains("0123456789"), "{text}");
            }
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        }
    }

    fn load(source: MasterKeySource) -> Result<MasterKey> {
        MasterKey::load(&source, Path::new("/nowhere"), None)
    }

    #[test]
    fn a_file_must_be_private_and_exactly_32_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let hex = hex::encode(KEY);
        let newline = [KEY.as_slice(), b"\n"].concat();
        let rows: [(&[u8], u32, std::result::Result<(), &str>); 10] = [
            (KEY, 0o600, Ok(())),
            (KEY, 0o400, Ok(())),
            (KEY, 0o640, Err("mode 0640")),
            (KEY, 0o604, Err("chmod 0600")),
            (KEY, 0o700, Err("mode 0700")),
            (hex.as_bytes(), 0o600, Err("looks like hex")),
            (&newline, 0o600, Err("newline")),
            (&KEY[..31], 0o600, Err("not 31")),
            (&[b'z'; 4_000], 0o600, Err("more than 128")),
            (&[0; 32], 0o600, Err("equal bytes")),
        ];
        for (i, (content, mode, expected)) in rows.into_iter().enumerate() {
            let path = folder.path().join(format!("key{i}"));
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            check(load(MasterKeySource::File(path)), expected);
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("key0"), &link).unwrap();
        check(load(MasterKeySource::File(link)), Err("symbolic link"));
        let folder = folder.path().to_owned();
        check(load(MasterKeySource::File(folder.clone())), Err("regular file"));
        check(load(MasterKeySource::File(folder.join("none"))), Err("cannot be read"));
    }

    #[test]
    fn the_environment_holds_64_hex_digits() {
        let hex = hex::encode(KEY);
        for (value, expected) in [
            (hex.clone(), Ok(())),
            (hex.to_uppercase(), Ok(())),
            (format!("{hex}\n"), Err("newline")),
            (hex[..62].to_owned(), Err("not 62 bytes")),
            (hex.replace("30", "xx"), Err("something else")),
        ] {
            let key = hexadecimal(value.as_bytes()).or_else(refuse).and_then(MasterKey::new);
            check(key, expected);
        }
        let unset = MasterKeySource::Environment("ROOKERY_TEST_UNSET".to_owned());
        check(load(unset), Err("is not set"));
    }

    #[test]
    fn a_command_prints_the_key_in_time_and_ends_well() {
        let hex = hex::encode(KEY);
        let raw = std::str::from_utf8(KEY).unwrap();
        for (script, expected) in [
            (format!("echo {hex}; echo noise >&2"), Ok(())),
            (format!("printf %s {raw}"), Ok(())),
            (format!("printf %s {raw}; exit 3"), Err("failed: exit status: 3")),
            ("exec sleep 60".to_owned(), Err("took longer than 1 s")),
            (format!("exec >&-; exec sleep 60 # {raw}"), Err("took longer than 1 s")),
            ("exec cat /dev/zero".to_owned(), Err("failed: signal")),
            ("true".to_owned(), Err("not 0")),
        ] {
            let words = ["sh".to_owned(), "-c".to_owned(), script];
            check(from_command(&words, Duration::from_secs(1)), expected);
        }
        check(from_command(&[], Duration::from_secs(1)), Err("empty"));
        let none = ["/does/not/exist".to_owned()];
        check(from_command(&none, Duration::from_secs(1)), Err("cannot be started"));
    }

    #[test]
    fn a_passphrase_comes_from_a_file_a_command_or_a_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let path = folder.path().join("passphrase");
        let words = "correct horse battery\n";
        fs::write(&path, words).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let of = |source| MasterKey::load(&MasterKeySource::Passphrase(source), &data, None);
        let first = of(PassphraseSource::File(path.clone())).unwrap();
        let command = ["printf", "%s", words].map(str::to_owned).to_vec();
        assert_eq!(of(PassphraseSource::Command(command)).unwrap().id(), first.id());
        let refused = |source, part: &str| {
            let error = of(source).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("horse"), "{error}");
        };
        let wrong = ["echo", "correct horse batterz"].map(str::to_owned).to_vec();
        refused(PassphraseSource::Command(wrong), "the passphrase is wrong");
        let short = ["echo", "horse"].map(str::to_owned).to_vec();
        refused(PassphraseSource::Command(short), "12 to 1024 bytes");
        let failing = ["false"].map(str::to_owned).to_vec();
        refused(PassphraseSource::Command(failing), "failed");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        refused(PassphraseSource::File(path), "chmod 0600");
    }
}
