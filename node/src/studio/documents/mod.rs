//! Documents: a table of them, one of them, and changes held to what was read.
//!
//! | file | what |
//! | --- | --- |
//! | [`pages`] | what a list asks for, and its links on and back |
//! | [`list`] | the table, the collections with their counts, the export of the shown rows |
//! | [`columns`] | the table's columns |
//! | [`show`] | one document: its text, its metadata, the forms |
//! | [`change`] | create, change, delete; what happens where somebody else was faster |
//! | [`compare`] | where two versions differ |
//!
//! A query takes the place of the list's filters; revisions of a document stand beneath its metadata; indexes belong to
//! the page of their database.

pub mod change;
mod columns;
mod compare;
mod layout;
pub mod list;
mod pages;
pub mod show;

use super::words;

/// The path of a document's own page.
fn path(database: &str, id: &str) -> String {
    at("/studio/document", database, id)
}

fn at(path: &str, database: &str, id: &str) -> String {
    format!("{path}{}", words::query(&[("db", database), ("id", id)]))
}
