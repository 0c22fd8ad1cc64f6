//! Work that keeps a core busy for up to a second, such as deriving keys from a password: a few at once, a bounded queue.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use crate::{edge::convert, limits};

/// The places of one node.
#[derive(Debug)]
pub struct Work {
    /// At work or waiting.
    admitted: Arc<Semaphore>,
    /// At work.
    running: Arc<Semaphore>,
}

impl Default for Work {
    fn default() -> Self {
        Self::new(limits::CERTIFICATE_WORK_MAX, limits::CERTIFICATE_WORK_WAITING_MAX)
    }
}

impl Work {
    fn new(running_max: usize, waiting_max: usize) -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(running_max + waiting_max)),
            running: Arc::new(Semaphore::new(running_max)),
        }
    }

    /// Does `job` on a thread of its own once there is a place. A call that is given up keeps its place until its job is
    /// done, so that giving up buys nobody another core.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where too many wait already; INTERNAL where the job came to no end.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let place = self.place().await?;
        let working = tokio::task::spawn_blocking(move || {
            let done = job();
            drop(place);
            done
        });
        working.await.map_err(|error| convert::internal("The work could not be finished", error))
    }

    async fn place(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Status> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| busy())?;
        // Never closed.
        let running = self.running.clone().acquire_owned().await.map_err(|_| busy())?;
        Ok((admitted, running))
    }
}

fn busy() -> Status {
    convert::Answer::new(
        Code::ResourceExhausted,
        "LIMIT_EXCEEDED",
        "This node has as many certificates and PKCS#12 files to work on as it takes at once. Try again in a moment, or \
         ask another node.",
    )
    .retry()
    .status()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn some_work_some_wait_and_the_rest_is_told_to_come_back() {
        let work = Arc::new(Work::new(1, 1));
        let (release, wait) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let work = work.clone();
            async move { work.run(move || wait.recv().is_ok()).await }
        });
        while work.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn({
            let work = work.clone();
            async move { work.run(|| true).await }
        });
        while work.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let third = work.run(|| true).await.unwrap_err();
        assert_eq!(third.code(), Code::ResourceExhausted);
        release.send(()).unwrap();
        assert!(first.await.unwrap().unwrap() && second.await.unwrap().unwrap());
        assert!(work.run(|| true).await.unwrap(), "the places are free again");
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_keeps_its_place_until_its_job_ends() {
        let work = Arc::new(Work::new(1, 0));
        let (release, wait) = mpsc::channel::<()>();
        let call = tokio::spawn({
            let work = work.clone();
            async move { work.run(move || wait.recv().is_ok()).await }
        });
        while work.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!(work.run(|| true).await.unwrap_err().code(), Code::ResourceExhausted);
        release.send(()).unwrap();
        while work.admitted.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(work.run(|| true).await.unwrap());
    }
}
