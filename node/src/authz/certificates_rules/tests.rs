//! The rules cell by cell, the special cases, and the whole matrix as a golden file.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::collections::BTreeSet;

use super::*;
use Clearance::{ClusterAdmin, ClusterNode, Operator, User};

const NONE: Target = Target {
    clearance: None,
    requested: None,
    sets_grants: false,
    sets_remarks: false,
    is_self: false,
    is_last_cluster_admin: false,
    is_current_member: false,
};

fn answer(actor: Clearance, action: Action, target: Target) -> &'static str {
    match decide(actor, action, &target) {
        Ok(()) => "Y",
        Err(denied) => {
            assert!(denied.message.ends_with('.'), "{}", denied.message);
            assert_eq!(denied.have, format!("{actor} clearance"));
            denied.reason.code()
        }
    }
}

/// The targets of the columns User, Operator, ClusterAdmin, ClusterNode: new ones for generate and upload.
fn column(action: Action, clearance: Clearance) -> Target {
    match action {
        Action::Generate | Action::Upload => Target { requested: Some(clearance), ..NONE },
        Action::Edit | Action::Delete | Action::Disable | Action::Enable | Action::Cut => {
            Target { clearance: Some(clearance), ..NONE }
        }
    }
}

/// Part B.3 of the specification, cell by cell: actors, action, then the targets User, Operator, ClusterAdmin,
/// ClusterNode.
#[test]
fn every_cell_of_actor_action_and_target() {
    const NO: &str = "MANAGE_FORBIDDEN";
    const LOW: &str = "CLEARANCE_TOO_LOW";
    const ADMINS: &[Clearance] = &[ClusterAdmin, ClusterNode];
    type Cells = (&'static [Clearance], Action, [&'static str; 4]);
    let table: &[Cells] = &[
        (ADMINS, Action::Generate, ["Y", "Y", "Y", NO]),
        (ADMINS, Action::Upload, ["Y", "Y", "Y", "Y"]),
        (ADMINS, Action::Edit, ["Y", "Y", "Y", "Y"]),
        (ADMINS, Action::Delete, ["Y", "Y", "Y", "Y"]),
        (ADMINS, Action::Disable, ["Y", "Y", "Y", NO]),
        (ADMINS, Action::Enable, ["Y", "Y", "Y", "Y"]),
        (ADMINS, Action::Cut, ["Y", "Y", "Y", NO]),
        (&[Operator], Action::Generate, ["Y", "Y", NO, NO]),
        (&[Operator], Action::Upload, ["Y", "Y", NO, NO]),
        (&[Operator], Action::Edit, ["Y", "Y", NO, NO]),
        (&[Operator], Action::Delete, ["Y", "Y", NO, NO]),
        (&[Operator], Action::Disable, ["Y", "Y", NO, NO]),
        (&[Operator], Action::Enable, ["Y", "Y", NO, NO]),
        (&[Operator], Action::Cut, ["Y", "Y", NO, NO]),
        (&[User], Action::Generate, [LOW; 4]),
        (&[User], Action::Upload, [LOW; 4]),
        (&[User], Action::Edit, [LOW; 4]),
        (&[User], Action::Delete, [LOW; 4]),
        (&[User], Action::Disable, [LOW; 4]),
        (&[User], Action::Enable, [LOW; 4]),
        (&[User], Action::Cut, [LOW; 4]),
    ];
    let mut seen = BTreeSet::new();
    for (actors, action, cells) in table {
        for actor in *actors {
            seen.insert((actor.title(), action.word()));
            for (clearance, cell) in Clearance::ALL.into_iter().zip(cells) {
                let got = answer(*actor, *action, column(*action, clearance));
                assert_eq!(got, *cell, "{actor} {action:?} {clearance}");
            }
        }
    }
    assert_eq!(seen.len(), Clearance::ALL.len() * Action::ALL.len(), "a row is missing");
}

