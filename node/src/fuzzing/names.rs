//! Text of people and other programs: names, tokens, codes, the configuration.

use std::path::Path;

use super::input::{Input, push_piece};
use crate::{
    config::{self, Formation, Overrides},
    edge::join_token::JoinToken,
    limits,
    names::{
        CertificateName, CollectionName, DatabaseName, DocumentId, NodeName, RequestId, Thumbprint,
        ThumbprintPrefix, Timestamp,
    },
    second_factor,
};

/// A refusal names no more of what it refuses than a log line bears.
fn check_refusal(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(text.len() < 500 && !text.chars().any(char::is_control), "a refusal: {text:?}");
}

/// What is taken as a name is plain, bounded, and the same when it is read again.
pub(super) fn names(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let plain = |name: &str, bytes_max: usize| {
        assert_eq!(name, text, "a name was changed");
        assert!(name.len() <= bytes_max && !name.chars().any(char::is_control), "{name:?}");
    };
    match DatabaseName::parse(text) {
        Ok(name) => {
            plain(name.as_str(), limits::DATABASE_NAME_BYTES_MAX);
            assert!(name.key().is_ascii() && *name.key() == text.to_ascii_lowercase());
            assert_eq!(DatabaseName::parse(name.key()).unwrap(), name, "one key, two databases");
            assert!(!["/", "\\", "..", ":", " "].iter().any(|part| name.as_str() == *part));
            assert!(!text.contains(['/', '\\', ':', '\0']), "a name that is a path");
        }
        Err(error) => check_refusal(&error),
    }
    match NodeName::parse(text) {
        Ok(name) => {
            plain(name.as_str(), 63);
            assert!(text.is_ascii());
        }
        Err(error) => check_refusal(&error),
    }
    match DocumentId::parse(text) {
        Ok(id) => plain(id.as_str(), limits::DOCUMENT_ID_BYTES_MAX),
        Err(error) => check_refusal(&error),
    }
    match CollectionName::parse(text) {
        Ok(name) => plain(name.as_str(), limits::COLLECTION_BYTES_MAX),
        Err(error) => check_refusal(&error),
    }
    match CertificateName::parse(text) {
        Ok(name) => plain(name.as_str(), 4 * limits::CERTIFICATE_NAME_CHARS_MAX),
        Err(error) => check_refusal(&error),
    }
    match text.parse::<Thumbprint>() {
        Ok(thumbprint) => {
            assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint));
            let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
            assert_eq!(digits.to_ascii_lowercase(), thumbprint.to_string(), "another thumbprint");
        }
        Err(error) => check_refusal(&error),
    }
    match text.parse::<ThumbprintPrefix>() {
        Ok(prefix) => {
            let (first, last) = prefix.bounds();
            assert!(first <= last && prefix.begins(&first) && prefix.begins(&last));
            assert!(first.to_string().starts_with(prefix.as_str()));
            assert!(last.to_string().starts_with(prefix.as_str()));
        }
        Err(error) => check_refusal(&error),
    }
    if let Err(error) = text.parse::<RequestId>() {
        check_refusal(&error);
    }
    match config::host_and_port(text) {
        Ok((host, port)) => {
            let spelled = [format!("{host}:{port}"), format!("[{host}]:{port}")];
            assert!(
                port > 0 && spelled.iter().any(|it| it == text),
                "two spellings of {host}:{port}"
            );
        }
        Err(why) => assert!(why.len() < 8 * text.len() + 100, "{why}"),
    }
    DatabaseName::parse(text).is_ok() || text.parse::<Thumbprint>().is_ok()
}

