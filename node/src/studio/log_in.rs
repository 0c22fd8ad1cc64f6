//! Sessions of those whose certificate has a second factor: the log-in page, and the way back from it.
//!
//! The contract opens and ends sessions; a browser keeps the token in a cookie that no script reads and no other site can
//! have sent ([`contract::session_cookie`]).
//!
//! 1. A page that needs a session leads here with the address that was asked for ([`ask`]).
//! 2. The code goes to the contract, which counts wrong ones ([`submit`]).
//! 3. The answer sets the cookie and leads back, to an address below `/studio` and nowhere else ([`back`]).

use askama::Template;
use axum::{
    extract::Query,
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
};
use rookery_proto::security::v1::{
    GetSecondFactorStatusRequest, GetSecondFactorStatusResponse, LogInRequest, LogOutRequest,
    log_in_request::Proof,
};
use serde::Deserialize;
use tonic::Status;

use super::{
    answer,
    contract::session_cookie,
    posted::Posted,
    second_factor,
    visit::{self, Arrival},
    words,
};

/// The log-in page.
pub const PATH: &str = "/studio/log-in";

/// Where a log-in leads that came from nowhere.
const HOME: &str = "/studio";

/// Longest address that a log-in leads back to.
const BACK_BYTES_MAX: usize = 2048;

/// How long a session may last, in minutes, as the form offers it; the contract has the bound.
const LENGTHS: [(&str, &str); 4] =
    [("30", "30 minutes"), ("120", "2 hours"), ("480", "8 hours"), ("1440", "a day")];

/// What leads to the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Where to go afterwards.
    to: String,
    /// Why the page is shown: `change`, `out` or nothing.
    why: String,
}

#[derive(Template)]
#[template(path = "log-in.html")]
struct Page {
    style: String,
    icon: String,
    title: &'static str,
    name: String,
    to: String,
    why: String,
    wrong: Option<String>,
    locked_until: Option<String>,
    recovery_codes_left: String,
    lengths: [(&'static str, &'static str); 4],
    length: String,
}

/// Leads whoever has to log in first to the log-in page.
///
/// From another site the cookie does not come along (SameSite=Strict): such a visitor may well have a session. So they get
/// a page that asks for the same address again by itself; what it asks comes from this origin.
pub fn ask(parts: &Parts) -> Response {
    let site = parts.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let here = parts.uri.path_and_query().map_or(HOME, |it| it.as_str());
    if !reads {
        let to = area(parts.uri.path());
        return answer::see(&format!("{PATH}{}", words::query(&[("to", to), ("why", "change")])));
    }
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        let (style, _, icon) = answer::files();
        return answer::page_with(
            StatusCode::OK,
            &Again { style, icon, title: "One moment", to: back(here).to_owned() },
        );
    }
    answer::see(&format!("{PATH}{}", words::query(&[("to", here)])))
}

#[derive(Template)]
#[template(path = "again.html")]
struct Again {
    style: String,
    icon: String,
    title: &'static str,
    to: String,
}

/// The page that changes of this address are made from, as far as the address tells.
pub fn area(path: &str) -> &'static str {
    const AREAS: [(&str, &str); 6] = [
        ("/studio/certificate", "/studio/certificates"),
        ("/studio/database", "/studio/databases"),
        ("/studio/document", "/studio/documents"),
        ("/studio/cluster", "/studio/cluster"),
        ("/studio/audit", "/studio/audit"),
        ("/studio/second-factor", "/studio/second-factor"),
    ];
    AREAS.iter().find(|(begins, _)| path.starts_with(begins)).map_or(HOME, |(_, page)| page)
}

/// Where a log-in leads: the address that was asked for if it is one of the Studio, its first page otherwise.
fn back(to: &str) -> &str {
    let path = to.split('?').next().unwrap_or_default();
    let below = path == HOME || path.starts_with("/studio/");
    // Unreserved and reserved characters of a path with its query (RFC 3986, 3.3 and 3.4): nothing that a browser takes
    // for a slash, strips, or splits a header at.
    let plain = to
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~/?%&=+:@!$'()*,;".contains(&byte));
    let climbs = path.split('/').any(|part| {
        let part = part.to_ascii_lowercase().replace("%2e", ".");
        part == "." || part == ".."
    });
    let loops = path == PATH || path == "/studio/log-out";
    if to.len() <= BACK_BYTES_MAX && below && plain && !climbs && !loops { to } else { HOME }
}