/// The columns "self" and "loaded server cert", the last Cluster Admin, and the lines of part A24 on certificates.
#[test]
fn every_special_case() {
    const NO: &str = "MANAGE_FORBIDDEN";
    const OWN: &str = "OWN_CERTIFICATE";
    const LAST: &str = "LAST_CLUSTER_ADMIN";
    const LOW: &str = "CLEARANCE_TOO_LOW";
    let is = |clearance| Target { clearance: Some(clearance), ..NONE };
    let own = |clearance| Target { is_self: true, ..is(clearance) };
    let to = |target: Target, requested| Target { requested: Some(requested), ..target };
    let last = |target: Target| Target { is_last_cluster_admin: true, ..target };
    let member = Target { is_current_member: true, ..is(ClusterNode) };
    let grants = |target: Target| Target { sets_grants: true, ..target };
    let remarks = |target: Target| Target { sets_remarks: true, ..target };
    use Action::{Cut, Delete, Disable, Edit, Enable, Generate, Upload};
    let table: &[(&str, Clearance, Action, Target, &str)] = &[
        // Oneself.
        ("an admin renames itself", ClusterAdmin, Edit, own(ClusterAdmin), "Y"),
        ("an admin demotes itself", ClusterAdmin, Edit, to(own(ClusterAdmin), User), "Y"),
        (
            "the last admin demotes itself",
            ClusterAdmin,
            Edit,
            to(last(own(ClusterAdmin)), User),
            LAST,
        ),
        ("the last admin renames itself", ClusterAdmin, Edit, last(own(ClusterAdmin)), "Y"),
        (
            "the last admin stays what it is",
            ClusterAdmin,
            Edit,
            to(last(own(ClusterAdmin)), ClusterAdmin),
            "Y",
        ),
        ("an admin deletes itself", ClusterAdmin, Delete, own(ClusterAdmin), OWN),
        ("the last admin deletes itself", ClusterAdmin, Delete, last(own(ClusterAdmin)), OWN),
        ("an admin disables itself", ClusterAdmin, Disable, own(ClusterAdmin), OWN),
        ("a node deletes itself", ClusterNode, Delete, own(ClusterNode), OWN),
        ("an operator renames itself", Operator, Edit, own(Operator), "Y"),
        (
            "an operator renames itself, saying its clearance",
            Operator,
            Edit,
            to(own(Operator), Operator),
            "Y",
        ),
        ("an operator grants itself", Operator, Edit, grants(own(Operator)), OWN),
        ("an operator notes on itself", Operator, Edit, remarks(own(Operator)), OWN),
        ("an operator notes on a user", Operator, Edit, remarks(is(User)), "Y"),
        ("an admin notes on itself", ClusterAdmin, Edit, remarks(own(ClusterAdmin)), "Y"),
        ("an operator enables itself", Operator, Enable, own(Operator), OWN),
        ("an admin enables itself", ClusterAdmin, Enable, own(ClusterAdmin), OWN),
        ("a node enables the last admin", ClusterNode, Enable, last(is(ClusterAdmin)), "Y"),
        ("an admin enables a member's", ClusterAdmin, Enable, member, NO),
        ("an operator enables an admin", Operator, Enable, is(ClusterAdmin), NO),
        ("an operator demotes itself", Operator, Edit, to(own(Operator), User), OWN),
        ("an operator raises itself", Operator, Edit, to(own(Operator), ClusterAdmin), NO),
        ("an operator makes itself a node", Operator, Edit, to(own(Operator), ClusterNode), NO),
        ("an operator deletes itself", Operator, Delete, own(Operator), OWN),
        ("an operator disables itself", Operator, Disable, own(Operator), OWN),
        ("a user renames itself", User, Edit, own(User), LOW),
        ("a user raises itself", User, Edit, to(own(User), Operator), LOW),
        ("a user deletes itself", User, Delete, own(User), LOW),
        // Operators and what is above them, by the requested or the current clearance.
        ("an operator makes an operator", Operator, Generate, to(NONE, Operator), "Y"),
        ("an operator generates a node", Operator, Generate, to(NONE, ClusterNode), NO),
        ("an operator uploads an admin", Operator, Upload, to(NONE, ClusterAdmin), NO),
        ("an operator uploads a node", Operator, Upload, to(NONE, ClusterNode), NO),
        (
            "an operator uploads an admin's as user",
            Operator,
            Upload,
            to(is(ClusterAdmin), User),
            NO,
        ),
        ("an operator uploads a node's as user", Operator, Upload, to(is(ClusterNode), User), NO),
        ("an operator demotes an admin", Operator, Edit, to(is(ClusterAdmin), User), NO),
        ("an operator demotes a node", Operator, Edit, to(is(ClusterNode), Operator), NO),
        ("an operator raises a user to operator", Operator, Edit, to(is(User), Operator), "Y"),
        ("an operator raises a user to admin", Operator, Edit, to(is(User), ClusterAdmin), NO),
        (
            "an operator raises an operator to node",
            Operator,
            Edit,
            to(is(Operator), ClusterNode),
            NO,
        ),
        ("an operator demotes an operator", Operator, Edit, to(is(Operator), User), "Y"),
        ("an operator grants a user", Operator, Edit, grants(is(User)), "Y"),
        ("an operator deletes an operator", Operator, Delete, is(Operator), "Y"),
        ("an operator purges an admin", Operator, Delete, is(ClusterAdmin), NO),
        ("an operator deletes the last admin", Operator, Delete, last(is(ClusterAdmin)), NO),
        ("an operator deletes a member's", Operator, Delete, member, NO),
        // The last Cluster Admin.
        ("a node deletes the last admin", ClusterNode, Delete, last(is(ClusterAdmin)), LAST),
        ("a node disables the last admin", ClusterNode, Disable, last(is(ClusterAdmin)), LAST),
        (
            "a node demotes the last admin",
            ClusterNode,
            Edit,
            to(last(is(ClusterAdmin)), Operator),
            LAST,
        ),
        (
            "a node makes the last admin a node",
            ClusterNode,
            Edit,
            to(last(is(ClusterAdmin)), ClusterNode),
            LAST,
        ),
        (
            "a node uploads the last admin's as user",
            ClusterNode,
            Upload,
            to(last(is(ClusterAdmin)), User),
            LAST,
        ),
        ("an admin deletes another admin", ClusterAdmin, Delete, is(ClusterAdmin), "Y"),
        // Node certificates of members.
        ("an admin deletes a member's", ClusterAdmin, Delete, member, NO),
        ("an admin disables a member's", ClusterAdmin, Disable, member, NO),
        ("an admin edits a member's", ClusterAdmin, Edit, member, NO),
        ("an admin uploads a member's again", ClusterAdmin, Upload, to(member, User), NO),
        ("an admin deletes a former member's", ClusterAdmin, Delete, is(ClusterNode), "Y"),
        // Connections.
        ("an admin cuts itself off", ClusterAdmin, Cut, own(ClusterAdmin), OWN),
        ("an operator cuts itself off", Operator, Cut, own(Operator), OWN),
        ("an operator cuts an admin", Operator, Cut, is(ClusterAdmin), NO),
        ("an operator cuts one that nobody registered", Operator, Cut, NONE, "Y"),
        ("a user cuts one that nobody registered", User, Cut, NONE, LOW),
        ("a node cuts the last admin", ClusterNode, Cut, last(is(ClusterAdmin)), "Y"),
        ("an admin cuts a member", ClusterAdmin, Cut, member, NO),
        // Nothing is assumed, and a generated certificate is new.
        ("no clearance is asked for", ClusterAdmin, Generate, NONE, NO),
        ("no clearance is given", ClusterAdmin, Upload, NONE, NO),
        ("one that is there is generated", ClusterAdmin, Generate, to(is(User), User), NO),
    ];
    for (words, actor, action, target, expected) in table {
        assert_eq!(answer(*actor, *action, *target), *expected, "{words}");
    }
}

