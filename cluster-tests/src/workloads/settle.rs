//! After the clients have ended: what became of unknown writes, every document on every node, the state of every group.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rookery_proto::document::v1::ListDocumentsRequest;

use super::{
    Answers, Nodes,
    client::{Attempt, Unresolved, send},
    requests,
};
use crate::{
    caller::Caller,
    cluster::{HEAL_LIMIT, local_status},
    history::{FinalRead, Key, NodeState, Recorder, Seen},
    wait::eventually,
};

/// Longest time in which unknown writes are asked again, all together.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Unknown writes that are asked at a time.
const AT_ONCE: usize = 16;
/// Documents of a page.
const PAGE: u32 = 1_000;

/// Settles a history once every fault has ended and all nodes are ready: asks again what is unknown (under its request id,
/// so that it is applied once at most), reads every document of the run on every node, and notes the state of all groups
/// where all nodes have applied the same. `admins` are administrators on the same nodes in the same order.
///
/// # Errors
/// A node does not answer, or the nodes do not come to rest at one index within [`HEAL_LIMIT`].
pub async fn settle(
    nodes: &Nodes,
    admins: &[Caller],
    recorder: &Recorder,
    answers: &Answers,
) -> Result<usize> {
    let resolved = resolve(nodes, recorder, &answers.unresolved).await;
    let keys: BTreeMap<String, Key> =
        (0..).map(Key).zip(recorder.keys()).map(|(key, info)| (info.id, key)).collect();
    for node in 0..nodes.len() {
        let (at, caller) = nodes.at(node);
        let plan = &answers.plan;
        let found = read_all(&caller, &plan.database, &plan.prefix, &keys).await;
        let found = found.with_context(|| format!("the last reads on n{}", at + 1))?;
        let node = u8::try_from(at)?;
        for key in keys.values() {
            recorder.final_read(FinalRead { node, key: *key, seen: found.get(key).copied() });
        }
    }
    for state in states(admins).await? {
        recorder.state(state);
    }
    Ok(resolved)
}

/// Asks unknown writes again; gives how many have an outcome now.
async fn resolve(nodes: &Nodes, recorder: &Recorder, unresolved: &[Unresolved]) -> usize {
    let until = Instant::now() + RESOLVE_LIMIT;
    let mut resolved = 0;
    for some in unresolved.chunks(AT_ONCE) {
        let asked = some.iter().enumerate().map(async |(at, one)| {
            for node in at..at + nodes.len() {
                let (_, caller) = nodes.at(node);
                if Instant::now() > until {
                    return 0;
                }
                let answer = send(&caller, &one.request, &one.target, ANSWER_LIMIT).await;
                if let Attempt::Answered(outcome, _) = answer {
                    recorder.resolve(one.ticket, outcome);
                    return 1;
                }
            }
            0
        });
        resolved += futures::future::join_all(asked).await.into_iter().sum::<usize>();
    }
    resolved
}

async fn read_all(
    caller: &Caller,
    database: &str,
    prefix: &str,
    keys: &BTreeMap<String, Key>,
) -> Result<BTreeMap<Key, Seen>> {
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = ListDocumentsRequest {
            database: database.to_owned(),
            prefix: prefix.to_owned(),
            page_size: PAGE,
            page_token,
            ..Default::default()
        };
        let page = caller.documents().list_documents(request).await?.into_inner();
        for document in &page.documents {
            let key = keys.get(&document.id);
            let key = key.with_context(|| format!("{} was never written", document.id))?;
            found.insert(*key, requests::seen(document));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

/// The state of every group on every node that holds it, where all of them have applied the same.
async fn states(admins: &[Caller]) -> Result<Vec<NodeState>> {
    eventually("nodes that have applied the same", HEAL_LIMIT, async || {
        let mut states = Vec::new();
        for (node, admin) in admins.iter().enumerate() {
            for group in local_status(admin).await?.groups {
                anyhow::ensure!(!group.state_hash.is_empty(), "{} has no hash", group.group);
                states.push(NodeState {
                    group: group.group,
                    applied: group.applied_index,
                    node: u8::try_from(node)?,
                    hash: group.state_hash,
                });
            }
        }
        let mut applied: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for state in &states {
            applied.entry(&state.group).or_default().insert(state.applied);
        }
        for (group, applied) in applied {
            anyhow::ensure!(applied.len() == 1, "{group} is applied up to {applied:?}");
        }
        Ok(states)
    })
    .await
}
