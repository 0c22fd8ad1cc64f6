//! The administrator of one certificate: one change after the other, each asked for until it is acknowledged.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, rngs::StdRng};
use tonic::{Code, Status};

use super::{
    AFTER, BEFORE, Changed, Shared, Told,
    requester::Requester,
    rights::{Change, Rights, Subject},
};
use crate::{authorization_history::Moment, identity::Identity};

/// Longest wait for one answer. A revocation waits about a second for a silent node.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);
/// Pause after a failed attempt.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a change may be refused, again and again, by nodes that answer.
const REFUSED_LIMIT: Duration = Duration::from_secs(20);
/// How long a change is asked for after the end.
const END_LIMIT: Duration = Duration::from_secs(20);

/// One administrator and the holder of its certificate.
pub(super) struct Administrator {
    shared: Arc<Shared>,
    identity: Identity,
    makes_database: bool,
    dice: StdRng,
    requester: Requester,
    told: Told,
}

impl Administrator {
    /// Of a certificate that was just registered without rights.
    pub fn new(
        shared: Arc<Shared>,
        identity: Identity,
        database: String,
        makes_database: bool,
        dice: StdRng,
    ) -> Result<Self> {
        let requester = Requester::new(&shared, &identity)?;
        let rights = Rights { registered: true, database: !makes_database, ..Rights::NONE };
        let first = Changed { rights, invoked: Moment::ZERO, acknowledged: Some(Moment::ZERO) };
        let name = identity.name.clone();
        let told = Told { name, database, changes: vec![first], ..Told::default() };
        Ok(Self { shared, identity, makes_database, dice, requester, told })
    }

    /// Makes changes until the end.
    pub async fn work(mut self) -> Result<Vec<Told>> {
        let database = self.told.database.clone();
        let mut rights = self.told.changes[0].rights;
        while !self.shared.stopped() {
            self.shared.pace.turn().await;
            // Administrators that start together drift apart.
            tokio::time::sleep(Duration::from_millis(self.dice.random_range(0..40))).await;
            let (identity, makes_database) = (&self.identity, self.makes_database);
            let subject = Subject { identity, database: &database, makes_database };
            let (change, next) = subject.change(&mut self.dice, rights);
            let burst = self.requester.burst(&self.shared, &database, &mut self.dice);
            tokio::time::sleep(BEFORE).await;
            let first = self.dice.random_range(0..self.shared.admins.len());
            let invoked = self.shared.now();
            let acknowledged = make(&self.shared, &change, first).await;
            let acknowledged =
                acknowledged.with_context(|| format!("{}: {change:?}", self.told.name));
            if acknowledged.is_ok() {
                tokio::time::sleep(AFTER).await;
            }
            self.requester.end(burst, &mut self.told).await?;
            let acknowledged = acknowledged?;
            self.told.changes.push(Changed { rights: next, invoked, acknowledged });
            if acknowledged.is_none() {
                break; // The end came first: nobody knows.
            }
            rights = next;
        }
        Ok(vec![self.told])
    }
}

/// Whether a change with this answer may have been made, or may be made by another node: no node refused it for good.
fn may_be_made(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::ResourceExhausted
    )
}

/// Asks one node after the other, always under the same request id, until one acknowledges; gives when. `None`: the end
/// came first.
///
/// # Errors
/// Nodes refuse it for good.
pub(super) async fn make(shared: &Shared, change: &Change, first: usize) -> Result<Option<Moment>> {
    let (mut refused_since, mut stopped_since) = (None, None);
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    for attempt in first.. {
        let (_, admin) = shared.admins.at(attempt);
        let status = match tokio::time::timeout(ATTEMPT_LIMIT, change.ask(&admin)).await {
            Ok(Ok(())) => {
                shared.changes.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(shared.now()));
            }
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer"),
        };
        *failures.entry(format!("{:?}: {}", status.code(), status.message())).or_default() += 1;
        if may_be_made(&status) {
            refused_since = None;
        } else {
            let since = *refused_since.get_or_insert_with(Instant::now);
            anyhow::ensure!(since.elapsed() < REFUSED_LIMIT, "refused for good: {failures:?}");
        }
        if shared.stopped() {
            let since = *stopped_since.get_or_insert_with(Instant::now);
            if since.elapsed() > END_LIMIT {
                return Ok(None);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(None)
}