/// No combination of an Operator's call touches or yields power above Operator.
#[test]
fn operators_reach_nothing_above_operator_by_any_route() {
    let maybe = [None, Some(User), Some(Operator), Some(ClusterAdmin), Some(ClusterNode)];
    let flags = [false, true];
    let mut refused = 0;
    for action in Action::ALL {
        for clearance in maybe {
            for requested in maybe {
                for (is_self, sets_grants) in flags.into_iter().flat_map(|a| flags.map(|b| (a, b)))
                {
                    let target = Target { clearance, requested, is_self, sets_grants, ..NONE };
                    let above = [clearance, requested]
                        .contains(&Some(ClusterAdmin))
                        .max([clearance, requested].contains(&Some(ClusterNode)));
                    if above {
                        refused += 1;
                        assert!(
                            decide(Operator, action, &target).is_err(),
                            "{action:?} {target:?}"
                        );
                    }
                    assert!(decide(User, action, &target).is_err(), "{action:?} {target:?}");
                }
            }
        }
    }
    assert_eq!(refused, Action::ALL.len() * 16 * 4);
}

#[test]
fn the_operation_follows_the_stronger_clearance() {
    let above = Target { clearance: Some(User), requested: Some(ClusterNode), ..NONE };
    let below = Target { clearance: Some(User), requested: Some(Operator), ..NONE };
    // Who is reached by a cut is decided by these rules alone: it has one row in the table.
    for action in Action::ALL.into_iter().filter(|action| *action != Action::Cut) {
        assert_eq!(operation(action, &above).rule().clearance(), Some(ClusterAdmin));
        assert_eq!(operation(action, &below).rule().clearance(), Some(Operator));
    }
}

