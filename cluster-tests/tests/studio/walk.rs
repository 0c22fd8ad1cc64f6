//! Every page and every form by everybody: what is shown, disabled and refused is what the permission table says.
//!
//! What may be done is asked of the cluster (`Explain`, in each one's own name); what the pages show and do is held to
//! it, and written down in `golden/studio.txt` for readers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Context as _, Result};
use cluster_tests::{
    browser::{Answer, Control, Html, Site},
    golden,
};
use rookery_proto::security::v1::{ExplainRequest, Explanation};

use crate::{
    forms::{FORMS, Form},
    pages::{self, FILES, Needs, PAGES, Page},
    world::{PEOPLE, World},
};

const LEGEND: &str = "\
What the Studio shows to whom. Each page: the status of the answer, then what is on it to click.
Y can be clicked   -RULE shown disabled, with the rule that forbids it   . not shown   nothing: there is nothing to do it to
Each form, posted by hand: the status of the answer, and for who is refused the reason.
! the certificate itself is refused, on a page that says why

";

/// What everybody may, by operation; server operations under \"\", others under their database.
struct Rights(BTreeMap<&'static str, BTreeMap<(String, String), Explanation>>);

impl Rights {
    async fn ask(world: &World) -> Result<Self> {
        let mut all = BTreeMap::new();
        for name in PEOPLE {
            all.insert(name, explained(world, name).await.with_context(|| name.to_owned())?);
        }
        Ok(Self(all))
    }

    /// The decision for somebody; `None` for whoever the cluster does not even explain anything to.
    fn of(&self, name: &str, needs: Needs) -> Option<&Explanation> {
        let (database, operation) = match needs {
            Needs::Nothing => return None,
            Needs::Server(operation) => ("", operation),
            Needs::Database(database, operation) => (database, operation),
        };
        self.0[name].get(&(database.to_owned(), operation.to_owned()))
    }

    fn is_let_in(&self, name: &str) -> bool {
        !self.0[name].is_empty()
    }

    fn may(&self, name: &str, needs: Needs) -> bool {
        let allowed = || self.of(name, needs).is_some_and(|it| it.allowed);
        self.is_let_in(name) && (needs == Needs::Nothing || allowed())
    }
}

async fn explained(world: &World, name: &str) -> Result<BTreeMap<(String, String), Explanation>> {
    let caller = world.caller(name)?;
    let mut all = BTreeMap::new();
    for database in ["sales", "other"] {
        let request = ExplainRequest { database: database.to_owned(), ..Default::default() };
        let answer = match caller.trust().explain(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == tonic::Code::Unauthenticated => continue,
            Err(status) => return Err(status.into()),
        };
        for told in answer.explanations {
            let scope = if told.scope == "server" { "" } else { database };
            all.insert((scope.to_owned(), told.operation.clone()), told);
        }
    }
    Ok(all)
}

#[tokio::test]
async fn every_page_and_form_agrees_with_the_permission_table_for_everybody() -> Result<()> {
    let world = World::start().await?;
    let rights = Rights::ask(&world).await?;
    let mut walk = Walk { rights, problems: Vec::new(), told: LEGEND.to_owned() };
    walk.row("", PEOPLE.map(str::to_owned))?;
    let place = pages::paths(&world).await?;
    let mut sites: BTreeMap<&str, Site> = BTreeMap::new();
    for name in PEOPLE {
        sites.insert(name, world.site(name)?);
    }
    for page in PAGES {
        walk.page(page, &place(page.path), &mut sites).await?;
    }
    for (path, needs) in FILES {
        walk.file(path, *needs, &mut sites).await?;
    }
    writeln!(walk.told, "\n== forms")?;
    for form in FORMS {
        walk.form(form, &world, &mut sites).await?;
    }
    let count = walk.problems.len();
    anyhow::ensure!(count == 0, "{count} problems:\n{}", walk.problems.join("\n"));
    golden::check("golden/studio.txt", &walk.told)?;
    world.cluster.finish().await
}

struct Walk {
    rights: Rights,
    problems: Vec<String>,
    told: String,
}

impl Walk {
    fn row(&mut self, label: &str, cells: [String; PEOPLE.len()]) -> Result<()> {
        write!(self.told, "{label:<46}")?;
        for cell in cells {
            write!(self.told, " {cell:<14}")?;
        }
        self.told.truncate(self.told.trim_end().len());
        self.told.push('\n');
        Ok(())
    }

    /// One page by everybody.
    async fn page(
        &mut self,
        page: &Page,
        path: &str,
        sites: &mut BTreeMap<&str, Site>,
    ) -> Result<()> {
        let mut shown: BTreeMap<&str, Html> = BTreeMap::new();
        let mut statuses = PEOPLE.map(|_| String::new());
        for (at, name) in PEOPLE.into_iter().enumerate() {
            let answer = sites.get_mut(name).context("a site")?.get(path).await?;
            let html = Html::read(&answer.text());
            statuses[at] = self.status(page.name, name, page.needs, &answer, &html);
            if answer.status == 200 {
                shown.insert(name, html);
            }
        }
        writeln!(self.told, "\n== {}  {}", page.name, page.path)?;
        self.row("(the page)", statuses)?;
        self.unknown_controls(page, &shown);
        for (label, needs) in page.controls {
            let cells = PEOPLE.map(|name| {
                let Some(html) = shown.get(name) else { return ".".to_owned() };
                let found: Vec<_> = html.controls.iter().filter(|it| it.label == *label).collect();
                self.control(page, label, *needs, name, &found)
            });
            if cells.iter().all(|cell| cell == ".") {
                self.problems.push(format!("{}: nobody is shown {label:?}", page.name));
            }
            self.row(&format!("   {label}"), cells)?;
        }
        Ok(())
    }

    /// What is to be clicked and has no row.
    fn unknown_controls(&mut self, page: &Page, shown: &BTreeMap<&str, Html>) {
        let known: BTreeSet<&str> = page.controls.iter().map(|(label, _)| *label).collect();
        let seen: BTreeSet<&str> = shown
            .values()
            .flat_map(|html| html.controls.iter().map(|it| it.label.as_str()))
            .collect();
        for label in seen.difference(&known) {
            self.problems.push(format!("{}: pages.rs has no row for {label:?}", page.name));
        }
    }

    /// A control as somebody is shown it, held to what they may.
    fn control(
        &mut self,
        page: &Page,
        label: &str,
        needs: Needs,
        name: &str,
        found: &[&Control],
    ) -> String {
        let what = format!("{}: {label:?} for {name}", page.name);
        let Some(first) = found.first() else { return ".".to_owned() };
        if found.iter().any(|it| it != first) {
            self.problems.push(format!("{what}: shown twice, in two ways"));
        }
        let may = self.rights.may(name, needs);
        match (&first.why_not, may) {
            (None, true) => {}
            (None, false) => self.problems.push(format!("{what}: can be clicked and is forbidden")),
            // It says what is missing: nothing is there that it could be done to.
            (Some(why), true) if why.starts_with("There is nothing") => {
                return "nothing".to_owned();
            }
            (Some(_), true) => self.problems.push(format!("{what}: disabled and is allowed")),
            (Some(why), false) => {
                let rule = self.rights.of(name, needs).map_or("", |it| it.rule.as_str());
                if first.rule() != Some(rule) {
                    self.problems.push(format!("{what}: {why:?} does not name the rule {rule}"));
                }
            }
        }
        match first.rule() {
            Some(rule) => format!("-{rule}"),
            None if first.why_not.is_some() => "-?".to_owned(),
            None => "Y".to_owned(),
        }
    }

    /// The status of an answer, held to what the asker may, and its reason where it is a refusal.
    fn status(
        &mut self,
        what: &str,
        name: &str,
        needs: Needs,
        answer: &Answer,
        html: &Html,
    ) -> String {
        let status = answer.status;
        let refused = status == 403;
        let mut problem = |why: String| self.problems.push(format!("{what} by {name}: {why}"));
        if refused == self.rights.may(name, needs) {
            problem(format!("{status} {:?}, against the table", html.heading));
        }
        if !refused {
            return status.to_string();
        }
        if !self.rights.is_let_in(name) {
            let heading = match name {
                "none" => "No certificate",
                "unknown" => "Unknown certificate",
                "expired" => "Expired certificate",
                _ => "Disabled certificate",
            };
            if html.heading != heading {
                problem(format!("the page says {:?}", html.heading));
            }
            return "403 !".to_owned();
        }
        let told = self.rights.of(name, needs);
        let (reason, required) =
            told.map_or(("", ""), |it| (it.reason.as_str(), it.required.as_str()));
        // A form that is shown again says it in words; who reaches above themselves is told of the other's clearance.
        let above = reason == "CLEARANCE_TOO_LOW"
            && ["MANAGE_FORBIDDEN", "; ask a Cluster Admin"]
                .iter()
                .any(|it| html.text.contains(it));
        if reason.is_empty()
            || !(html.text.contains(reason) || html.text.contains(required) || above)
        {
            problem(format!("neither {reason:?} nor {required:?} is in {:?}", html.text));
        }
        let short = match reason {
            _ if above => "manage",
            "CLEARANCE_TOO_LOW" => "clearance",
            "DATABASE_ACCESS_DENIED" => "database",
            other => other,
        };
        format!("403 {short}")
    }

    /// A download or stream by everybody; of those who may, only the beginning is read.
    async fn file(
        &mut self,
        path: &str,
        needs: Needs,
        sites: &mut BTreeMap<&str, Site>,
    ) -> Result<()> {
        let mut cells = PEOPLE.map(|_| String::new());
        for (at, name) in PEOPLE.into_iter().enumerate() {
            let site = sites.get_mut(name).context("a site")?;
            cells[at] = match self.rights.may(name, needs) {
                true => site.open(path).await?.to_string(),
                false => {
                    let answer = site.get(path).await?;
                    let html = Html::read(&answer.text());
                    self.status(path, name, needs, &answer, &html)
                }
            };
            if cells[at].starts_with('2') != self.rights.may(name, needs) {
                self.problems.push(format!("{path} by {name}: {}", cells[at]));
            }
        }
        writeln!(self.told, "\n== file  {path}")?;
        self.row("(the file)", cells)
    }

    /// A form by everybody.
    async fn form(
        &mut self,
        form: &Form,
        world: &World,
        sites: &mut BTreeMap<&str, Site>,
    ) -> Result<()> {
        let mut cells = PEOPLE.map(|_| String::new());
        for (at, name) in PEOPLE.into_iter().enumerate() {
            let may = self.rights.may(name, form.needs);
            let before = world.state().await?;
            let site = sites.get_mut(name).context("a site")?;
            let answer = form.post(world, site, may).await?;
            let html = Html::read(&answer.text());
            cells[at] = self.status(form.name, name, form.needs, &answer, &html);
            if !may && world.state().await? != before {
                self.problems.push(format!("{} by {name} changed something", form.name));
            }
        }
        self.row(form.name, cells)
    }
}
