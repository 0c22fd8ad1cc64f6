//! Lists derived from the registry: unused certificates, well-known admins, notifications.

use rookery_proto::security::v1::{
    ListNotificationsRequest, ListNotificationsResponse, ListUnusedRequest, ListUnusedResponse,
    ListWellKnownAdminsResponse, Notification, WellKnownAdmin,
};
use tonic::Status;

use crate::{
    authz::{Clearance, Registration},
    cluster::{self, expiry_threshold},
    database::page_token::Binding,
    edge::{
        convert,
        expiry::days_left,
        peer_identity::CallContext,
        services::{page_size, page_start, security::shown},
    },
    names::{NodeId, Thumbprint, Timestamp},
};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// A use is known by its minute, and may lie anywhere in it.
const USE_RESOLUTION_MS: i64 = 60_000;

/// Where a page of certificates begins, and how large it may be.
struct Page {
    binding: Binding,
    after: Option<Thumbprint>,
    size: usize,
}

impl Page {
    fn parse(binding: Binding, token: &str, size: u32) -> Result<Self, Status> {
        let after = page_start(&binding, token)?
            .map(|position| Thumbprint::from_bytes(&position))
            .transpose()
            .map_err(|_| convert::invalid("page_token", "is no token of this list"))?;
        Ok(Self { binding, after, size: page_size(size)? })
    }

    /// The page of what is found, and the token of the next one.
    fn cut<T>(&self, mut found: impl Iterator<Item = (Thumbprint, T)>) -> (Vec<T>, String) {
        let page: Vec<(Thumbprint, T)> = found.by_ref().take(self.size).collect();
        let last = page.last().map(|(last, _)| *last).filter(|_| found.next().is_some());
        let token = last.map_or_else(String::new, |last| self.binding.encode(last.as_bytes()));
        (page.into_iter().map(|(_, item)| item).collect(), token)
    }
}

/// Certificates without a use since a moment; nodes are left out, which use theirs among each other.
pub fn unused(
    asked: &ListUnusedRequest,
    context: &CallContext,
) -> Result<ListUnusedResponse, Status> {
    let since = Timestamp(asked.since_unix_ms);
    if since.0 <= 0 || since > context.at {
        return Err(convert::invalid("since_unix_ms", "must be a moment in the past"));
    }
    let binding = Binding::new(context.thumbprint(), "unused").field(&since.0.to_be_bytes());
    let page = Page::parse(binding, &asked.page_token, asked.page_size)?;
    let registry = &context.registry;
    let is_unused = |found: &&std::sync::Arc<cluster::Certificate>| {
        let uses = registry.entry(found).map(|it| registry.last_use(&it.registration.thumbprint));
        let last = uses.flatten().max_by_key(|last| last.at);
        found.registration.clearance != Clearance::ClusterNode
            && !found.is_secondary()
            && found.entry.created < since
            && last.is_none_or(|last| last.at.0.saturating_add(USE_RESOLUTION_MS) <= since.0)
    };
    let found = registry.certificates(page.after).filter(is_unused).filter_map(|found| {
        let shown = shown::without_bytes(shown::entry(found, registry, context.at)?);
        Some((found.registration.thumbprint, shown))
    });
    let (certificates, next_page_token) = page.cut(found);
    Ok(ListUnusedResponse { certificates, next_page_token })
}

/// What members declare; bounded by what they may.
pub fn well_known(context: &CallContext) -> ListWellKnownAdminsResponse {
    let registry = &context.registry;
    let name = |id: &NodeId| registry.node(*id).map(|node| node.name.clone());
    let shown = |admin: cluster::WellKnownAdmin| {
        let last = registry.last_use(&admin.thumbprint).unwrap_or_default();
        WellKnownAdmin {
            thumbprint: admin.thumbprint.to_string(),
            nodes: admin.nodes.iter().filter_map(name).collect(),
            in_force: admin.in_force,
            last_used_unix_ms: last.at.0,
            last_used_node: name(&last.node).unwrap_or_default(),
        }
    };
    let admins = registry.well_known_admins().into_iter().map(shown).collect();
    ListWellKnownAdminsResponse { admins }
}

/// Enabled certificates that expire within 30 days or have expired: all of them for Operators, one's own for Users.
pub fn notifications(
    asked: &ListNotificationsRequest,
    context: &CallContext,
) -> Result<ListNotificationsResponse, Status> {
    let binding = Binding::new(context.thumbprint(), "notifications");
    let page = Page::parse(binding, &asked.page_token, asked.page_size)?;
    let all = context.clearance().covers(Clearance::Operator);
    let own = context.thumbprint();
    let found = context.registry.certificates(page.after).filter_map(|found| {
        let who = &found.registration;
        let visible = all || own == Some(who.thumbprint);
        let threshold = expiry_threshold(who.not_after, context.at)?;
        (visible && !who.disabled)
            .then(|| (who.thumbprint, notification(who, threshold, context.at)))
    });
    let (notifications, next_page_token) = page.cut(found);
    Ok(ListNotificationsResponse { notifications, next_page_token })
}

fn notification(who: &Registration, threshold: u32, at: Timestamp) -> Notification {
    let days_left = days_left(who.not_after, at);
    let (kind, message) = if threshold == 0 {
        ("CERTIFICATE_EXPIRED", format!("The certificate “{}” has expired.", who.name))
    } else {
        let days = if days_left == 1 { "day" } else { "days" };
        let left = format!("The certificate “{}” expires in {days_left} {days}.", who.name);
        ("CERTIFICATE_EXPIRES", left)
    };
    let severity = match threshold {
        30 => "info",
        14 => "warning",
        _ => "error",
    };
    Notification {
        kind: kind.to_owned(),
        severity: severity.to_owned(),
        message,
        thumbprint: who.thumbprint.to_string(),
        name: who.name.clone(),
        clearance: who.clearance.into(),
        not_after_unix_ms: who.not_after.0,
        days_left,
        since_unix_ms: who.not_after.0.saturating_sub(i64::from(threshold) * DAY_MS),
    }
}
