//! Linearizable reads: one read index for all reads that wait at the same moment.
//!
//! The read index (Raft thesis, section 6.4) is asked for once a round; all reads that came before the round began
//! share its answer. A read that comes during a round waits for the next one: the index must be taken after the read
//! began.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::Error;
use crate::limits;

type Waiter = oneshot::Sender<Result<u64, Shared>>;

/// Errors of a round, for each of its readers.
#[derive(Debug, Clone)]
enum Shared {
    NoLeader,
    NoQuorum,
    NotLeader,
    Timeout,
    Stopped(String),
}

impl From<Error> for Shared {
    fn from(error: Error) -> Self {
        match error {
            Error::NoLeader => Self::NoLeader,
            Error::NoQuorum => Self::NoQuorum,
            Error::NotLeader => Self::NotLeader,
            Error::Timeout => Self::Timeout,
            Error::Refused(_)
            | Error::Denied(_)
            | Error::Stale
            | Error::NotMember(_)
            | Error::Stopped(_)
            | Error::Storage(_) => Self::Stopped(error.to_string()),
        }
    }
}

impl From<Shared> for Error {
    fn from(error: Shared) -> Self {
        match error {
            Shared::NoLeader => Self::NoLeader,
            Shared::NoQuorum => Self::NoQuorum,
            Shared::NotLeader => Self::NotLeader,
            Shared::Timeout => Self::Timeout,
            Shared::Stopped(why) => Self::Stopped(why),
        }
    }
}

/// Gathers the reads of one group into rounds.
#[derive(Debug, Clone)]
pub struct ReadRounds {
    waiting: mpsc::Sender<Waiter>,
}

impl ReadRounds {
    /// Starts the task that asks for the index with `ask`, one round after the other.
    pub fn start<F, Fut>(ask: F) -> Self
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<u64, Error>> + Send,
    {
        let (waiting, mut incoming) = mpsc::channel::<Waiter>(limits::READS_WAITING_MAX);
        tokio::spawn(async move {
            let mut round = Vec::new();
            while incoming.recv_many(&mut round, limits::READS_WAITING_MAX).await > 0 {
                let answer = ask().await.map_err(Shared::from);
                for waiter in round.drain(..) {
                    // A reader that went away needs no answer.
                    drop(waiter.send(answer.clone()));
                }
            }
        });
        Self { waiting }
    }

    /// An index that a read which begins now must see applied.
    ///
    /// # Errors
    /// Those of the round; [`Error::Timeout`] at the deadline.
    pub async fn index(&self, deadline: Instant) -> Result<u64, Error> {
        let (sender, receiver) = oneshot::channel();
        let asked = async {
            self.waiting.send(sender).await.map_err(|_| Error::Stopped("shut down".to_owned()))?;
            receiver.await.map_err(|_| Error::Stopped("shut down".to_owned()))?.map_err(Error::from)
        };
        tokio::time::timeout_at(deadline.into(), asked).await.map_err(|_| Error::Timeout)?
    }
}
