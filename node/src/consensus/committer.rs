//! stub
use crate::storage::Store;
use std::sync::Arc;
pub type SyncedHook = Box<dyn FnMut(&[rookery_proto::log::v1::SentinelGroup]) + Send>;
#[derive(Clone)]
pub struct Committer;
impl Committer {
    pub fn start(_: Arc<dyn Store>, _: SyncedHook, _: Arc<dyn Fn(String) + Send + Sync>) -> Self {
        Self
    }
    pub fn stop(&self) {}
}
