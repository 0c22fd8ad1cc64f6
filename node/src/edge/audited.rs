//! What the edge tells the audit log: denials as they happen, and administrative actions before they are done.

use rookery_proto::log::v1::{ClusterCommand, RecordAction, cluster_command::Command};
use tonic::Status;

use crate::{
    authz::{self, Denied, ServerOperation},
    consensus::Denial,
    edge::{Edge, convert, peer_identity::CallContext},
    limits,
    names::RequestId,
};

impl Edge {
    /// Records an administrative action that is no command of the log. To be called before the action is done; where it
    /// fails, the action must not be done. Each call leaves a record, a retry under the same request id too: the action is
    /// done each time.
    ///
    /// # Errors
    /// The record could not be written, or the caller may not do this any more.
    pub async fn audited(
        &self,
        context: &CallContext,
        operation: ServerOperation,
        target: &str,
        details: &str,
    ) -> Result<(), Status> {
        self.audited_as(context, None, operation, target, details).await
    }

    /// [`Edge::audited`] for an action with a request id, under which the record can be found.
    ///
    /// # Errors
    /// As there.
    pub async fn audited_as(
        &self,
        context: &CallContext,
        request_id: Option<RequestId>,
        operation: ServerOperation,
        target: &str,
        details: &str,
    ) -> Result<(), Status> {
        let revision = context.registry.revision;
        let decided = authz::decide_server(context.caller(), operation, context.at, revision);
        let permit = decided.map_err(|denied| self.denied(&denied, context, ""))?;
        let action = RecordAction {
            request_id: request_id.map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
            ..recorded(operation, target, details)
        };
        let command = ClusterCommand { command: Some(Command::RecordAction(action)) };
        let written = self
            .engine
            .propose_cluster(permit, RequestId::random(), command, context.deadline)
            .await;
        written.map(drop).map_err(convert::status)
    }

    /// Counts and notes a denied call, and tells the caller. `database` is the name that the caller gave, if any.
    pub fn denied(&self, denied: &Denied, context: &CallContext, database: &str) -> Status {
        self.metrics.decided(denied.operation, denied.reason.code());
        self.engine.note_denial(Denial {
            operation: denied.operation.to_owned(),
            reason: denied.reason.code().to_owned(),
            rule: denied.rule.to_owned(),
            actor: context.thumbprint(),
            database: database.chars().take(limits::AUDIT_TEXT_CHARS_MAX).collect(),
            remote: context.connection.remote.ip().to_canonical().to_string(),
            details: String::new(),
        });
        convert::denied(denied)
    }
}

fn recorded(operation: ServerOperation, target: &str, details: &str) -> RecordAction {
    let cut = |text: &str| -> String { text.chars().take(limits::AUDIT_TEXT_CHARS_MAX).collect() };
    RecordAction {
        operation: operation.name().to_owned(),
        target: cut(target),
        details: cut(details),
        ..RecordAction::default()
    }
}
