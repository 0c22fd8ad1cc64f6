//! What a client does next.

use anyhow::{Context as _, Result};
use rand::RngExt as _;

use super::{
    client::Client,
    requests::Request,
    slots::{Target, Use},
};
use crate::history::{Change, Condition, Kind, Write};

/// One random operation of the plan's mix.
pub(super) async fn next(client: &mut Client) -> Result<()> {
    let mix = client.shared.plan.mix;
    let shares = [
        (Use::Register, mix.registers),
        (Use::Conditional, mix.conditional),
        (Use::Batch, mix.batches),
        (Use::Mixed, mix.mixed_batches),
    ];
    let all: u32 = shares.iter().map(|(_, share)| share).sum();
    let mut drawn = client.dice.random_range(0..all.max(1));
    for (of, share) in shares {
        if drawn < share {
            return operation(client, of).await;
        }
        drawn -= share;
    }
    Ok(())
}

async fn operation(client: &mut Client, of: Use) -> Result<()> {
    let choice = client.dice.random_range(0..1_000_usize);
    let slot = client.shared.documents.slot(of, client.place, choice);
    let target = client.shared.documents.take(&client.shared.recorder, of, slot);
    let target = target.context("the recorder takes no more documents")?;
    let drawn = client.dice.random_range(0..100_u32);
    match of {
        Use::Register => register(client, slot, &target, drawn).await,
        Use::Conditional => conditional(client, slot, &target, drawn).await,
        Use::Batch => batch(client, slot, &target, drawn).await,
        Use::Mixed => mixed(client, slot, &target, drawn).await,
    }
    Ok(())
}

async fn register(client: &mut Client, slot: usize, target: &Target, drawn: u32) {
    match drawn {
        0..45 => client.read(target, 0, false).await,
        45..55 => client.read(target, 0, true).await,
        _ => {
            let change = Change::Put(client.value());
            one(client, Use::Register, slot, target, change, Condition::None).await;
        }
    }
}

async fn conditional(client: &mut Client, slot: usize, target: &Target, drawn: u32) {
    let known = client.known.get(&target.keys[0]).map(|known| known.seen);
    let of = Use::Conditional;
    let is_there = known.map(|seen| Condition::Is(seen.value, seen.revision));
    match (drawn, is_there) {
        (0..30, _) => client.read(target, 0, false).await,
        (30..75, Some(condition)) => {
            let change = Change::Put(client.value());
            one(client, of, slot, target, change, condition).await;
        }
        (75..82, Some(condition)) => {
            one(client, of, slot, target, Change::Delete, condition).await;
        }
        (82..88, _) => one(client, of, slot, target, Change::Delete, Condition::None).await,
        (88..94, _) => {
            let change = Change::Put(client.value());
            one(client, of, slot, target, change, Condition::None).await;
        }
        // Whoever knows of no document makes one.
        _ => {
            let change = Change::Put(client.value());
            one(client, of, slot, target, change, Condition::Absent).await;
        }
    }
}

async fn one(
    client: &mut Client,
    of: Use,
    slot: usize,
    target: &Target,
    change: Change,
    condition: Condition,
) {
    let write = Write { key: target.keys[0], change, condition };
    let etag = client.known.get(&write.key).map(|known| known.etag.clone());
    let database = &client.shared.plan.database;
    let request = Request::one(database, target, write, etag.as_deref());
    client.write(of, slot, target, Kind::Write(write), request).await;
}

async fn batch(client: &mut Client, slot: usize, target: &Target, drawn: u32) {
    match drawn {
        0..40 => client.list(target).await,
        40..55 => {
            let place = client.dice.random_range(0..target.keys.len());
            client.read(target, place, false).await;
        }
        _ => {
            let change = Change::Put(client.value());
            let writes: Vec<_> = target
                .keys
                .iter()
                .map(|key| Write { key: *key, change, condition: Condition::None })
                .collect();
            several(client, Use::Batch, slot, target, writes).await;
        }
    }
}

/// Some documents of the group are put, others go; sometimes one of them must be as it was last seen.
async fn mixed(client: &mut Client, slot: usize, target: &Target, drawn: u32) {
    if drawn < 40 {
        return client.list(target).await;
    }
    let value = client.value();
    let first = client.dice.random_range(0..target.keys.len());
    let mut writes = Vec::with_capacity(target.keys.len());
    for (place, key) in target.keys.iter().enumerate() {
        // At least one is put: its value tells where the batch stands.
        let change = match client.dice.random_range(0..10) {
            _ if place == first => Change::Put(value),
            0..5 => Change::Put(value),
            5..7 => Change::Delete,
            _ => continue,
        };
        let known = client.known.get(key).filter(|_| drawn >= 80).map(|known| known.seen);
        let condition =
            known.map_or(Condition::None, |seen| Condition::Is(seen.value, seen.revision));
        writes.push(Write { key: *key, change, condition });
    }
    several(client, Use::Mixed, slot, target, writes).await;
}

async fn several(client: &mut Client, of: Use, slot: usize, target: &Target, writes: Vec<Write>) {
    let etag = |write: &Write| client.known.get(&write.key).map(|known| known.etag.clone());
    let etags: Vec<_> = writes.iter().map(etag).collect();
    let request = Request::batch(&client.shared.plan.database, target, &writes, &etags);
    client.write(of, slot, target, Kind::Batch(writes.into()), request).await;
}
