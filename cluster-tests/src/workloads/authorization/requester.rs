//! The holder of a certificate: connections to every node, and the requests that some of them make while rights change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rand::{RngExt as _, rngs::StdRng};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{PLANTED, Shared, Told, ways};
use crate::{
    authorization_history::Moment,
    caller::{Caller, Decision, put_request},
    cluster::HEAL_LIMIT,
    identity::Identity,
    lines::{Entrance, Line, Session},
    probes::{Call, Target},
};

/// Longest wait for one answer; nothing was decided then.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Pause between the requests of one connection.
const PAUSE: Duration = Duration::from_millis(10);
/// Pause once a change takes long, because a node is silent.
const PAUSE_LONG: Duration = Duration::from_millis(120);
/// Requests after which a change takes long.
const SOON: usize = 25;
/// Connections that make requests around one change.
const AT_ONCE: usize = 4;

/// The reason with which a running stream is cut.
const CUT: &str = "RIGHTS_CHANGED";

/// How a request travels; see the chapter of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Read,
    StaleRead,
    Write,
    New,
    Http1,
    Stream,
}

impl Way {
    fn line(self) -> Option<Line> {
        match self {
            Self::Read => Some(Line::Kept(Call::Read)),
            Self::StaleRead => Some(Line::Kept(Call::StaleRead)),
            Self::New => Some(Line::New(Call::Read)),
            Self::Http1 => Some(Line::Http1),
            Self::Stream => Some(Line::Stream),
            Self::Write => None,
        }
    }
}

/// A decided request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub way: Way,
    pub node: usize,
    pub start: Moment,
    pub end: Moment,
    pub allowed: bool,
}

/// A write without an answer: if its document is there in the end, it was allowed.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    pub node: usize,
    pub start: Moment,
    pub id: String,
    pub json: String,
}

/// Writes documents whose ids no unknown write ever had.
struct Writer {
    caller: Caller,
    /// What the ids start with.
    prefix: String,
    lost: u64,
    written: u64,
}

enum Sender {
    Session(Box<Session>),
    Writer(Writer),
}

/// One connection.
struct Connection {
    way: Way,
    node: usize,
    sender: Sender,
    /// When its last answer was consumed.
    consumed: Moment,
}

/// All connections of one holder; idle unless they are asked.
pub(crate) struct Requester {
    lines: Vec<Connection>,
}

/// Connections that make requests just now.
pub(crate) struct Burst {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<(Connection, Vec<Asked>, Vec<Lost>)>,
}

impl Requester {
    /// Connections of `identity` to every node; they connect with their first request.
    pub fn new(shared: &Shared, identity: &Identity) -> Result<Self> {
        let mut lines = Vec::new();
        for (node, door) in shared.doors.iter().enumerate() {
            let entrance = Entrance::new(door.address, &door.server, identity);
            for way in ways() {
                let sender = match way.line() {
                    Some(line) => Sender::Session(Box::new(Session::new(line, &entrance)?)),
                    None => Sender::Writer(Writer {
                        caller: entrance.caller()?,
                        prefix: format!("{}/{node}", identity.name),
                        lost: 0,
                        written: 0,
                    }),
                };
                lines.push(Connection { way, node, sender, consumed: Moment::ZERO });
            }
        }
        Ok(Self { lines })
    }

    /// Lets some connections make requests until they are told to stop.
    pub fn burst(&mut self, shared: &Arc<Shared>, database: &str, dice: &mut StdRng) -> Burst {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE.min(self.lines.len()) {
            let line = self.lines.swap_remove(dice.random_range(0..self.lines.len()));
            let (shared, stop) = (Arc::clone(shared), Arc::clone(&stop));
            tasks.spawn(repeat(line, shared, database.to_owned(), stop));
        }
        Burst { stop, tasks }
    }

    /// Stops a burst and takes its connections back.
    pub async fn end(&mut self, mut burst: Burst, told: &mut Told) -> Result<()> {
        burst.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = burst.tasks.join_next().await {
            let (line, asked, lost) = ended?;
            self.lines.push(line);
            told.asked.extend(asked);
            told.lost.extend(lost);
        }
        Ok(())
    }
}

