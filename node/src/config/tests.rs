//! Tables of configurations that load and of configurations that are refused, with the words of the refusal.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

const GOOD: &str = r#"
[node]
name = "n1"
data = "data"
[advertise]
client = "n1.example:7443"
peer = "n1.example:7444"
[tls]
certificate = "node.crt"
key = "node.key"
[encryption]
master_key_file = "master.key"
"#;

fn path() -> &'static Path {
    Path::new("/etc/rookery/rookery.toml")
}

fn overrides(env: &[(&str, &str)], set: &[&str]) -> Overrides {
    Overrides {
        env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        set: set.iter().map(|s| (*s).to_owned()).collect(),
    }
}

#[track_caller]
fn check_refused(text: &str, env: &[(&str, &str)], set: &[&str], words: &[&str]) {
    let error = match parse(text, path(), &overrides(env, set)) {
        Ok(loaded) => panic!("accepted: {:?}", loaded.config),
        Err(error) => error.to_string(),
    };
    for word in words {
        assert!(error.contains(word), "{word:?} is not in:\n{error}");
    }
}

#[test]
fn refusals_name_file_key_and_remedy() {
    let with = |section: &str| format!("{GOOD}{section}");
    let without = |line: &str| GOOD.replace(line, "");
    let file = "/etc/rookery/rookery.toml: ";
    check_refused(
        &with("[raft]\nhearbeat_ms = 1\n"),
        &[],
        &[],
        &[file, "unknown field `hearbeat_ms`", "line"],
    );
    check_refused(&with("[rat]\n"), &[], &[], &["unknown field `rat`"]);
    check_refused(&with("[raft]\nheartbeat_ms = \"x\"\n"), &[], &[], &["invalid type", "line"]);
    check_refused("node = [", &[], &[], &[file, "line 1"]);
    check_refused(
        &without("name = \"n1\"\n"),
        &[],
        &[],
        &["/etc/rookery/rookery.toml: node.name is missing; give the node a name"],
    );
    check_refused(&GOOD.replace("\"n1\"", "\"n 1\""), &[], &[], &["node.name may hold only ASCII"]);
    check_refused(
        &without("data = \"data\"\n"),
        &[],
        &[],
        &["node.data is missing; name a folder"],
    );
    check_refused(
        &without("client = \"n1.example:7443\"\n"),
        &[],
        &[],
        &["advertise.client is missing, and listen.client is the unspecified address"],
    );
    check_refused(
        &GOOD.replace("n1.example:7443", "n1.example"),
        &[],
        &[],
        &["advertise.client has no port"],
    );
    check_refused(&GOOD.replace("n1.example:7443", "n1.example:0"), &[], &[], &["no usable port"]);
    check_refused(&GOOD.replace("n1.example:7443", "::1:7443"), &[], &[], &["no usable host"]);
    check_refused(
        &without("master_key_file = \"master.key\"\n"),
        &[],
        &[],
        &["encryption names no master key; set exactly one of"],
    );
    check_refused(&with("master_key_env = \"K\"\n"), &[], &[], &["encryption names 2 master keys"]);
    for (lines, problem) in [
        ("master_passphrase_prompt = true\n", "encryption names 2 master keys"),
        ("[encryption.next]\n", "encryption.next names no master key"),
        ("[encryption.next]\nmaster_key_exec = []\n", "encryption.next.master_key_exec is empty"),
        ("[encryption.next]\nmaster_key_file = \"master.key\"\n", "the current master key"),
        (
            "[encryption.next]\nmaster_key_env = \"K\"\n[encryption.next.next]\nmaster_key_env = \"L\"\n",
            "encryption.next.next has no meaning",
        ),
    ] {
        check_refused(&with(lines), &[], &[], &[problem]);
    }
    check_refused(&with("[peers.2]\ndial = \"x\"\n"), &[], &[], &["peers.2.dial has no port"]);
    check_refused(
        &with("[raft]\nelection_timeout_min_ms = 200\n"),
        &[],
        &[],
        &["raft.election_timeout_min_ms is less than two heartbeats of 150 ms"],
    );
    check_refused(
        &with("[raft]\nelection_timeout_max_ms = 600\n"),
        &[],
        &[],
        &["is not greater than"],
    );
    let well_known = |thumbprint: &str| {
        with(&format!("[authorization]\nwell_known_admins = [\"{thumbprint}\"]\n"))
    };
    check_refused(
        &well_known(&"ab".repeat(20)),
        &[],
        &[],
        &["authorization.well_known_admins holds at place 1", "is SHA-1", "-fingerprint -sha256"],
    );
    check_refused(&well_known("admin"), &[], &[], &["must be 64 hex digits"]);
    check_refused(
        &with("[authorization]\nlast_used_interval_ms = 10\n"),
        &[],
        &[],
        &["authorization.last_used_interval_ms is out of bounds"],
    );
    check_refused(&with("[log]\nlevel = \"a=b=c\"\n"), &[], &[], &["log.level is refused"]);
    check_refused(&with("[log]\nformat = \"xml\"\n"), &[], &[], &["unknown variant `xml`"]);
    check_refused(
        GOOD,
        &[("ROOKERY_RAFT__HEARTBEAT_MS", "soon")],
        &[],
        &["environment ROOKERY_RAFT__HEARTBEAT_MS: raft.heartbeat_ms is refused"],
    );
    check_refused(GOOD, &[("ROOKERY_NODE__NAMES", "x")], &[], &["unknown field `names`"]);
    check_refused(GOOD, &[], &["node.name"], &["flag --set: node.name has no value"]);
    check_refused(
        GOOD,
        &[],
        &["listen.client=127.0.0.1:0"],
        &["flag --set: listen.client has port 0"],
    );
    check_refused(
        GOOD,
        &[],
        &["listen.peer=0.0.0.0:7443"],
        &["listen.peer is the address of listen.client"],
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let Err(Error::Invalid(problems)) = parse("", path(), &Overrides::default()) else {
        panic!("an empty file was accepted");
    };
    let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "node.name",
            "node.data",
            "advertise.client",
            "advertise.peer",
            "tls.certificate",
            "tls.key",
            "encryption",
        ]
    );
}

