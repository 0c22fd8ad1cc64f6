//! Second factors: make one, confirm it with a first code, remove it. One's own, or one of a certificate that one may edit.
//!
//! The secret and the recovery codes are in the answer that shows them, which no cache keeps and nothing compresses, and
//! nowhere else. They count from the first code on, which the holder shows with the certificate itself.

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};
use qrcode::{Color, EcLevel, QrCode};
use rookery_proto::security::v1::{
    Clearance, ConfirmRequest, EnrolRequest, EnrolResponse, GetCertificateRequest, RemoveRequest,
};
use serde::Deserialize;

use super::{
    answer::{self, Answer, Refused},
    contract::Calls,
    log_in::{self, digits, seconds},
    posted::Posted,
    visit::{Enrolling, Frame, Visit},
    words,
};

/// The page of one's own second factor.
pub const PATH: &str = "/studio/second-factor";

/// Light modules around a QR code (ISO/IEC 18004, 5.3.8).
const QUIET_MODULES: usize = 4;

/// Whose.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    /// A thumbprint; empty: one's own.
    t: String,
}

/// A second factor as the page shows it.
struct Whose {
    /// Empty: the visitor's own.
    thumbprint: String,
    name: String,
    confirmed: bool,
    pending: bool,
    /// The operation that lets one manage it; empty for one's own.
    operation: &'static str,
}

impl Whose {
    async fn of(which: &Which, calls: &Calls, frame: &Frame) -> Result<Self, Box<Refused>> {
        let own = frame.second_factor();
        if which.t.is_empty() || which.t == frame.who().thumbprint {
            return Ok(Self {
                thumbprint: String::new(),
                name: frame.who().name.clone(),
                confirmed: own.enrolled,
                pending: own.pending,
                operation: "",
            });
        }
        let asked = GetCertificateRequest { thumbprint: which.t.clone() };
        let found = calls.security().get_certificate(asked).await;
        let found = found.map_err(Refused::before_change(frame))?;
        let certificate = found.into_inner().certificate.unwrap_or_default();
        let high = [Clearance::ClusterAdmin, Clearance::ClusterNode].map(i32::from);
        let operation = match high.contains(&certificate.clearance) {
            true => "edit-admin-certificate",
            false => "edit-certificate",
        };
        Ok(Self {
            thumbprint: certificate.thumbprint,
            name: certificate.name,
            confirmed: certificate.has_second_factor,
            pending: certificate.second_factor_pending,
            operation,
        })
    }

    fn is_own(&self) -> bool {
        self.thumbprint.is_empty()
    }

    fn path(&self, page: &str) -> String {
        format!("{PATH}{page}{}", words::query(&[("t", &self.thumbprint)]))
    }

    /// Why the visitor may not change it; empty where they may.
    fn why_not<'a>(&self, frame: &'a Frame) -> &'a str {
        if self.is_own() { "" } else { frame.why_not(self.operation) }
    }
}

#[derive(Template)]
#[template(path = "second-factor/show.html")]
struct Page {
    frame: Frame,
    whose: Whose,
    wrong: Option<String>,
}

/// `GET /studio/second-factor?t=`.
pub async fn page(Enrolling(visit): Enrolling, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let whose = Whose::of(&which, &calls, &frame).await?;
    Ok(answer::page(&Page { frame, whose, wrong: None }))
}

/// A new second factor, as it is shown once.
pub struct Made {
    /// In base32, in groups of four.
    pub secret: String,
    /// What an authenticator takes.
    pub uri: String,
    /// `uri` as a QR code.
    pub qr: Option<Qr>,
    /// Each opens one session.
    pub recovery_codes: Vec<String>,
}

impl Made {
    /// From the contract's answer.
    #[must_use]
    pub fn new(made: EnrolResponse) -> Self {
        let letters: Vec<char> = made.secret_base32.chars().collect();
        let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
        Self {
            secret: groups.join(" "),
            qr: Qr::new(&made.uri),
            uri: made.uri,
            recovery_codes: made.recovery_codes,
        }
    }
}

/// A QR code as a path of SVG, a unit a module.
pub struct Qr {
    /// Its side, with the quiet zone.
    pub side: usize,
    /// Its dark modules.
    pub path: String,
}

impl Qr {
    fn new(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
        let (width, modules) = (code.width(), code.to_colors());
        let mut path = String::new();
        for (y, row) in modules.chunks(width).enumerate() {
            let mut x = 0;
            for run in row.chunk_by(|a, b| a == b) {
                if run.first() == Some(&Color::Dark) {
                    let (from, down, length) = (x + QUIET_MODULES, y + QUIET_MODULES, run.len());
                    path.push_str(&format!("M{from} {down}h{length}v1h-{length}z"));
                }
                x += run.len();
            }
        }
        Some(Self { side: width + 2 * QUIET_MODULES, path })
    }
}

