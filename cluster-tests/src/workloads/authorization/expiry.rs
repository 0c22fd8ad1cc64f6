//! Certificates that expire while their holder asks: a version that the clock makes.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use rand::{RngExt as _, rngs::StdRng};
use rookery_proto::security::v1::Access;
use time::OffsetDateTime;

use super::{
    Changed, Shared, Told, administrator,
    requester::Requester,
    rights::{Rights, Subject},
};
use crate::{authorization_history::Moment, identity::Identity};

/// How long a certificate is valid from its making.
const LIFETIME: Duration = Duration::from_secs(4);
/// Nodes and this process read the same clock; what remains is how long a decision takes.
const TOLERANCE: Duration = Duration::from_millis(500);
/// How long requests go on after the end of validity.
const AFTER: Duration = Duration::from_millis(1_500);

/// One certificate after the other, until the end.
pub(super) async fn work(shared: Arc<Shared>, mut dice: StdRng) -> Result<Vec<Told>> {
    let mut all = Vec::new();
    while !shared.stopped() {
        let number = all.len();
        all.push(one(&shared, number, &mut dice).await?);
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..500))).await;
    }
    Ok(all)
}

async fn one(shared: &Arc<Shared>, number: usize, dice: &mut StdRng) -> Result<Told> {
    let database = shared.plan.database.clone();
    // Certificates know whole seconds.
    let last = OffsetDateTime::now_utc() + LIFETIME;
    let last = last.replace_nanosecond(0)?;
    let name = format!("{database}-expiring-{number}");
    let identity = Identity::with(&name, |params| params.not_after = last)?;
    let left = last - OffsetDateTime::now_utc();
    let expires = shared.now() + Duration::try_from(left).unwrap_or_default();
    let unknown =
        Changed { rights: Rights::NONE, invoked: Moment::ZERO, acknowledged: Some(Moment::ZERO) };
    let mut told = Told { name, database, changes: vec![unknown], ..Told::default() };
    let subject = Subject { identity: &identity, database: &told.database, makes_database: false };
    let access = Some(Access::ReadWrite);
    let change = subject.register(access);
    let mut requester = Requester::new(shared, &identity)?;
    let invoked = shared.now();
    let registering =
        administrator::make(shared, &change, dice.random_range(0..shared.admins.len()));
    // A registration that comes after the certificate has expired is refused; then there is nothing to see.
    let Ok(Ok(acknowledged)) = tokio::time::timeout(LIFETIME, registering).await else {
        return Ok(told);
    };
    let rights = Rights { registered: true, access, ..Rights::NONE };
    told.changes.push(Changed { rights, invoked, acknowledged });
    let acknowledged = Some(expires + TOLERANCE);
    let invoked = expires.saturating_sub(TOLERANCE);
    told.changes.push(Changed { rights: Rights::NONE, invoked, acknowledged });
    while shared.now() < expires + AFTER && !shared.stopped() {
        let burst = requester.burst(shared, &told.database.clone(), dice);
        tokio::time::sleep(Duration::from_millis(400)).await;
        requester.end(burst, &mut told).await?;
    }
    Ok(told)
}