#[test]
fn later_layers_win_and_origins_are_kept() {
    let env = [
        ("ROOKERY_RAFT__HEARTBEAT_MS", "100"),
        ("ROOKERY_NODE__NAME", "7"),
        ("ROOKERY_CONTEXT", "x"),
    ];
    let loaded =
        parse(GOOD, path(), &overrides(&env, &["raft.heartbeat_ms=90", "tls.tls12=true"])).unwrap();
    assert_eq!(loaded.config.raft.heartbeat_ms, 90);
    assert_eq!(loaded.config.node.name, "7");
    assert!(loaded.config.tls.tls12);
    assert_eq!(*loaded.origin("raft.heartbeat_ms"), Origin::Flag);
    assert_eq!(*loaded.origin("node.name"), Origin::Env("ROOKERY_NODE__NAME".to_owned()));
    assert_eq!(*loaded.origin("tls.key"), Origin::File(path().to_owned()));
    assert_eq!(*loaded.origin("listen.ops"), Origin::Default);
    assert!(loaded.values().iter().any(|(k, v, _)| k == "listen.ops" && v == "\"127.0.0.1:7445\""));
}

#[test]
fn a_master_key_of_a_higher_layer_replaces_the_lower_one() {
    let env = [("ROOKERY_ENCRYPTION__MASTER_KEY_EXEC", "[\"/bin/key\", \"a\"]")];
    let config = parse(GOOD, path(), &overrides(&env, &[])).unwrap().config;
    let command = ["/bin/key".to_owned(), "a".to_owned()];
    assert_eq!(config.encryption.source(), Some(MasterKeySource::Exec(&command)));
}

#[test]
fn the_next_master_key_is_named_beside_the_current_one_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rookery.toml");
    std::fs::write(&file, GOOD).unwrap();
    let env = [("ROOKERY_ENCRYPTION__MASTER_PASSPHRASE_FILE", "words"), ("SECRET", "x")];
    let config = load(&file, &overrides(&env, &[])).unwrap().config;
    let words = folder.path().join("words");
    assert_eq!(config.encryption.source(), Some(MasterKeySource::PassphraseFile(&words)));
    assert!(config.encryption.next.is_none());
    let from = config.loaded_from.clone().unwrap();
    assert!(!format!("{from:?}").contains("SECRET"), "only what is looked at is kept");
    std::fs::write(&file, format!("{GOOD}[encryption.next]\nmaster_key_file = \"next.key\"\n"))
        .unwrap();
    let again = from.again().unwrap().encryption;
    let next = folder.path().join("next.key");
    assert_eq!(again.next.unwrap().source(), Some(MasterKeySource::File(&next)));
}

#[test]
fn relative_paths_are_taken_from_the_folder_of_the_file() {
    let config = parse(GOOD, path(), &Overrides::default()).unwrap().config;
    assert_eq!(config.node.data, Path::new("/etc/rookery/data"));
    assert_eq!(config.tls.key, Path::new("/etc/rookery/node.key"));
    assert_eq!(
        config.encryption.master_key_file.as_deref(),
        Some(Path::new("/etc/rookery/master.key"))
    );
    assert_eq!(config.admin_socket(), Path::new("/etc/rookery/data/admin.sock"));
}