#[derive(Template)]
#[template(path = "second-factor/secret.html")]
struct Secret {
    frame: Frame,
    whose: Whose,
    made: Made,
}

/// `POST /studio/second-factor/enrol`: a secret and recovery codes, shown once.
pub async fn enrol(Enrolling(visit): Enrolling, Posted(which): Posted<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let whose = Whose::of(&which, &calls, &frame).await?;
    let made = ask(&calls, &whose.thumbprint).await.map_err(Refused::on(&frame))?;
    Ok(answer::page(&Secret { frame, whose, made }))
}

/// Makes a second factor for a certificate; empty: for the visitor's own.
///
/// # Errors
/// The contract's refusal.
pub async fn ask(calls: &Calls, thumbprint: &str) -> Result<Made, tonic::Status> {
    let asked = EnrolRequest { thumbprint: thumbprint.to_owned(), request_id: String::new() };
    Ok(Made::new(calls.second_factor().enrol(asked).await?.into_inner()))
}

/// A first code.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct First {
    code: String,
    minutes: String,
}

/// `POST /studio/second-factor/confirm`: from now on every call needs a session, and the first one is opened.
pub async fn confirm(Enrolling(visit): Enrolling, Posted(first): Posted<First>) -> Answer {
    let Visit { calls, frame } = visit;
    let asked = ConfirmRequest {
        code: digits(&first.code),
        session_seconds: seconds(&first.minutes),
        no_limits: false,
        request_id: String::new(),
    };
    match calls.second_factor().confirm(asked).await {
        Ok(opened) => {
            let opened = opened.into_inner();
            Ok(log_in::with_session(
                answer::see(PATH),
                &opened.session_token,
                opened.expires_unix_ms,
            ))
        }
        Err(status) => {
            let whose = Whose::of(&Which::default(), &calls, &frame).await?;
            let (code, _) = answer::as_http(status.code());
            let wrong = Some(answer::field(&status).1);
            Ok(answer::page_with(code, &Page { frame, whose, wrong }))
        }
    }
}

#[derive(Template)]
#[template(path = "second-factor/remove.html")]
struct RemovePage {
    frame: Frame,
    whose: Whose,
}

/// `GET /studio/second-factor/remove?t=`: what it would mean.
pub async fn remove_form(Enrolling(visit): Enrolling, Query(which): Query<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let whose = Whose::of(&which, &calls, &frame).await?;
    Ok(answer::page_with(StatusCode::OK, &RemovePage { frame, whose }))
}

/// `POST /studio/second-factor/remove`.
pub async fn remove(visit: Visit, Posted(which): Posted<Which>) -> Answer {
    let Visit { calls, frame } = visit;
    let whose = Whose::of(&which, &calls, &frame).await?;
    let asked = RemoveRequest { thumbprint: whose.thumbprint.clone(), request_id: String::new() };
    calls.second_factor().remove(asked).await.map_err(Refused::on(&frame))?;
    let gone: Response = answer::see(&whose.path(""));
    Ok(if whose.is_own() { log_in::without_session(gone) } else { gone })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_qr_code_has_the_modules_of_the_library_and_a_quiet_zone() {
        let text =
            "otpauth://totp/Rookery:alice?secret=AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQT&issuer=Rookery";
        let drawn = Qr::new(text).unwrap();
        let code = QrCode::with_error_correction_level(text, EcLevel::M).unwrap();
        assert_eq!(drawn.side, code.width() + 8);
        let mut dark = 0;
        for run in drawn.path.split('M').skip(1) {
            let numbers: Vec<usize> =
                run.split([' ', 'h', 'v', '-', 'z']).filter_map(|it| it.parse().ok()).collect();
            let [x, y, length, 1, again] = numbers[..] else { panic!("{run}") };
            assert_eq!(length, again);
            for place in x..x + length {
                assert_eq!(code[(place - QUIET_MODULES, y - QUIET_MODULES)], Color::Dark);
            }
            dark += length;
        }
        let expected = code.to_colors().into_iter().filter(|color| *color == Color::Dark).count();
        assert_eq!(dark, expected);
        assert!(Qr::new(&"x".repeat(10_000)).is_none());
    }

    #[test]
    fn the_secret_is_shown_in_groups() {
        let made =
            Made::new(EnrolResponse { secret_base32: "AAAABBBBCC".into(), ..Default::default() });
        assert_eq!(made.secret, "AAAA BBBB CC");
    }
}
