//! Where the master key comes from: a file, the environment, or a command; always 256 bits, never a passphrase.

use std::{
    fmt, fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use zeroize::{Zeroize, Zeroizing};

use super::{Error, KeyId, Result, SecretKey};

/// How long a command may take that prints the master key.
pub const MASTER_KEY_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// More than any accepted form has; what is longer is refused without being read.
const INPUT_BYTES_MAX: u64 = 128;
/// Most bytes of a command's standard error that reach the log.
const STDERR_BYTES_MAX: u64 = 8 * 1024;

/// Where to take the master key from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeySource {
    /// A file with exactly 32 raw bytes: regular, mode 0600 or 0400, owned by this user, no symbolic link.
    File(PathBuf),
    /// The name of an environment variable with 64 hex digits.
    Environment(String),
    /// A program and its arguments; prints 32 raw bytes or 64 hex digits within 30 seconds.
    Command(Vec<String>),
}

/// The key that seals the keyring. Held in memory, never stored by this program.
pub struct MasterKey {
    key: SecretKey,
    id: KeyId,
}

impl MasterKey {
    /// Reads the key from its source. Blocks, at most 30 seconds.
    ///
    /// # Errors
    /// [`Error::MasterKey`]: names the source and what is wrong with it, never the content.
    pub fn load(source: &MasterKeySource) -> Result<Self> {
        match source {
            MasterKeySource::File(path) => from_file(path),
            MasterKeySource::Environment(name) => from_environment(name),
            MasterKeySource::Command(words) => from_command(words, MASTER_KEY_COMMAND_TIMEOUT),
        }
    }

    /// A new random key, for a tool that makes one and for tests.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn random() -> Result<Self> {
        Self::new(SecretKey::random()?)
    }

    fn new(key: SecretKey) -> Result<Self> {
        let [first, rest @ ..] = key.expose();
        if rest.iter().all(|byte| byte == first) {
            return refuse("32 equal bytes are not a key; make one with `head -c 32 /dev/urandom`");
        }
        let id = KeyId::of("rookery master key v1", key.expose());
        Ok(Self { key, id })
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

fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::MasterKey(why.into()))
}

fn from_file(path: &Path) -> Result<MasterKey> {
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
    let content = read_bounded(file).map_err(fail)?;
    let key = raw(&content).or_else(|why| refuse(format!("the file {shown} {why}")))?;
    MasterKey::new(key)
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

fn read_bounded(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // The whole capacity at once, so that no half-read key is left behind by a growing buffer.
    let capacity = usize::try_from(INPUT_BYTES_MAX).unwrap_or(usize::MAX) + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn from_command(words: &[String], timeout: Duration) -> Result<MasterKey> {
    let Some((program, arguments)) = words.split_first() else {
        return refuse("the command is empty");
    };
    let fail = |what: String| Error::MasterKey(format!("the command {program} {what}"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fail(format!("cannot be started: {error}")))?;
    let (sender, output) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || sender.send(read_bounded(stdout)));
    }
    if let Some(stderr) = child.stderr.take() {
        let program = program.clone();
        thread::spawn(move || log_lines(&program, stderr));
    }
    let outcome = wait(&mut child, &output, timeout);
    if outcome.is_err() {
        // Already gone, or ended here; either way it is reaped.
        let _ = child.kill();
        let _ = child.wait();
    }
    let content = outcome.map_err(fail)?;
    let key = raw(&content).or_else(|why| {
        hexadecimal(content.trim_ascii_end())
            .or_else(|_| refuse(format!("what {program} prints {why}; 64 hex digits are fine too")))
    })?;
    MasterKey::new(key)
}

/// Waits for the output and for a successful end, until the time is up.
fn wait(
    child: &mut Child,
    output: &mpsc::Receiver<std::io::Result<Zeroizing<Vec<u8>>>>,
    timeout: Duration,
) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
    let until = Instant::now() + timeout;
    let late = || format!("took longer than {} s and was ended", timeout.as_secs_f32());
    let content = match output.recv_timeout(timeout) {
        Ok(content) => content.map_err(|error| format!("cannot be read from: {error}"))?,
        Err(_) => return Err(late()),
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(content),
            Ok(Some(status)) => return Err(format!("failed: {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Ok(None) => return Err(late()),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

fn log_lines(program: &str, stderr: impl Read) {
    let mut text = Vec::new();
    // What was read until a failure is still worth a line.
    let _ = stderr.take(STDERR_BYTES_MAX).read_to_end(&mut text);
    for line in String::from_utf8_lossy(&text).lines() {
        tracing::warn!(program, line = %line.escape_debug(), "master key command");
    }
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
            check(MasterKey::load(&MasterKeySource::File(path)), expected);
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("key0"), &link).unwrap();
        check(MasterKey::load(&MasterKeySource::File(link)), Err("symbolic link"));
        let folder = folder.path().to_owned();
        check(MasterKey::load(&MasterKeySource::File(folder.clone())), Err("regular file"));
        check(MasterKey::load(&MasterKeySource::File(folder.join("none"))), Err("cannot be read"));
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
        check(MasterKey::load(&unset), Err("is not set"));
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
}