/// `GET /studio/log-in?to=`.
pub async fn form(arrival: Arrival, Query(asked): Query<Asked>) -> Response {
    let status = match status(&arrival).await {
        Ok(status) => status,
        Err(refused) => return failed(&refused),
    };
    if !status.enrolled && status.required {
        return answer::see(second_factor::PATH);
    }
    if status.logged_in || !status.enrolled {
        return answer::see(back(&asked.to));
    }
    page(&arrival, &asked, &status, None)
}

async fn status(arrival: &Arrival) -> Result<GetSecondFactorStatusResponse, Status> {
    let asked = GetSecondFactorStatusRequest {};
    Ok(arrival.calls.second_factor().get_second_factor_status(asked).await?.into_inner())
}

fn page(
    arrival: &Arrival,
    asked: &Asked,
    status: &GetSecondFactorStatusResponse,
    wrong: Option<&Status>,
) -> Response {
    let (style, _, icon) = answer::files();
    let locked = status.locked_until_unix_ms;
    let page = Page {
        style,
        icon,
        title: "Log in",
        name: arrival.who.name.clone(),
        to: back(&asked.to).to_owned(),
        why: asked.why.clone(),
        wrong: wrong.map(|status| answer::field(status).1),
        locked_until: (locked != 0).then(|| words::date(locked)),
        recovery_codes_left: codes_left(status.recovery_codes_left),
        lengths: LENGTHS,
        length: "120".to_owned(),
    };
    let code = wrong.map_or(StatusCode::OK, |status| answer::as_http(status.code()).0);
    answer::page_with(code, &page)
}

fn failed(status: &Status) -> Response {
    let (code, title) = answer::as_http(status.code());
    answer::alone(code, title, status.message())
}

/// What the form holds.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Entered {
    code: String,
    recovery: String,
    minutes: String,
    to: String,
}

impl Entered {
    fn request(self) -> LogInRequest {
        let proof = match self.recovery.trim() {
            "" => Proof::Code(digits(&self.code)),
            recovery => Proof::RecoveryCode(recovery.to_owned()),
        };
        LogInRequest {
            proof: Some(proof),
            session_seconds: seconds(&self.minutes),
            no_limits: false,
            request_id: String::new(),
        }
    }
}

/// A code without the blanks that authenticators show in it.
pub fn digits(code: &str) -> String {
    code.chars().filter(|letter| !letter.is_whitespace()).collect()
}

/// The length of a session; 0, which is the contract's own, for anything that the form does not offer.
pub fn seconds(minutes: &str) -> u64 {
    minutes.parse::<u64>().unwrap_or_default().saturating_mul(60)
}

/// `POST /studio/log-in`.
pub async fn submit(arrival: Arrival, Posted(entered): Posted<Entered>) -> Response {
    let asked = Asked { to: entered.to.clone(), why: String::new() };
    let by_recovery = !entered.recovery.trim().is_empty();
    match arrival.calls.second_factor().log_in(entered.request()).await {
        Ok(opened) => {
            let opened = opened.into_inner();
            let to = back(&asked.to);
            let response = match by_recovery {
                true => used_up(to, opened.recovery_codes_left),
                false => answer::see(to),
            };
            with_session(response, &opened.session_token, opened.expires_unix_ms)
        }
        Err(refused) => match status(&arrival).await {
            Ok(status) => page(&arrival, &asked, &status, Some(&refused)),
            Err(_) => failed(&refused),
        },
    }
}

/// How many recovery codes are left, as a sentence ends.
fn codes_left(left: u32) -> String {
    format!("{} left", if left == 1 { "1 is".to_owned() } else { format!("{left} are") })
}

/// After a recovery code: how many are left.
fn used_up(to: &str, left: u32) -> Response {
    let (style, _, icon) = answer::files();
    let (title, to) = ("You are logged in", to.to_owned());
    answer::page_with(StatusCode::OK, &UsedUp { style, icon, title, to, left })
}

