//! The second-factor session of a context: its token, kept beside the context, readable by its owner alone.
//!
//! ```text
//! <folder of context.toml>/session.toml     token, expires_unix_ms     0600
//! ```

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use crate::context::Error;

/// The file of a session, beside `context.toml`.
pub const SESSION_FILE: &str = "session.toml";
/// The metadata key in which the token goes with each call.
pub const SESSION_HEADER: &str = "rookery-session";
/// Largest file of a session in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// A session that was opened with a code. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Session {
    token: Zeroizing<String>,
    /// The moment at which it is over, in milliseconds since 1970.
    pub expires_unix_ms: i64,
}

#[derive(Deserialize, Serialize)]
struct SessionFile {
    token: String,
    expires_unix_ms: i64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("expires_unix_ms", &self.expires_unix_ms)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Takes a token as `LogIn` answered it.
    #[must_use]
    pub fn new(token: &str, expires_unix_ms: i64) -> Self {
        Self { token: Zeroizing::new(token.to_owned()), expires_unix_ms }
    }

    /// The session that is kept in the folder of a context. One that is over, or that cannot be read, is forgotten.
    #[must_use]
    pub fn load(folder: &Path) -> Option<Self> {
        let path = folder.join(SESSION_FILE);
        let short = fs::metadata(&path).ok()?.len() <= FILE_BYTES_MAX;
        let text =
            if short { Zeroizing::new(fs::read_to_string(&path).ok()?) } else { return None };
        let kept = toml::from_str::<SessionFile>(&text).ok().map(|file| Self {
            token: Zeroizing::new(file.token),
            expires_unix_ms: file.expires_unix_ms,
        });
        let kept = kept.filter(|session| session.expires_unix_ms > now_unix_ms());
        if kept.is_none() {
            let _ = fs::remove_file(&path); // It is of no use, and the next login writes another.
        }
        kept
    }

    /// Keeps the session in the folder of a context, readable by its owner alone.
    ///
    /// # Errors
    /// [`Error::Read`], which names the file.
    pub fn keep(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(SESSION_FILE);
        let part = folder.join(format!("{SESSION_FILE}.part"));
        let file =
            SessionFile { token: self.token.to_string(), expires_unix_ms: self.expires_unix_ms };
        let text = Zeroizing::new(toml::to_string(&file).unwrap_or_default());
        let _wiped = Zeroizing::new(file.token);
        let write = || {
            let _ = fs::remove_file(&part); // One that was left may have other permissions.
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        write().map_err(|source| Error::Read { path: path.clone(), source })
    }

    /// Forgets the session that is kept in a folder, if there is one.
    ///
    /// # Errors
    /// [`Error::Read`], which names the file.
    pub fn forget(folder: &Path) -> Result<(), Error> {
        let path = folder.join(SESSION_FILE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Read { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What goes with a call; `None` for a token that cannot stand in metadata, or where none is needed.
    pub(crate) fn metadata(&self) -> Option<MetadataValue<Ascii>> {
        let mut value: MetadataValue<Ascii> = self.token.parse().ok()?;
        value.set_sensitive(true);
        (!self.token.is_empty()).then_some(value)
    }
}

#[allow(clippy::disallowed_methods)] // The client has no other clock, and the node decides anyway.
fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_session_is_kept_for_its_owner_and_forgotten_when_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Session::load(folder.path()).is_none());
        let later = now_unix_ms() + 60_000;
        Session::new("secret-token", later).keep(folder.path()).unwrap();
        let path = folder.path().join(SESSION_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = Session::load(folder.path()).unwrap();
        assert_eq!(loaded.metadata().unwrap().to_str().unwrap(), "secret-token");
        assert!(loaded.metadata().unwrap().is_sensitive());
        assert!(!format!("{loaded:?}").contains("secret-token"));

        Session::new("secret-token", 1).keep(folder.path()).unwrap();
        assert!(Session::load(folder.path()).is_none() && !path.exists());
        fs::write(&path, "no session").unwrap();
        assert!(Session::load(folder.path()).is_none() && !path.exists());
        Session::forget(folder.path()).unwrap();
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_not_sent() {
        for token in ["", "a\nb", "ä\u{0}"] {
            assert!(Session::new(token, i64::MAX).metadata().is_none(), "{token:?}");
        }
    }
}
