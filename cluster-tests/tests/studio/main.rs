//! The Studio as people meet it: in a browser, with every kind of certificate, and with requests that no page makes.
//!
//! | module | what |
//! | --- | --- |
//! | `pages` | every page, what is on it to click and what each needs: **a new page gets its rows here** |
//! | `forms` | every form, as it is posted by hand |
//! | `world` | three nodes, databases, and somebody of every kind |
//! | `walk` | every page and form by everybody, held to the permission table; `golden/studio.txt` |
//! | `journey` | generate, download, import, look around, be revoked |
//! | `live` | what moves: records that are followed, a replacement that is watched, sessions, nodes that change roles |
//! | `screens` | screenshots, contrast, labels, keyboard, layout, console of every page |
//! | `bad_input` | markup, huge values, other sites, forged fields, stale versions |
//! | `figures` | the time of a page of 100 and 100,000 certificates, the bytes of a first visit |

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod bad_input;
mod figures;
mod forms;
mod journey;
mod live;
mod pages;
mod screens;
mod walk;
mod world;
