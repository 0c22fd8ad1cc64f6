//! Filters and their fields.
#![allow(clippy::unwrap_used, clippy::panic)]

use rookery_proto::log::v1::AuditOutcome;

use super::*;

fn record() -> AuditRecord {
    AuditRecord {
        at_unix_ms: 1_000,
        outcome: AuditOutcome::Denied.into(),
        operation: "create-database".into(),
        target: "database Sales".into(),
        actor: vec![0xab; 32],
        node_id: 2,
        request_id: vec![7; 16],
        ..AuditRecord::default()
    }
}

#[test]
fn a_record_fits_where_every_field_that_is_set_fits() {
    let check = |change: fn(&mut FilterMessage), fits: bool| {
        let mut filter = FilterMessage::default();
        change(&mut filter);
        assert_eq!(Filter::parse(&filter).unwrap().fits(&record()), fits, "{filter:?}");
    };
    check(|_| {}, true);
    check(|it| it.from_unix_ms = 1_000, true);
    check(|it| it.from_unix_ms = 1_001, false);
    check(|it| it.to_unix_ms = 1_000, true);
    check(|it| it.to_unix_ms = 999, false);
    check(|it| it.actor = "ABABABAB".into(), true);
    check(|it| it.actor = "ab:ab:ab:ab:ab".into(), true);
    check(|it| it.actor = "abababac".into(), false);
    check(|it| it.operation = "create-database".into(), true);
    check(|it| it.operation = "create".into(), false);
    check(|it| it.target = "SALES".into(), true);
    check(|it| it.target = "purchases".into(), false);
    check(|it| it.outcome = AuditOutcome::Denied.into(), true);
    check(|it| it.outcome = AuditOutcome::Applied.into(), false);
    check(|it| it.node_id = 2, true);
    check(|it| it.node_id = 1, false);
    check(|it| it.request_id = "07070707-0707-0707-0707-070707070707".into(), true);
    check(|it| it.request_id = "07070707-0707-0707-0707-070707070708".into(), false);
}

#[test]
fn a_malformed_filter_is_refused() {
    let check = |change: fn(&mut FilterMessage)| {
        let mut filter = FilterMessage::default();
        change(&mut filter);
        let status = Filter::parse(&filter).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{filter:?}");
    };
    check(|it| it.actor = "abc".into());
    check(|it| it.actor = "not hex at all".into());
    check(|it| it.actor = "a".repeat(65));
    check(|it| it.outcome = 99);
    check(|it| it.request_id = "seven".into());
    check(|it| it.target = "x".repeat(100_000));
}
