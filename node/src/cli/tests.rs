//! The command tree, and the small parsers of its arguments.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

#[test]
fn the_command_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn commands_parse_or_are_usage_errors() {
    let check = |line: &str, ok: bool| {
        let parsed = Cli::try_parse_from(line.split(' '));
        assert_eq!(parsed.is_ok(), ok, "{line}: {:?}", parsed.err().map(|e| e.to_string()));
    };
    check("rookery whoami", true);
    check("rookery -o json whoami", true);
    check("rookery whoami -o yaml --context x --timeout 5s", true);
    check("rookery whoami -o xml", false);
    check("rookery", false);
    check("rookery start --config f.toml --set a.b=c", true);
    check("rookery init --out d --nodes n1=h:1:2,n2=h:3:4", true);
    check("rookery init --out d --node n1=h:1,h:2 --node n2=h:3,h:4", true);
    check("rookery init --out d --name n4 --client h:1 --peer h:2 --ca c", true);
    check("rookery init --out d --name n4", false);
    check("rookery init --out d --name n4 --client h:1 --peer h:2 --nodes n1=h:1:2", false);
    check("rookery init --nodes n1=h:1:2", false);
    check("rookery bootstrap", false);
    check("rookery bootstrap --admin-certificate a.crt", true);
    check("rookery bootstrap --generate-admin root", false);
    check("rookery bootstrap --generate-admin root --out a.zip", true);
    check("rookery cluster bootstrap --socket s --admin-certificate a.crt", true);
    check("rookery bootstrap --generate-admin root --out a.zip --admin-certificate a.crt", false);
    check("rookery join https://h:1 TOKEN", true);
    check("rookery health --config f.toml", true);
    check("rookery config show --origin", true);
    check("rookery context import a.zip --name b", true);
    check("rookery cluster status --watch --interval 1s", true);
    check("rookery cluster join-token create --ttl 10m", true);
    check("rookery cluster transfer-leader n2 --group sales", true);
    // A clearance is always written out.
    check("rookery cert generate alice", false);
    check("rookery cert generate alice --clearance user --db sales:rw,hr:r", true);
    check("rookery cert generate alice --clearance user --db sales", false);
    check("rookery cert generate alice --clearance user --db sales:all", false);
    check("rookery cert upload a.crt --name a", false);
    check("rookery cert upload a.crt --name a --clearance cluster-admin", true);
    check("rookery cert show 1234", false);
    check(&format!("rookery cert show {}", "ab".repeat(32)), true);
    check(&format!("rookery cert edit {} --no-db --db a:r", "ab".repeat(32)), false);
    check("rookery second-factor enrol", true);
    check(&format!("rookery second-factor enrol {}", "ab".repeat(32)), true);
    check("rookery second-factor confirm 123456 --duration 1h", true);
    check("rookery second-factor login --code-stdin --no-limits --duration 10m", true);
    check("rookery second-factor login --recovery", true);
    check("rookery second-factor login 123456", false);
    check("rookery second-factor remove 1234", false);
    check("rookery db create sales --replicas 3", true);
    check("rookery db create sales --replicas 3 --nodes n1", false);
    check("rookery doc put sales a {} --collection C", true);
    check("rookery doc put sales a --etag x --new", false);
    check("rookery doc list sales --prefix a --collection C", false);
    check("rookery doc bulk sales -f f.jsonl --batch 0", false);
    check("rookery doc bulk sales -f f.jsonl", true);
    check("rookery bench sales --op mixed --clients 4 --rate 100 --pid 1,2", true);
    check("rookery bench sales --count 5 --duration 1s", false);
    check("rookery dev --nodes 3 --keep", true);
    check("rookery completion bash", true);
    let thumbprint = "ab".repeat(32);
    check(&format!("rookery cert effective {thumbprint}"), true);
    check("rookery cert effective --operation put-document --database sales", true);
    check("rookery cert effective --who-may put-document --database sales", true);
    check(&format!("rookery cert effective {thumbprint} --who-may put-document"), false);
    check("rookery cert effective --who-may put-document --operation read-document", false);
    check("rookery cert unused --for 90d", true);
    check("rookery cert unused", false);
    check("rookery cert list-well-known", true);
    check("rookery cert connections", true);
    check(&format!("rookery cert connections {thumbprint} --local -o json"), true);
    check("rookery cert connections alice", false);
    check(&format!("rookery cert cut {thumbprint} --node n1 --id 7"), true);
    check(&format!("rookery cert cut {thumbprint} --id 7"), false);
    check(&format!("rookery cert cut {thumbprint} --node n1 --id 0"), false);
    check("rookery cert cut", false);
    check("rookery metrics --last 5m --local", true);
    check("rookery metrics --last 0m", false);
    check("rookery cert notifications", true);
    check("rookery cert policy show", true);
    check(
        "rookery cert policy set --renewal same-key-same-issuer --second-factor-for operator",
        true,
    );
    check("rookery cert policy set --renewal always", false);
    check("rookery admin trust a.pem --name a --clearance cluster-admin", true);
    check("rookery admin trust a.pem --name a", false);
    check("rookery admin trust a.pem --name a --clearance cluster-node", false);
    check("rookery admin generate a --clearance operator --out a.zip", true);
    check("rookery admin generate a --clearance operator", false);
    check(&format!("rookery admin delete {thumbprint} --force"), true);
    check("rookery admin status", true);
}