#[derive(Template)]
#[template(path = "logged-in.html")]
struct UsedUp {
    style: String,
    icon: String,
    title: &'static str,
    to: String,
    left: u32,
}

impl UsedUp {
    fn codes_left(&self) -> String {
        codes_left(self.left)
    }
}

/// The answer with the cookie of a session that ends then.
pub fn with_session(mut response: Response, token: &str, expires_unix_ms: i64) -> Response {
    let seconds = expires_unix_ms.saturating_sub(visit::now()) / 1000;
    if let Some(cookie) = session_cookie(token, seconds) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The answer that takes the cookie away.
pub fn without_session(response: Response) -> Response {
    with_session(response, "", 0)
}

/// `POST /studio/log-out`: ends the session on every node.
pub async fn log_out(arrival: Arrival) -> Response {
    let asked = LogOutRequest { request_id: String::new() };
    match arrival.calls.second_factor().log_out(asked).await {
        Ok(_done) => {
            let next = format!("{PATH}{}", words::query(&[("why", "out")]));
            without_session(answer::see(&next))
        }
        Err(refused) => failed(&refused),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_log_in_leads_to_pages_of_the_studio_alone() {
        for to in [
            "/studio",
            "/studio?x=y",
            "/studio/certificates?q=Zo%C3%AB&state=valid",
            "/studio/document?db=sales&id=a%2Fb%2F..%2Fc",
            "/studio/certificate?t=ab:cd",
        ] {
            assert_eq!(back(to), to);
        }
        for to in [
            "",
            "/",
            "studio",
            "/studios",
            "/studio.evil.example/",
            "//evil.example/studio",
            "/\\evil.example",
            "https://evil.example/studio",
            "javascript:alert(1)//studio",
            "/studio/../x",
            "/studio/%2e%2E/x",
            "/studio/./x",
            "/studio/\r\nset-cookie: a=b",
            "/studio/\t/x",
            "/studio/<script>",
            "/studio/ü",
            "/studio/log-in?to=/studio",
            "/studio/log-out",
        ] {
            assert_eq!(back(to), HOME, "{to:?}");
        }
        let long = format!("/studio/{}", "a".repeat(BACK_BYTES_MAX));
        assert_eq!(back(&long), HOME);
    }

    #[test]
    fn who_must_log_in_first_is_led_there_and_back() {
        let check = |method: &str, uri: &str, site: &str, status: StatusCode, location: &str| {
            let request = axum::http::Request::builder().method(method).uri(uri);
            let request = request.header("sec-fetch-site", site).body(()).unwrap();
            let answer = ask(&request.into_parts().0);
            assert_eq!(answer.status(), status, "{method} {uri}");
            let to = answer.headers().get(header::LOCATION).map_or("", |it| it.to_str().unwrap());
            assert_eq!(to, location, "{method} {uri}");
        };
        let see = StatusCode::SEE_OTHER;
        check("GET", "/studio", "none", see, "/studio/log-in?to=%2Fstudio");
        let page = "/studio/certificates?q=a";
        let back = "/studio/log-in?to=%2Fstudio%2Fcertificates%3Fq%3Da";
        check("GET", page, "same-origin", see, back);
        check("GET", page, "cross-site", StatusCode::OK, "");
        let lost = "/studio/log-in?to=%2Fstudio%2Fcertificates&why=change";
        check("POST", "/studio/certificate/delete", "same-origin", see, lost);
    }

    #[test]
    fn one_code_is_and_several_are_left() {
        let told = [0, 1, 2].map(codes_left);
        assert_eq!(told, ["0 are left", "1 is left", "2 are left"]);
    }

    #[test]
    fn codes_and_lengths_are_read_as_people_type_them() {
        assert_eq!(digits(" 123 456\n"), "123456");
        assert_eq!(seconds("30"), 1800);
        assert_eq!(seconds("x"), 0);
        assert_eq!(seconds("18446744073709551615"), u64::MAX);
        let request = Entered { recovery: " ABCD ".into(), ..Entered::default() }.request();
        assert_eq!(request.proof, Some(Proof::RecoveryCode("ABCD".into())));
        let request = Entered { code: "123 456".into(), ..Entered::default() }.request();
        assert_eq!(request.proof, Some(Proof::Code("123456".into())));
    }
}