#[test]
fn only_what_weakens_the_caller_needs_to_be_confirmed() {
    let own = |from, to| Target { is_self: true, clearance: Some(from), requested: to, ..NONE };
    for (target, expected) in [
        (own(ClusterAdmin, None), false),
        (own(ClusterAdmin, Some(ClusterAdmin)), false),
        (own(ClusterAdmin, Some(ClusterNode)), false),
        (own(ClusterAdmin, Some(Operator)), true),
        (own(ClusterAdmin, Some(User)), true),
        (own(ClusterNode, Some(User)), true),
        (own(Operator, Some(User)), true),
        (own(Operator, Some(ClusterAdmin)), false),
        (Target { is_self: false, ..own(ClusterAdmin, Some(User)) }, false),
    ] {
        assert_eq!(target.weakens_the_caller(), expected, "{target:?}");
    }
}

/// The targets of the matrix: those of B.3, each clearance as it is, and what an edit or an overwrite would make of it.
fn matrix_targets(action: Action) -> Vec<(String, Target)> {
    let mut targets = Vec::new();
    let mut add = |words: &str, target: Target| targets.push((words.to_owned(), target));
    let is = |clearance| Target { clearance: Some(clearance), ..NONE };
    for clearance in Clearance::ALL {
        add(clearance.title(), column(action, clearance));
    }
    let existing = !matches!(action, Action::Generate);
    if matches!(action, Action::Edit | Action::Upload) {
        for from in Clearance::ALL {
            for to in Clearance::ALL {
                let words = format!("{} -> {}", from.title(), to.title());
                let target = Target {
                    requested: Some(to),
                    sets_grants: action == Action::Upload,
                    ..is(from)
                };
                add(&words, target);
            }
        }
    }
    if existing {
        let overwrites = |from| (action == Action::Upload).then_some(from);
        let set =
            |target: Target| Target { requested: target.clearance.and_then(overwrites), ..target };
        add("the caller's own", Target { is_self: true, ..set(is(ClusterAdmin)) });
        add(
            "the last Cluster Admin",
            Target { is_last_cluster_admin: true, ..set(is(ClusterAdmin)) },
        );
        add("a member's", Target { is_current_member: true, ..set(is(ClusterNode)) });
    }
    if matches!(action, Action::Edit | Action::Upload) {
        let last = Target { is_last_cluster_admin: true, ..is(ClusterAdmin) };
        add("the last Cluster Admin -> User", Target { requested: Some(User), ..last });
    }
    if action == Action::Edit {
        add("own grants", Target { is_self: true, sets_grants: true, ..NONE });
        add("own note or owner", Target { is_self: true, sets_remarks: true, ..NONE });
    }
    targets
}

/// The target with the clearance of the actor where it is the actor's own.
fn of_actor(actor: Clearance, target: Target) -> Target {
    match target.is_self {
        true => Target {
            clearance: Some(actor),
            requested: target.requested.map(|_| actor),
            sets_grants: target.sets_grants || target.requested.is_some(),
            ..target
        },
        false => target,
    }
}

/// Actor x action x target, whole, for a reader who reviews the difference.
#[test]
fn the_matrix_is_as_it_was_reviewed() {
    use std::fmt::Write as _;
    let actors = [ClusterNode, ClusterAdmin, Operator, User];
    let mut printed = String::from(
        "Who may do what to which certificate (specification, part B.3); `->` is what an edit or an overwrite makes of it.\n",
    );
    for action in Action::ALL {
        let _ = write!(printed, "\n{:34}", action.word());
        for actor in actors {
            let _ = write!(printed, "  {:18}", actor.title());
        }
        printed = printed.trim_end().to_owned() + "\n";
        for (words, target) in matrix_targets(action) {
            let mut row = format!("  {words:32}");
            for actor in actors {
                let _ = write!(row, "  {:18}", answer(actor, action, of_actor(actor, target)));
            }
            printed += row.trim_end();
            printed.push('\n');
        }
    }
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/authz/certificates_rules/matrix.golden.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &printed).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        printed == reviewed,
        "the matrix changed; review the difference after UPDATE_GOLDEN=1\n{printed}"
    );
}