async fn repeat(
    mut line: Connection,
    shared: Arc<Shared>,
    database: String,
    stop: Arc<AtomicBool>,
) -> (Connection, Vec<Asked>, Vec<Lost>) {
    let (mut asked, mut lost) = (Vec::new(), Vec::new());
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) {
        let start = shared.now();
        let (id, json) = line.next();
        let was_streaming = line.is_streaming();
        let answer = tokio::time::timeout(ANSWER_LIMIT, line.make(&database, &id, &json)).await;
        let end = shared.now();
        let outcome = answer.unwrap_or_else(|_| {
            line.forget();
            Err(Status::deadline_exceeded("no answer"))
        });
        let (way, node) = (line.way, line.node);
        let decision = decided(&outcome);
        // A stream ends when the right goes, whether somebody asks just then or not.
        let is_told_before = decision == Some(false) && was_streaming;
        let start = if is_told_before { line.consumed } else { start };
        line.consumed = end;
        match decision {
            Some(allowed) => asked.push(Asked { way, node, start, end, allowed }),
            None if way == Way::Write => {
                lost.push(Lost { node, start, id, json });
                line.retire();
            }
            None => {}
        }
        made += 1;
        tokio::time::sleep(if made < SOON { PAUSE } else { PAUSE_LONG }).await;
    }
    (line, asked, lost)
}

/// Whether a request was allowed; `None` where nothing was decided.
fn decided(outcome: &Result<(), Status>) -> Option<bool> {
    match Decision::of(outcome) {
        // Of a database that goes while the call is under way: neither data nor a decision.
        Decision::Allowed(Code::NotFound) => {
            let missing = |status: &Status| status.message().contains("no document");
            outcome.as_ref().err().is_some_and(missing).then_some(true)
        }
        Decision::Allowed(_) => Some(true),
        // Streams end with any loss of rights, and may be opened again where others are left.
        Decision::Denied(reason) | Decision::Unauthenticated(reason) if reason == CUT => None,
        Decision::Denied(_) | Decision::Unauthenticated(_) => Some(false),
        Decision::None(_) => None,
    }
}

impl Connection {
    /// The document that it writes next.
    fn next(&mut self) -> (String, String) {
        match &mut self.sender {
            Sender::Writer(writer) => {
                writer.written += 1;
                let id = format!("{}/{}", writer.prefix, writer.lost);
                (id, format!("{{\"written\":{}}}", writer.written))
            }
            Sender::Session(_) => (String::new(), String::new()),
        }
    }

    async fn make(&mut self, database: &str, id: &str, json: &str) -> Result<(), Status> {
        match &mut self.sender {
            Sender::Session(session) => session.make(Target { database, id: PLANTED }).await,
            Sender::Writer(writer) => {
                let request = put_request(database, id, json);
                writer.caller.documents().put_document(request).await.map(drop)
            }
        }
    }

    /// Whether a stream is open.
    fn is_streaming(&self) -> bool {
        match &self.sender {
            Sender::Session(session) => session.is_streaming(),
            Sender::Writer(_) => false,
        }
    }

    /// A late answer must not pass for the next one.
    fn forget(&mut self) {
        match &mut self.sender {
            Sender::Session(session) => session.forget(),
            Sender::Writer(_) => {}
        }
    }

    /// The id of an unknown write is not used again.
    fn retire(&mut self) {
        match &mut self.sender {
            Sender::Writer(writer) => writer.lost += 1,
            Sender::Session(_) => {}
        }
    }
}

/// Finds out which unknown writes became visible: they were allowed, at a time that nobody knows.
pub(super) async fn look_up(shared: &Shared, told: &mut Told) -> Result<()> {
    for lost in std::mem::take(&mut told.lost) {
        let mut found = None;
        crate::wait::eventually("an unknown write is looked up", HEAL_LIMIT, async || {
            let (_, admin) = shared.admins.at(lost.node);
            found = match admin.get(&told.database, &lost.id).await {
                Ok(json) => Some(json),
                Err(status) if status.code() == Code::NotFound => None,
                Err(status) => return Err(status.into()),
            };
            Ok(())
        })
        .await?;
        if found.is_some_and(|json| json == lost.json.as_bytes()) {
            let Lost { node, start, .. } = lost;
            let (way, end, allowed) = (Way::Write, Moment::MAX, true);
            told.asked.push(Asked { way, node, start, end, allowed });
        }
    }
    Ok(())
}
