//! Writers that remember what was acknowledged, and the proof that it is still there.
//!
//! Each value is written once, under its own id, with its own request id. A write without an answer is repeated on the
//! next node with the same request id until it is acknowledged or the load ends; then it is unknown and may or may not
//! be found.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use rookery_proto::document::v1::ListDocumentsRequest;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::caller::{Caller, put_request};

/// Longest wait for one answer before the next node is asked.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Pause after a failed attempt.
const PAUSE: Duration = Duration::from_millis(20);

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<Vec<Ack>>>>,
}

/// One acknowledged write.
#[derive(Debug, Clone)]
struct Ack {
    id: String,
    json: String,
    at: Instant,
}

/// What a load has written.
#[derive(Debug, Default)]
pub struct Written {
    /// Document by id, for every acknowledged write.
    pub documents: BTreeMap<String, String>,
    /// Longest time between two acknowledgements, over all writers.
    pub longest_gap: Duration,
}

impl Load {
    /// Starts `writers` tasks that put documents into `database`; each begins at another one of `callers`.
    #[must_use]
    pub fn start(callers: &[Caller], database: &str, writers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..writers)
            .map(|writer| {
                let work = Writer {
                    number: writer,
                    callers: callers.to_vec(),
                    database: database.to_owned(),
                    stop: Arc::clone(&stop),
                    acknowledged: Arc::clone(&acknowledged),
                };
                tokio::spawn(work.run())
            })
            .collect();
        Self { stop, acknowledged, writers }
    }

    /// Acknowledged writes until now.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` writes have been acknowledged from now on.
    ///
    /// # Errors
    /// They are not within `limit`.
    pub async fn progress(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.acknowledged() + more;
        crate::wait::eventually("acknowledged writes", limit, async || {
            let now = self.acknowledged();
            anyhow::ensure!(now >= goal, "{now} of {goal}");
            Ok(())
        })
        .await
    }

    /// Ends the load and gives what was acknowledged.
    ///
    /// # Errors
    /// A writer met an answer that no retry cures.
    pub async fn finish(self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acks = Vec::new();
        for writer in self.writers {
            acks.extend(writer.await??);
        }
        acks.sort_by_key(|ack| ack.at);
        let longest_gap =
            acks.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default();
        let documents = acks.into_iter().map(|ack| (ack.id, ack.json)).collect();
        Ok(Written { documents, longest_gap })
    }
}

/// One writer.
struct Writer {
    number: usize,
    callers: Vec<Caller>,
    database: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    async fn run(self) -> Result<Vec<Ack>> {
        let mut acks = Vec::new();
        let mut caller = self.number % self.callers.len();
        for count in 0.. {
            let id = format!("load/{}/{count:06}", self.number);
            let json = format!("{{\"writer\":{},\"count\":{count}}}", self.number);
            let request = put_request(&self.database, &id, &json);
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(acks);
                }
                let mut documents = self.callers[caller].documents();
                let mut attempt = tonic::Request::new(request.clone());
                attempt.set_timeout(ATTEMPT_LIMIT);
                match tokio::time::timeout(ATTEMPT_LIMIT, documents.put_document(attempt)).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(status)) if !worth_a_retry(status.code()) => {
                        anyhow::bail!("a write was answered {status:?}")
                    }
                    Ok(Err(_)) | Err(_) => {
                        caller = (caller + 1) % self.callers.len();
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            acks.push(Ack { id, json, at: Instant::now() });
        }
        Ok(acks)
    }
}

/// Whether a write with this answer may succeed later or elsewhere: the node is down, has no quorum, or was cut off.
fn worth_a_retry(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

impl Written {
    /// Checks that each acknowledged document is read back, byte for byte and linearizably, through `caller`.
    ///
    /// # Errors
    /// Documents are missing or changed, with the first ones.
    pub async fn check(&self, caller: &Caller, database: &str) -> Result<()> {
        let stored = read_all(caller, database, "load/").await?;
        let lost: Vec<_> = self
            .documents
            .iter()
            .filter(|(id, json)| stored.get(*id) != Some(json))
            .map(|(id, json)| format!("{id}: wrote {json}, read {:?}", stored.get(id)))
            .collect();
        anyhow::ensure!(
            lost.is_empty(),
            "{} of {} acknowledged writes are lost:\n{}",
            lost.len(),
            self.documents.len(),
            lost[..lost.len().min(10)].join("\n")
        );
        Ok(())
    }
}

/// Every document whose id starts with `prefix`, by pages.
///
/// # Errors
/// A call fails, or the bytes are no UTF-8.
pub async fn read_all(
    caller: &Caller,
    database: &str,
    prefix: &str,
) -> Result<BTreeMap<String, String>> {
    let mut documents = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = ListDocumentsRequest {
            database: database.to_owned(),
            prefix: prefix.to_owned(),
            page_size: 1000,
            page_token,
            ..Default::default()
        };
        let page = caller.documents().list_documents(request).await?.into_inner();
        for document in page.documents {
            documents.insert(document.id, String::from_utf8(document.json)?);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(documents);
        }
    }
}
