//! What a page shows, read without a browser.

use scraper::{ElementRef, Selector};

/// A page as its reader sees it.
#[derive(Debug, Default)]
pub struct Html {
    /// The text of `<title>`.
    pub title: String,
    /// The text of the first `<h1>`.
    pub heading: String,
    /// The text of the page's own part, without the frame, white space folded.
    pub text: String,
    /// Buttons, links that look like buttons and choices, in their order.
    pub controls: Vec<Control>,
}

/// Something to click.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Its words, and where it stands in a row of a table, the row's name after them.
    pub label: String,
    /// Why it is disabled; `None` where it is not.
    pub why_not: Option<String>,
}

impl Control {
    /// The rule that a disabled control names.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        self.why_not.as_deref()?.rsplit_once("(rule ")?.1.strip_suffix(").")
    }
}

impl Html {
    /// Reads a page.
    ///
    /// # Panics
    /// Never: the selectors are fixed.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let document = scraper::Html::parse_document(text);
        let first = |css: &str| document.select(&selector(css)).next();
        let main = first("main");
        let controls = main.map(controls).unwrap_or_default();
        Self {
            title: first("title").map(words).unwrap_or_default(),
            heading: first("h1").map(words).unwrap_or_default(),
            text: main.map(words).unwrap_or_default(),
            controls,
        }
    }
}

/// How many elements of a page a CSS selector finds.
///
/// # Panics
/// `css` is no selector.
#[must_use]
pub fn count(text: &str, css: &str) -> usize {
    scraper::Html::parse_document(text).select(&selector(css)).count()
}

/// The attribute of the first element that a CSS selector finds.
///
/// # Panics
/// `css` is no selector.
#[must_use]
pub fn attribute(text: &str, css: &str, name: &str) -> Option<String> {
    let document = scraper::Html::parse_document(text);
    let found = document.select(&selector(css)).next()?;
    found.attr(name).map(str::to_owned)
}

#[allow(clippy::expect_used)] // Only constants of tests come here.
fn selector(css: &str) -> Selector {
    Selector::parse(css).expect("a CSS selector")
}

fn controls(main: ElementRef<'_>) -> Vec<Control> {
    let all = selector("button, a.button, input[type=radio][name=clearance]");
    main.select(&all).filter(|it| it.attr("hidden").is_none()).map(control).collect()
}

fn control(it: ElementRef<'_>) -> Control {
    let label = match it.value().name() {
        "input" => format!("({})", it.attr("value").unwrap_or_default()),
        _ => it.attr("aria-label").map_or_else(|| shown_words(it), str::to_owned),
    };
    let row = it.ancestors().filter_map(ElementRef::wrap).find(|it| it.value().name() == "tr");
    let label = match row.and_then(row_name) {
        Some(row) => format!("{label} {row}"),
        None => label,
    };
    let why = || match it.value().name() {
        "input" => choice_hint(it),
        _ => it.attr("title").unwrap_or_default().to_owned(),
    };
    let why_not = it.attr("disabled").map(|_| why());
    Control { label, why_not }
}

/// What stands beside a choice: its hint.
fn choice_hint(it: ElementRef<'_>) -> String {
    let beside = it.parent().and_then(ElementRef::wrap);
    let hint = beside.and_then(|beside| beside.select(&selector(".hint")).next().map(words));
    // The last sentence is the reason; the rest tells what the choice is.
    hint.and_then(|hint| hint.find("Needs ").map(|at| hint[at..].to_owned())).unwrap_or_default()
}

/// The first words of a row's header: its name, without tags beside it.
fn row_name(row: ElementRef<'_>) -> Option<String> {
    let header = row.select(&selector("th[scope=row]")).next()?;
    header.text().map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
}

/// The words without those for screen readers alone, which repeat why something is disabled.
fn shown_words(it: ElementRef<'_>) -> String {
    let all = words(it);
    let hidden = it.select(&selector(".hidden")).next().map(words).unwrap_or_default();
    all.strip_suffix(&hidden).unwrap_or(&all).trim_end().to_owned()
}

fn words(it: ElementRef<'_>) -> String {
    let text: Vec<&str> = it.text().flat_map(str::split_whitespace).collect();
    text.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_is_shown() {
        let page = Html::read(
            "<!doctype html><title>A · B</title><nav><button>Not this</button></nav>\
             <main><h1>Head <b>line</b></h1><a class=button href=/x>Go</a><a href=/y>Text</a>\
             <table><tr><th scope=row><a>n1</a> <span>leader</span></th><td>\
             <button disabled title='Needs more; you have less (rule B1.2).'>Remove<span class=hidden>: Needs more</span></button></td></tr></table>\
             <button hidden>copy</button><div class=choice><input type=radio name=clearance value=big disabled>\
             <span class=hint>All of it. Needs more (rule B9).</span></div></main>",
        );
        let labels: Vec<_> =
            page.controls.iter().map(|it| (it.label.as_str(), it.rule())).collect();
        assert_eq!(labels, [("Go", None), ("Remove n1", Some("B1.2")), ("(big)", Some("B9"))]);
        assert_eq!((page.title.as_str(), page.heading.as_str()), ("A · B", "Head line"));
        assert!(page.text.starts_with("Head line Go Text n1 leader"), "{}", page.text);
        assert_eq!(count("<p class=a></p><p></p>", "p.a"), 1);
        assert_eq!(attribute("<a id=d href='data:x'>", "#d", "href").as_deref(), Some("data:x"));
    }
}
