//! stub
use super::{committer::Committer, types::*};
use crate::{
    names::GroupId,
    storage::{self, Store},
};
use openraft::{
    LogState, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use std::{io, ops::RangeBounds, sync::Arc};
#[derive(Clone)]
pub struct LogStore;
impl LogStore {
    pub fn open(_: Arc<dyn Store>, _: GroupId, _: Committer) -> storage::Result<Self> {
        Ok(Self)
    }
    pub fn check_sentinel(&self, _: &rookery_proto::log::v1::Sentinel) -> storage::Result<()> {
        Ok(())
    }
}
impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + std::fmt::Debug + Send>(
        &mut self,
        _: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(vec![])
    }
    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(None)
    }
}
impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;
    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState { last_purged_log_id: None, last_log_id: None })
    }
    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }
    async fn save_vote(&mut self, _: &Vote) -> Result<(), io::Error> {
        Ok(())
    }
    async fn append<I>(&mut self, _: I, _: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        Ok(())
    }
    async fn truncate_after(&mut self, _: Option<LogId>) -> Result<(), io::Error> {
        Ok(())
    }
    async fn purge(&mut self, _: LogId) -> Result<(), io::Error> {
        Ok(())
    }
}