pub(super) fn name_seeds() -> Vec<Vec<u8>> {
    let digits = "0123456789abcdef".repeat(4);
    let with_colons = "AB:".repeat(31) + "AB";
    [
        "Sales",
        "con",
        "a.b-c_d",
        "n1.example:7443",
        "[::1]:1",
        "ſales",
        "a\u{202e}b",
        "é/..",
        &digits,
        &with_colons,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A token that is taken is the one line that was printed, blanks around it aside.
pub(super) fn join_token(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match text.parse::<JoinToken>() {
        Ok(token) => {
            assert_eq!(*token.expose(), text.trim(), "two texts of one token");
            assert!(token.expose().parse::<JoinToken>().unwrap() == token);
            let digest = crate::edge::join_token::secret_digest(token.expose_secret());
            assert_eq!(token.digest(), digest);
            assert!(token.id.len() <= limits::JOIN_TOKEN_ID_BYTES_MAX);
        }
        Err(error) => check_refusal(&error),
    }
    text.parse::<JoinToken>().is_ok()
}

pub(super) fn token_seeds() -> Vec<Vec<u8>> {
    let secret = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    vec![
        format!("rookery1.0f3c.{secret}.{secret}").into_bytes(),
        format!(" rookery1.a-b.{secret}.{secret}\n").into_bytes(),
        format!("rookery1..{secret}.{secret}").into_bytes(),
    ]
}

/// Codes are six digits, recovery codes are one however they are typed, and tokens are hex of one length.
pub(super) fn second_factor(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let (secret, at, text) = (input.piece(), input.piece(), input.rest());
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let mut eight = [0; 8];
    eight[..at.len().min(8)].copy_from_slice(&at[..at.len().min(8)]);
    let at = Timestamp(i64::from_be_bytes(eight));
    if let Some(code) = second_factor::Code::parse(text) {
        let typed = text.chars().filter(|c| *c != ' ');
        assert!(
            text.is_ascii() && typed.clone().count() == 6 && { typed }.all(|c| c.is_ascii_digit())
        );
        if let Some(step) = second_factor::matching_step(secret, &code, at) {
            assert!(second_factor::step(at).abs_diff(step) <= 1, "a code of another time");
        }
    }
    let (digest, again) = (second_factor::recovery_digest(text), text.to_ascii_lowercase());
    assert_eq!(digest, second_factor::recovery_digest(&again));
    if let Some(digest) = digest {
        let other = vec![0; 32];
        let place =
            second_factor::recovery_place(&digest, &[other.clone(), digest.to_vec(), other]);
        assert_eq!(place, Some(1));
    }
    if let Some(digest) = second_factor::token_digest(text) {
        assert!(text.len() == 2 * second_factor::TOKEN_BYTES && text.is_ascii());
        assert!(!second_factor::same(&digest, text.as_bytes()));
    }
    let account: String = text.chars().take(128).collect();
    let enrolment =
        second_factor::Enrolment::new(&[3; second_factor::Enrolment::RANDOM_BYTES].into());
    let uri = enrolment.uri(&account);
    assert!(uri.is_ascii() && !uri.contains([' ', '"', '<', '\n']), "an address that is none");
    assert_eq!(uri.matches('?').count(), 1, "a name that adds parameters");
    digest.is_some() || second_factor::Code::parse(text).is_some()
}

pub(super) fn factor_seeds() -> Vec<Vec<u8>> {
    let seed = |at: i64, text: &str| {
        let mut bytes = Vec::new();
        push_piece(&mut bytes, b"12345678901234567890");
        push_piece(&mut bytes, &at.to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    };
    vec![
        seed(59_000, "287 082"),
        seed(1_111_111_109_000, "081804"),
        seed(i64::MAX, "AAAQ-EAYE-AUDA-OCAJ"),
        seed(0, &"ab".repeat(32)),
        seed(-1, "Zoë & co?secret=x"),
    ]
}

/// A configuration that is taken is taken again alike; one that is refused says where, in bounded words. The first byte
/// says what the text is: the file, a formation, or variables and flags over a file that is right.
pub(super) fn config(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let Ok(text) = std::str::from_utf8(input.rest()) else { return false };
    let path = Path::new("/etc/rookery/rookery.toml");
    match kind % 3 {
        0 => check_config(text, path, &Overrides::default()),
        1 => match Formation::parse(text, Path::new("/nowhere")) {
            Ok(formation) => {
                let again = Formation::parse(&formation.to_toml(), Path::new("/nowhere"));
                assert_eq!(again.as_ref(), Ok(&formation), "a formation changes by being written");
                true
            }
            Err(why) => {
                assert!(why.len() < 8 * text.len() + 64 * 1024);
                false
            }
        },
        _ => {
            let set = text.lines().map(str::to_owned).collect();
            let env = text.lines().filter_map(|line| line.split_once('='));
            let env = env.map(|(name, value)| (format!("ROOKERY_{name}"), value.to_owned()));
            check_config(FILE, path, &Overrides { env: env.collect(), set })
        }
    }
}

fn check_config(text: &str, path: &Path, overrides: &Overrides) -> bool {
    match config::parse(text, path, overrides) {
        Ok(loaded) => {
            let written = toml::to_string(&loaded.config).unwrap();
            let again = config::parse(&written, path, &Overrides::default()).unwrap();
            assert_eq!(again.config, loaded.config, "a configuration changes by being written");
            assert!(!loaded.values().is_empty());
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 8 * text.len() + 64 * 1024);
            false
        }
    }
}

const FILE: &str = "\
[node]
name = \"n1\"
data = \"data\"
[listen]
client = \"0.0.0.0:7443\"
[advertise]
client = \"n1.example:7443\"
peer = \"n1.example:7444\"
[tls]
certificate = \"n1.crt\"
key = \"n1.key\"
[encryption]
master_key_file = \"master.key\"
[peers.2]
dial = \"127.0.0.1:21012\"
[raft]
heartbeat_ms = 100
";

pub(super) fn config_seeds() -> Vec<Vec<u8>> {
    let mut text = String::new();
    for name in ["n1", "n2"] {
        let der = super::cluster::certificate(name);
        let pem = crate::certificates::certificate_pem(&der);
        let thumbprint = Thumbprint::of(&der);
        text += &format!(
            "[[nodes]]\nname = \"{name}\"\nclient_address = \"{name}.example:7443\"\npeer_address = \
             \"{name}.example:7444\"\nthumbprint = \"{thumbprint}\"\ncertificate = '''\n{pem}'''\n"
        );
    }
    let formation = format!("cluster_id = \"0f0e0d0c-0b0a-4908-8706-050403020100\"\n{text}");
    let variables = "node.name=n1\nNODE__NAME=n1\nlisten.client=127.0.0.1:0\nraft.x=1";
    let set = "node.name=n2";
    [(0_u8, FILE), (1, formation.as_str()), (2, variables), (2, set), (0, "[node]\nname = 1")]
        .map(|(kind, text)| [&[kind], text.as_bytes()].concat())
        .to_vec()
}
