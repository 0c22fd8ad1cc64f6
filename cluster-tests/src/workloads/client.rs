//! One client: one operation at a time, sent to one node after the other until it is answered, and recorded.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Result;
use rand::{RngExt as _, rngs::StdRng};
use tonic::Status;

use super::{
    Shared, mix,
    requests::{self, Request},
    slots::{Target, Use},
};
use crate::{
    caller::Caller,
    history::{Key, Kind, Moment, Operation, Outcome, Revision, Seen, Ticket, Value},
};

/// Pause after a failed attempt.
const PAUSE: Duration = Duration::from_millis(10);
/// Most documents a client remembers the etags of.
const KNOWN_MAX: usize = 64;
/// Most writes without outcome that are kept to be asked again.
const UNRESOLVED_MAX: usize = 50_000;
/// One in so many acknowledged writes is sent again under its request id.
const REPEAT_ONE_IN: u32 = 40;

/// A write that nobody knows about, to be asked again.
#[derive(Debug, Clone)]
pub struct Unresolved {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) target: Target,
}

/// A document as a client last saw it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub seen: Seen,
    pub etag: String,
}

/// What an attempt came to.
pub(super) enum Attempt {
    /// The outcome, and the etags of what was put, by place.
    Answered(Outcome, Vec<String>),
    /// No answer that says anything.
    Failed(Status),
}

pub(super) struct Client {
    /// Among the clients of the load.
    pub place: usize,
    pub shared: Arc<Shared>,
    pub dice: StdRng,
    pub known: BTreeMap<Key, Known>,
    /// The number in the history; a new one after an unknown outcome.
    number: u32,
    counter: u32,
    node: usize,
}

impl Client {
    pub fn new(place: usize, shared: Arc<Shared>, dice: StdRng) -> Self {
        let number = shared.recorder.client();
        let known = BTreeMap::new();
        Self { place, shared, dice, known, number, counter: 0, node: place }
    }

    /// Works until the load ends.
    pub async fn work(mut self) -> Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.shared.pace.turn().await;
            mix::next(&mut self).await?;
        }
        Ok(())
    }

    /// A value that nobody wrote.
    pub fn value(&mut self) -> Value {
        self.counter += 1;
        Value::new(self.number, self.counter)
    }

    /// Sends a write until it is answered, and records it.
    pub async fn write(
        &mut self,
        of: Use,
        slot: usize,
        target: &Target,
        kind: Kind,
        request: Request,
    ) {
        let recorder = Arc::clone(&self.shared.recorder);
        let call = recorder.now();
        let (mut answered, mut node) = (None, 0);
        for _ in 0..self.shared.plan.attempts_max {
            let (at, caller) = self.shared.nodes.at(self.node);
            node = at;
            match send(&caller, &request, target, self.shared.plan.attempt_limit).await {
                Attempt::Answered(outcome, etags) => {
                    answered = Some((outcome, etags));
                    break;
                }
                Attempt::Failed(status) => self.failed(&status).await,
            }
        }
        let ret = recorder.now();
        let Some((outcome, etags)) = answered else {
            let operation = self.operation(node, call, Moment::NEVER, kind, Outcome::Unknown);
            let ticket = recorder.note(operation);
            self.lost(of, slot, target, ticket, request);
            return;
        };
        self.remember(&kind, &outcome, etags);
        let is_repeated = matches!(outcome, Outcome::Applied { .. })
            && kind_puts(&kind)
            && self.dice.random_range(0..REPEAT_ONE_IN) == 0;
        let repeated = is_repeated.then(|| kind.clone());
        let _ = recorder.note(self.operation(node, call, ret, kind, outcome));
        if let Some(kind) = repeated {
            self.repeat(target, kind, &request).await;
        }
    }

    /// Sends an answered write once more to another node.
    async fn repeat(&mut self, target: &Target, kind: Kind, request: &Request) {
        let recorder = Arc::clone(&self.shared.recorder);
        let (node, caller) = self.shared.nodes.at(self.node + 1);
        let call = recorder.now();
        match send(&caller, request, target, self.shared.plan.attempt_limit).await {
            Attempt::Answered(outcome, _) => {
                let operation = self.operation(node, call, recorder.now(), kind, outcome);
                let _ = recorder.note(Operation { repeated: true, ..operation });
            }
            // It was applied already, so nothing is unknown.
            Attempt::Failed(status) => self.failed(&status).await,
        }
    }

    /// Reads a document, and records the answer if one comes.
    pub async fn read(&mut self, target: &Target, place: usize, stale_ok: bool) {
        let recorder = Arc::clone(&self.shared.recorder);
        let (node, caller) = self.shared.nodes.at(self.node);
        let call = recorder.now();
        let request = requests::get(&self.shared.plan.database, target, place, stale_ok);
        let mut documents = caller.documents();
        let answer = documents.get_document(self.in_time(request));
        let answer = within(self.shared.plan.attempt_limit, answer).await;
        let ret = recorder.now();
        let key = target.keys[place];
        let outcome = match answer.map(|answer| answer.into_inner()) {
            Ok(answer) => {
                let applied = requests::position(answer.position);
                let Some(document) = answer.document else { return recorder.dropped() };
                let seen = requests::seen(&document);
                if !stale_ok {
                    self.know(key, Known { seen, etag: document.etag });
                }
                Outcome::Found { seen, applied }
            }
            Err(status) if requests::is_absent(&status) => {
                self.known.remove(&key);
                Outcome::Absent
            }
            Err(status) => {
                recorder.dropped();
                return self.failed(&status).await;
            }
        };
        let kind = if stale_ok { Kind::StaleRead(key) } else { Kind::Read(key) };
        let _ = recorder.note(self.operation(node, call, ret, kind, outcome));
    }

    /// Lists a group, and records the answer if one comes.
    pub async fn list(&mut self, target: &Target) {
        let Some(group) = target.group else { return };
        let recorder = Arc::clone(&self.shared.recorder);
        let (node, caller) = self.shared.nodes.at(self.node);
        let call = recorder.now();
        let request = requests::list(&self.shared.plan.database, target);
        let mut documents = caller.documents();
        let answer = documents.list_documents(self.in_time(request));
        let answer = within(self.shared.plan.attempt_limit, answer).await;
        let ret = recorder.now();
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                recorder.dropped();
                return self.failed(&status).await;
            }
        };
        let outcome = requests::listed(target, &answer);
        for document in answer.documents {
            let place = target.ids.iter().position(|id| *id == document.id);
            let seen = requests::seen(&document);
            if let Some(place) = place {
                self.know(target.keys[place], Known { seen, etag: document.etag });
            }
        }
        let _ = recorder.note(self.operation(node, call, ret, Kind::List(group), outcome));
    }

    fn operation(
        &self,
        node: usize,
        call: Moment,
        ret: Moment,
        kind: Kind,
        outcome: Outcome,
    ) -> Operation {
        let node = u8::try_from(node).unwrap_or(u8::MAX);
        Operation { client: self.number, node, repeated: false, call, ret, kind, outcome }
    }

    /// Nobody knows what became of a write: the client goes on under a new number.
    fn lost(
        &mut self,
        of: Use,
        slot: usize,
        target: &Target,
        ticket: Option<Ticket>,
        request: Request,
    ) {
        self.number = self.shared.recorder.client();
        self.counter = 0;
        self.shared.documents.weigh_down(of, slot);
        for key in target.keys.iter() {
            self.known.remove(key);
        }
        let unresolved = &mut *self.shared.unresolved.lock();
        if let Some(ticket) = ticket.filter(|_| unresolved.len() < UNRESOLVED_MAX) {
            unresolved.push(Unresolved { ticket, request, target: target.clone() });
        }
    }

    /// Counts a failure, and goes to the next node after a pause.
    async fn failed(&mut self, status: &Status) {
        let name = format!("{:?} {}", status.code(), crate::caller::reason(status));
        *self.shared.failures.lock().entry(name).or_default() += 1;
        self.node += 1;
        tokio::time::sleep(PAUSE).await;
    }

    fn know(&mut self, key: Key, known: Known) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(key, known);
    }

    fn remember(&mut self, kind: &Kind, outcome: &Outcome, etags: Vec<String>) {
        let writes = match kind {
            Kind::Write(write) => std::slice::from_ref(write),
            Kind::Batch(writes) => writes,
            Kind::Read(_) | Kind::StaleRead(_) | Kind::List(_) => return,
        };
        let mut etags = etags.into_iter();
        for write in writes {
            let etag = etags.next().unwrap_or_default();
            match (outcome, write.change.state()) {
                (Outcome::Applied { revision, .. }, Some(value)) if !etag.is_empty() => {
                    let seen = Seen { value, revision: *revision };
                    self.know(write.key, Known { seen, etag });
                }
                _ => drop(self.known.remove(&write.key)),
            }
        }
    }

    fn in_time<T>(&self, message: T) -> tonic::Request<T> {
        in_time(message, self.shared.plan.attempt_limit)
    }
}

