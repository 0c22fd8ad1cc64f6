//! `rookery second-factor`: codes of an authenticator, and the session they open.

use std::{
    io::{IsTerminal as _, Read as _},
    time::Duration,
};

use clap::{Args, Subcommand};
use rookery_client::{
    Context, Session as SessionToken,
    proto::security::v1::{self as proto, log_in_request},
};
use zeroize::Zeroizing;

use super::{
    Failed, Result, Row, Session, duration,
    output::{Format, time},
};
use crate::names::Thumbprint;

/// Longest code that is read.
const CODE_BYTES_MAX: u64 = 256;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a second factor for your certificate, or for one that you may edit; shown once
    Enrol {
        /// SHA-256 thumbprint; your own certificate where none is given
        thumbprint: Option<Thumbprint>,
    },
    /// Make your second factor count, with a first code, and log in
    Confirm {
        /// The code that the authenticator shows
        code: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// Open a session with a code; it holds on every node
    Login {
        /// Read the code from standard input
        #[arg(long)]
        code_stdin: bool,
        /// The code is a recovery code
        #[arg(long)]
        recovery: bool,
        #[command(flatten)]
        limits: Limits,
    },
    /// End your session on every node
    Logout,
    /// Whether you need a session, and have one
    Status,
    /// Take the second factor off your certificate, or off one that you may edit
    Remove {
        /// SHA-256 thumbprint; your own certificate where none is given
        thumbprint: Option<Thumbprint>,
    },
}

/// How long a session holds, and for whom.
#[derive(Debug, Args)]
pub(super) struct Limits {
    /// How long the session holds, at most 24h; 2h where none is given
    #[arg(long, value_parser = duration, value_name = "2h")]
    duration: Option<Duration>,
    /// Let the session hold for the certificate from anywhere, without a token
    #[arg(long)]
    no_limits: bool,
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Self::Enrol { thumbprint } => enrol(session, thumbprint).await,
            Self::Confirm { code, limits } => {
                let context = session.context()?;
                let request = proto::ConfirmRequest {
                    code,
                    session_seconds: limits.duration.map_or(0, |it| it.as_secs()),
                    no_limits: limits.no_limits,
                    request_id: String::new(),
                };
                let answer = session.client_of(&context)?.confirm(request).await?;
                logged_in(session, &context, answer.session_token, answer.expires_unix_ms, None)
            }
            Self::Login { code_stdin, recovery, limits } => {
                let code = read_code(code_stdin, recovery)?.to_string();
                login(session, code, recovery, &limits).await
            }
            Self::Logout => logout(session).await,
            Self::Status => {
                let request = proto::GetSecondFactorStatusRequest {};
                let status = session.client()?.get_second_factor_status(request).await?;
                session.out.one("logged_in", &status_row(&status))
            }
            Self::Remove { thumbprint } => remove(session, thumbprint).await,
        }
    }
}

async fn enrol(session: &mut Session, thumbprint: Option<Thumbprint>) -> Result<()> {
    let request = proto::EnrolRequest {
        thumbprint: thumbprint.map_or_else(String::new, |it| it.to_string()),
        request_id: String::new(),
    };
    let made = session.client()?.enrol(request).await?;
    let row = Row::new()
        .with("uri", made.uri)
        .with("secret", made.secret_base32)
        .with("recovery_codes", made.recovery_codes);
    let row = match session.out.format {
        Format::Json | Format::Jsonl | Format::Yaml => row.with("qr", made.qr_text),
        Format::Table | Format::Wide | Format::Name => {
            session.out.line(&made.qr_text)?;
            row
        }
    };
    session.out.one("secret", &row)?;
    super::message(
        "Scan the QR code, or type the secret, and keep the recovery codes: all of it is shown this once. It counts from \
         the first code on: rookery second-factor confirm CODE, with the certificate itself.",
    );
    Ok(())
}

