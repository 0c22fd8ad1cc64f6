//! Batches are atomic: whoever lists a group sees all writes of a batch or none.
//!
//! Two checks. One believes the server: a list is one view, so at the highest revision it shows, each document must be
//! what its own log says. The other does not: where a list shows a document as one batch left it, and another document as
//! it was before a batch that had ended before that one was called, the view is fractured, whatever the revisions say.
//!
//! That single documents are linearizable is checked elsewhere; together with one log position for all writes of a batch
//! and one for all documents of a list, batches are serializable in the order of the log.

use std::collections::BTreeMap;

use super::{
    judge::{VIOLATIONS_MAX, Violation},
    operation::{Change, Key, Kind, Moment, Operation, Outcome, Revision, Seen, Value},
    recorder::History,
    timeline::{Step, Timeline},
    witness::Log,
};

/// The name of this check.
pub const NAME: &str = "batches";

/// A document of a group, with its writes in the order of the log.
struct Member<'a> {
    key: Key,
    log: Log<'a>,
}

/// Checks every list of every group.
#[must_use]
pub fn check(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut lists = vec![Vec::new(); history.groups.len()];
    for operation in &history.operations {
        if let Kind::List(group) = operation.kind
            && let Some(lists) = lists.get_mut(group.0 as usize)
        {
            lists.push(operation);
        }
    }
    let requests = requests(history);
    for (group, lists) in history.groups.iter().zip(&lists) {
        // What is wrong with one document's own log is the witness's to tell.
        let members: Vec<_> = group
            .iter()
            .filter_map(|key| {
                let steps = timeline.keys.get(key.0 as usize)?;
                Some(Member { key: *key, log: Log::new(steps).ok()? })
            })
            .collect();
        if members.len() < group.len() {
            continue;
        }
        for list in lists {
            let Outcome::Listed { seen, .. } = &list.outcome else { continue };
            let fractured = by_revisions(history, &members, list, seen)
                .or_else(|| by_times(history, &requests, group, list, seen));
            violations.extend(fractured);
            if violations.len() >= VIOLATIONS_MAX {
                return violations;
            }
        }
    }
    violations
}

/// Each document at the highest revision that the list shows.
fn by_revisions(
    history: &History,
    members: &[Member<'_>],
    list: &Operation,
    seen: &[Option<Seen>],
) -> Option<Violation> {
    let cut = seen.iter().flatten().map(|seen| seen.revision).max()?;
    for (member, seen) in members.iter().zip(seen) {
        let stood = member.log.at(cut);
        let expected = stood.filter(|(_, placed)| placed.state.is_some()).map(|(at, _)| at);
        let shown = seen.map(|seen| seen.revision);
        let may_be_gone = shown.is_none() && member.log.may_be_deleted(list.ret);
        if expected != shown && !may_be_gone {
            let what = format!(
                "the list shows revision {} of the group, but of this document {} instead of {}",
                cut.0,
                name(shown),
                name(expected)
            );
            let writer: Vec<&Step> = stood.iter().map(|(_, placed)| placed.step).collect();
            let mut operations = Step::show(history, &writer);
            operations.push(list.clone());
            return Some(Violation::at(NAME, history, member.key, what, operations));
        }
    }
    None
}

fn name(revision: Option<Revision>) -> String {
    revision.map_or("nothing".to_owned(), |revision| revision.0.to_string())
}

/// The request of each value, by its place in the history.
fn requests(history: &History) -> BTreeMap<Value, &Operation> {
    let originals = history.operations.iter().filter(|operation| !operation.repeated);
    let values = originals.flat_map(|operation| {
        operation.writes().iter().filter_map(move |write| match write.change {
            Change::Put(value) => Some((value, operation)),
            Change::Delete => None,
        })
    });
    values.collect()
}

/// Two documents of the list, by the times of the requests alone: the batch that left the one wrote the other too, and
/// the other shows what ended before that batch was called.
fn by_times(
    history: &History,
    requests: &BTreeMap<Value, &Operation>,
    group: &[Key],
    list: &Operation,
    seen: &[Option<Seen>],
) -> Option<Violation> {
    let writers: Vec<Option<&Operation>> =
        seen.iter().map(|seen| requests.get(&(*seen)?.value).copied()).collect();
    for newer in writers.iter().flatten().filter(|writer| writer.writes().len() > 1) {
        for ((key, older), seen) in group.iter().zip(&writers).zip(seen) {
            let wrote = newer.writes().iter().find(|write| write.key == *key);
            let Some(wrote) = wrote.filter(|write| write.change.state() != seen.map(|s| s.value))
            else {
                continue;
            };
            // Nothing was there before everything; what is gone may have been deleted afterwards.
            let ended = match (older, seen) {
                (Some(older), _) => older.ret,
                (None, _) => Moment::NEVER,
            };
            if ended < newer.call {
                let what = format!(
                    "the list shows a batch on one document, and not that it left {:?} here",
                    wrote.change
                );
                let operations = older.iter().copied().chain([*newer, list]).cloned().collect();
                return Some(Violation::at(NAME, history, *key, what, operations));
            }
        }
    }
    None
}