#[test]
fn durations_have_units() {
    let check = |text: &str, ms: Option<u64>| {
        assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
    };
    check("500ms", Some(500));
    check("30s", Some(30_000));
    check("30", Some(30_000));
    check("2m", Some(120_000));
    check("1h", Some(3_600_000));
    check("7d", Some(604_800_000));
    for bad in
        ["", "s", "0s", "-1s", "1.5s", "1w", "99999999999999999999s", "18446744073709551615d"]
    {
        check(bad, None);
    }
}

#[test]
fn grants_name_database_and_access() {
    let check = |text: &str, expected: Option<(&str, security::Access)>| {
        let parsed = grant(text).ok().map(|g| (g.database.clone(), g.access()));
        assert_eq!(parsed, expected.map(|(d, a)| (d.to_owned(), a)), "{text}");
    };
    check("sales:r", Some(("sales", security::Access::Read)));
    check("sales:rw", Some(("sales", security::Access::ReadWrite)));
    check("Sales.2:admin", Some(("Sales.2", security::Access::Admin)));
    for bad in ["sales", "sales:", ":r", "sa les:r", "sales:write", "../x:r"] {
        check(bad, None);
    }
}

#[test]
fn destructive_commands_need_yes_where_nobody_can_be_asked() {
    // The tests' standard input is no terminal.
    let session = |yes: bool| {
        let arguments =
            if yes { vec!["rookery", "whoami", "--yes"] } else { vec!["rookery", "whoami"] };
        let cli = Cli::try_parse_from(arguments).unwrap();
        Session { out: Out::stdout(cli.global.output), global: cli.global }
    };
    let refused = session(false).confirm("This deletes it", "sales").unwrap_err();
    assert_eq!(refused.exit, Exit::Usage);
    session(true).confirm("This deletes it", "sales").unwrap();
}

#[test]
fn errors_have_their_exit_codes() {
    use tonic::{Code, Status};
    let check = |code: Code, exit: Exit| {
        let failed = Failed::from(rookery_client::Error::from_status(&Status::new(code, "words")));
        assert_eq!(failed.exit, exit, "{code:?}");
    };
    check(Code::Unauthenticated, Exit::Refused);
    check(Code::PermissionDenied, Exit::NotAllowed);
    check(Code::NotFound, Exit::NotFound);
    check(Code::AlreadyExists, Exit::Conflict);
    check(Code::Aborted, Exit::Conflict);
    check(Code::FailedPrecondition, Exit::Conflict);
    check(Code::DeadlineExceeded, Exit::TimedOut);
    check(Code::Unavailable, Exit::Unavailable);
    check(Code::ResourceExhausted, Exit::Unavailable);
    check(Code::InvalidArgument, Exit::Usage);
    check(Code::Unimplemented, Exit::Unexpected);
    let unknown = rookery_client::Error::Unknown {
        request_id: uuid::Uuid::nil(),
        last: Box::new(rookery_client::Failure::from_status(&Status::unavailable("gone"))),
    };
    let failed = Failed::from(unknown);
    assert_eq!(failed.exit, Exit::TimedOut);
    let json = failed.render(Format::Json);
    assert!(json.contains("\"request_id\":\"00000000-0000-0000-0000-000000000000\""), "{json}");
    assert!(json.contains("\"exit_code\":7"), "{json}");
    assert!(json.contains("with --request-id 00000000-"), "what to do next: {json}");
}

#[test]
fn the_fields_of_json_are_only_ever_added_to() {
    use rookery_client::proto::{cluster::v1 as cluster_proto, document::v1 as document};
    let check = |row: Row, fields: &str| {
        let json = serde_json::to_value(&row).unwrap();
        let found: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found.join(" "), fields);
    };
    check(
        whoami_row(security::WhoAmIResponse::default()),
        "registered name clearance databases state valid_from expires days_left well_known thumbprint node cluster_id \
         registry_revision",
    );
    check(
        cert::row(&security::Certificate::default()),
        "name thumbprint short thumbprint_sha1 clearance databases state disabled valid_from expires subject issuer \
         serial key_algorithm generated certificates secondaries note owner created created_by last_used last_used_node etag second_factor",
    );
    check(db::row(Default::default()), "name state access nodes created");
    check(
        db::record_row(Default::default()),
        "name id state nodes node_ids created created_by revision",
    );
    let stored = document::Document { json: b"{}".to_vec(), ..Default::default() };
    check(doc::row(&stored, true), "id collection etag revision modified document");
    check(doc::row(&stored, false), "id collection etag revision modified");
    check(
        cluster::node_row(&cluster_proto::Node::default()),
        "id name role client_address peer_address thumbprint",
    );
    check(
        cluster::group_row(
            &cluster_proto::NodeStatus::default(),
            &cluster_proto::GroupStatus::default(),
        ),
        "node node_id reachable fresh group group_id role leader_id term last_log_index committed_index \
         applied_index lag snapshot_index voters learners registry_revision resident_bytes disk_free_bytes disk_full \
         disk_reserve_held certificate_expires version state_hash",
    );
}

#[test]
fn values_in_json_have_their_types() {
    let certificate = security::Certificate {
        clearance: security::Clearance::ClusterAdmin.into(),
        grants: vec![grant("sales:rw").unwrap()],
        not_after_unix_ms: 1_800_000_000_000,
        ..Default::default()
    };
    let json = serde_json::to_value(cert::row(&certificate)).unwrap();
    assert_eq!(json["clearance"], "ClusterAdmin");
    assert_eq!(json["databases"], serde_json::json!({"sales": "ReadWrite"}));
    assert_eq!(json["expires"], "2027-01-15T08:00:00Z");
    assert_eq!(json["created"], serde_json::Value::Null);
}