async fn login(session: &mut Session, code: String, recovery: bool, limits: &Limits) -> Result<()> {
    let context = session.context()?;
    let proof = match recovery {
        true => log_in_request::Proof::RecoveryCode(code),
        false => log_in_request::Proof::Code(code),
    };
    let request = proto::LogInRequest {
        proof: Some(proof),
        session_seconds: limits.duration.map_or(0, |it| it.as_secs()),
        no_limits: limits.no_limits,
        request_id: String::new(),
    };
    let answer = session.client_of(&context)?.log_in(request).await?;
    let left = answer.recovery_codes_left;
    if recovery && left <= 2 {
        super::message(&format!(
            "{left} recovery codes are left: remove the second factor and make a new one soon"
        ));
    }
    logged_in(session, &context, answer.session_token, answer.expires_unix_ms, Some(left))
}

/// Keeps the token beside the context; one that stands in no folder is shown, for ROOKERY_SESSION.
fn logged_in(
    session: &mut Session,
    context: &Context,
    token: String,
    expires_unix_ms: i64,
    recovery_codes_left: Option<u32>,
) -> Result<()> {
    let token = Zeroizing::new(token);
    let mut row = Row::new().with("logged_in", true).with("expires", time(expires_unix_ms));
    if let Some(left) = recovery_codes_left {
        row = row.with("recovery_codes_left", left);
    }
    match &context.folder {
        // A session without a token needs nothing kept, and makes an older token useless.
        Some(folder) if token.is_empty() => SessionToken::forget(folder)?,
        Some(folder) => SessionToken::new(&token, expires_unix_ms).keep(folder)?,
        None if token.is_empty() => {}
        None => {
            super::message("This context stands in no folder: set ROOKERY_SESSION to the token.");
            row = row.with("session", token.as_str());
        }
    }
    session.out.one("logged_in", &row)
}

async fn logout(session: &mut Session) -> Result<()> {
    let context = session.context()?;
    let request = proto::LogOutRequest { request_id: String::new() };
    session.client_of(&context)?.log_out(request).await?;
    if let Some(folder) = &context.folder {
        SessionToken::forget(folder)?;
    }
    session.out.one("logged_in", &Row::new().with("logged_in", false))
}

async fn remove(session: &mut Session, thumbprint: Option<Thumbprint>) -> Result<()> {
    let context = session.context()?;
    let whose = thumbprint.map_or_else(|| context.thumbprint(), |it| it.to_string());
    session.confirm("This takes the second factor off the certificate", &whose)?;
    let request = proto::RemoveRequest { thumbprint: whose.clone(), request_id: String::new() };
    session.client_of(&context)?.remove(request).await?;
    if let Some(folder) = context.folder.as_ref().filter(|_| whose == context.thumbprint()) {
        SessionToken::forget(folder)?;
    }
    session.out.one("thumbprint", &Row::new().with("thumbprint", whose).with("removed", true))
}

fn status_row(status: &proto::GetSecondFactorStatusResponse) -> Row {
    let moment = |unix_ms: i64| match unix_ms {
        0 => serde_json::Value::Null,
        unix_ms => time(unix_ms),
    };
    Row::new()
        .with("enrolled", status.enrolled)
        .with("pending", status.pending)
        .with("required", status.required)
        .with("logged_in", status.logged_in)
        .with("session_expires", moment(status.session_expires_unix_ms))
        .with("session_needs_token", status.session_needs_token)
        .with("recovery_codes_left", status.recovery_codes_left)
        .with("locked_until", moment(status.locked_until_unix_ms))
}

/// Never an argument: arguments are seen by everybody on the machine.
fn read_code(from_stdin: bool, recovery: bool) -> Result<Zeroizing<String>> {
    if from_stdin {
        let mut text = Zeroizing::new(String::new());
        let read = std::io::stdin().take(CODE_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|e| Failed::usage(format!("standard input: {e}")))?;
        return Ok(Zeroizing::new(text.trim().to_owned()));
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failed::usage("add --code-stdin where nobody can be asked for a code"));
    }
    let prompt = if recovery { "Recovery code" } else { "Code of the authenticator" };
    let typed: String = dialoguer::Input::new()
        .with_prompt(prompt)
        .interact_text()
        .map_err(|e| Failed::unexpected(e.to_string()))?;
    Ok(Zeroizing::new(typed))
}