#[test]
fn peers_are_dialled_by_id_or_name() {
    let text =
        format!("{GOOD}[peers.2]\ndial = \"127.0.0.1:21012\"\n[peers.n3]\ndial = \"[::1]:9\"\n");
    let config = parse(&text, path(), &Overrides::default()).unwrap().config;
    assert_eq!(config.dial(2, "n2"), Some("127.0.0.1:21012"));
    assert_eq!(config.dial(3, "n3"), Some("[::1]:9"));
    assert_eq!(config.dial(4, "n4"), None);
}

#[test]
fn advertised_addresses_default_to_specific_listen_addresses() {
    let text = GOOD.replace("client = \"n1.example:7443\"\n", "");
    let config =
        parse(&text, path(), &overrides(&[], &["listen.client=127.0.0.1:9000"])).unwrap().config;
    assert_eq!(config.advertise.client, "127.0.0.1:9000");
}

#[test]
fn keys_that_others_can_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let config_path = folder.path().join("rookery.toml");
    for name in ["node.crt", "node.key", "master.key"] {
        std::fs::write(folder.path().join(name), [1_u8; 32]).unwrap();
    }
    let mode = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("node.key", 0o644);
    mode("master.key", 0o600);
    let config = parse(GOOD, &config_path, &Overrides::default()).unwrap().config;
    let message = config.check_files(&config_path).unwrap_err().to_string();
    assert!(message.contains("tls.key names") && message.contains("run: chmod 600"), "{message}");
    assert!(!message.contains("master_key_file"), "{message}");
    mode("node.key", 0o600);
    config.check_files(&config_path).unwrap();
}

mod formation_file {
    use super::*;

    fn certificate(name: &str) -> (Vec<u8>, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.der().to_vec(), certificate.pem())
    }

    fn two_nodes() -> Formation {
        let member = |id: u64| {
            let (der, _) = certificate(&format!("n{id}"));
            Member {
                id,
                name: format!("n{id}"),
                client_address: format!("n{id}:7443"),
                peer_address: format!("n{id}:7444"),
                thumbprint: crate::names::Thumbprint::of(&der),
                certificate: der,
            }
        };
        Formation {
            cluster_id: "0198c0de-0000-7000-8000-000000000001".to_owned(),
            nodes: vec![member(1), member(2)],
            administrators: vec![Administrator {
                name: "admin".to_owned(),
                certificate: certificate("admin").0,
            }],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let formation = two_nodes();
        let text = formation.to_toml();
        assert_eq!(Formation::parse(&text, Path::new("/")).unwrap(), formation);
    }

    #[test]
    fn refusals_say_which_node() {
        let good = two_nodes();
        let check = |change: &dyn Fn(&mut Formation), words: &str| {
            let mut bad = good.clone();
            change(&mut bad);
            let error = Formation::parse(&bad.to_toml(), Path::new("/")).unwrap_err();
            assert!(error.contains(words), "{words:?} is not in {error}");
        };
        check(&|f| f.cluster_id = "x".into(), "cluster_id must be a UUID");
        check(&|f| f.nodes.clear(), "there must be 1 to 64 nodes");
        check(&|f| f.nodes[1].name = "N1".into(), "two nodes have the name n1");
        check(&|f| f.nodes[1].name = "n 2".into(), "node 2 (n 2): node name may hold only");
        check(
            &|f| f.nodes[0].client_address = "n2:7443".into(),
            "two nodes have the client_address",
        );
        check(&|f| f.nodes[0].peer_address = "n1".into(), "node 1 (n1): peer_address has no port");
        check(
            &|f| f.nodes[0].thumbprint = f.nodes[1].thumbprint,
            "node 1 (n1): thumbprint is not that of the certificate",
        );
        check(
            &|f| f.nodes[0].certificate = vec![0; 9000],
            "node 1 (n1): certificate is larger than",
        );
        check(&|f| f.administrators[0].name = " ".into(), "certificate name must not be blank");
    }
}

#[test]
fn well_known_admins_are_taken_in_every_notation_once() {
    let plain = "ab".repeat(32);
    let colons = plain
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|two| String::from_utf8_lossy(two).into_owned())
        .collect::<Vec<_>>()
        .join(":");
    let text = format!("{GOOD}[authorization]\nwell_known_admins = [\"{plain}\", \"{colons}\"]\n");
    let loaded = parse(&text, path(), &Overrides::default()).unwrap();
    let thumbprints = loaded.config.authorization.well_known_thumbprints();
    assert_eq!(thumbprints.iter().map(ToString::to_string).collect::<Vec<_>>(), [plain]);
}