fn kind_puts(kind: &Kind) -> bool {
    match kind {
        Kind::Write(write) => write.change.state().is_some(),
        Kind::Batch(_) => true,
        Kind::Read(_) | Kind::StaleRead(_) | Kind::List(_) => false,
    }
}

fn in_time<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

/// The answer, or DEADLINE_EXCEEDED: a node that stands still does not keep its deadline.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let answer = tokio::time::timeout(limit + limit / 4, call).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}

/// Sends a write to one node.
pub(super) async fn send(
    caller: &Caller,
    request: &Request,
    target: &Target,
    limit: Duration,
) -> Attempt {
    let mut documents = caller.documents();
    let answer = match request {
        Request::Put(put) => {
            let answer = within(limit, documents.put_document(in_time(put.clone(), limit))).await;
            answer.map(|answer| {
                let answer = answer.into_inner();
                let revision = requests::position(answer.position);
                (Outcome::Applied { revision, existed: 0 }, vec![answer.etag])
            })
        }
        Request::Delete(delete) => {
            let call = documents.delete_document(in_time(delete.clone(), limit));
            within(limit, call).await.map(|answer| {
                let answer = answer.into_inner();
                let revision = requests::position(answer.position);
                let existed = u32::from(answer.deleted);
                (Outcome::Applied { revision, existed }, Vec::new())
            })
        }
        Request::Batch(batch) => {
            let answer = within(limit, documents.batch_write(in_time(batch.clone(), limit))).await;
            answer.map(|answer| {
                let answer = answer.into_inner();
                let deleted = answer.results.iter().map(|result| u32::from(result.deleted));
                let existed = deleted.enumerate().fold(0, |bits, (at, bit)| bits | bit << at);
                let revision = requests::position(answer.position);
                let etags = answer.results.into_iter().map(|result| result.etag).collect();
                (Outcome::Applied { revision, existed }, etags)
            })
        }
    };
    match answer {
        // An answer without its place says less than it must.
        Ok((Outcome::Applied { revision: Revision(0), .. }, _)) => {
            Attempt::Failed(Status::internal("an answer without a position"))
        }
        Ok((outcome, etags)) => Attempt::Answered(outcome, etags),
        Err(status) => match requests::refused(&status, target) {
            Some(outcome) => Attempt::Answered(outcome, Vec::new()),
            None => Attempt::Failed(status),
        },
    }
}
