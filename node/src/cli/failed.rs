//! Why a command failed, and the exit code that says so.

use std::process::ExitCode;

use serde_json::json;

use super::output::Format;

/// The result of a command.
pub(super) type Result<T> = std::result::Result<T, Failed>;

/// Exit codes; stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    Unexpected = 1,
    Usage = 2,
    Refused = 3,
    NotAllowed = 4,
    NotFound = 5,
    Conflict = 6,
    TimedOut = 7,
    Unavailable = 8,
    Wanting = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// The exit code.
    pub(super) exit: Exit,
    message: String,
    kind: &'static str,
    reason: String,
    request_id: Option<String>,
    broken_pipe: bool,
}

impl Failed {
    pub(super) fn new(exit: Exit, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            kind,
            reason: String::new(),
            request_id: None,
            broken_pipe: false,
        }
    }

    pub(super) fn unexpected(message: impl Into<String>) -> Self {
        Self::new(Exit::Unexpected, "unexpected", message)
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, "not-found", message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Exit::Conflict, "conflict", message)
    }

    /// Something was checked and found wanting.
    pub(super) fn wanting(message: impl Into<String>) -> Self {
        Self::new(Exit::Wanting, "wanting", message)
    }

    /// A file that could not be read or written.
    pub(super) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{AlreadyExists, NotFound};
        let kind = error.kind();
        let exit = if kind == NotFound {
            Exit::NotFound
        } else if kind == AlreadyExists {
            Exit::Conflict
        } else {
            Exit::Unexpected
        };
        Self::new(exit, "file", format!("{}: {error}", path.display()))
    }

    /// Standard output cannot be written. A reader that has seen enough is no failure.
    pub(super) fn stdout(error: &std::io::Error) -> Self {
        let broken_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { broken_pipe, ..Self::unexpected(format!("standard output: {error}")) }
    }

    pub(super) fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// The same failure, with what was being done in front.
    pub(super) fn context(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The message in the form the caller reads.
    pub(super) fn render(&self, format: Format) -> String {
        match format {
            Format::Json | Format::Jsonl => json!({
                "error": {
                    "kind": self.kind,
                    "reason": self.reason,
                    "message": self.message,
                    "request_id": self.request_id,
                    "exit_code": self.exit as u8,
                }
            })
            .to_string(),
            Format::Table | Format::Wide | Format::Yaml | Format::Name => {
                format!("error: {}", self.message)
            }
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<rookery_client::Error> for Failed {
    fn from(error: rookery_client::Error) -> Self {
        use rookery_client::Error;
        let exit = match &error {
            Error::Context(_) | Error::Tls(_) | Error::Unauthenticated(_) => Exit::Refused,
            Error::Denied(_) => Exit::NotAllowed,
            Error::Precondition(_) if error.reason().starts_with("SECOND_FACTOR_") => {
                Exit::NotAllowed
            }
            Error::NotFound(_) => Exit::NotFound,
            Error::AlreadyExists(_) | Error::Conflict(_) | Error::Precondition(_) => Exit::Conflict,
            Error::Invalid(_) => Exit::Usage,
            Error::Exhausted(_) | Error::Unavailable(_) => Exit::Unavailable,
            Error::Timeout(_) | Error::Unknown { .. } => Exit::TimedOut,
            Error::Server(_) => Exit::Unexpected,
        };
        let request_id = match &error {
            Error::Unknown { request_id, .. } => Some(request_id.to_string()),
            Error::Context(_)
            | Error::Tls(_)
            | Error::Unauthenticated(_)
            | Error::Denied(_)
            | Error::NotFound(_)
            | Error::AlreadyExists(_)
            | Error::Conflict(_)
            | Error::Invalid(_)
            | Error::Precondition(_)
            | Error::Exhausted(_)
            | Error::Unavailable(_)
            | Error::Timeout(_)
            | Error::Server(_) => None,
        };
        let message = match &request_id {
            Some(id) => {
                format!("{error}. Run the same command with --request-id {id}: it is done once")
            }
            None => error.to_string(),
        };
        Self {
            reason: error.reason().to_owned(),
            request_id,
            ..Self::new(exit, error.kind(), message)
        }
    }
}

impl From<rookery_client::context::Error> for Failed {
    fn from(error: rookery_client::context::Error) -> Self {
        rookery_client::Error::from(error).into()
    }
}

impl From<crate::config::Error> for Failed {
    fn from(error: crate::config::Error) -> Self {
        Self::new(Exit::Usage, "config", error.to_string())
    }
}
