//! Small charts of the last hour as inline SVG, drawn here: no script, and no style that the page's policy forbids.
//!
//! The drawing is stretched to the width of the page while its lines keep their strength (CSS `vector-effect`), and the
//! labels stand beside it as text, so that they keep their size. One unit of the drawing is one sample wide; its height is
//! 100. Where samples are missing the line has a gap, and a sample that stands alone is a dot.

use std::fmt::Write as _;

use rookery_proto::monitoring::v1::{NodeMetrics, Sample};

use super::words;

/// Ten seconds.
const SLOT_MS: i64 = 10_000;
/// Samples of a chart: an hour.
const SLOTS: usize = 360;
/// Samples that a spark puts together: a minute.
const SPARK_SLOTS: usize = 6;
/// How long the sample of a node may be on its way before it counts as missing.
const GRACE_MS: i64 = 2_000;

/// A value a sample; `None` where there is none.
type Values = Vec<Option<f64>>;

/// A chart with its labels; `chart.html` lays it out.
pub struct Chart {
    /// Unique on the page.
    pub id: &'static str,
    /// What it is called.
    pub title: &'static str,
    /// What it shows, in a sentence, also for those who do not see it.
    pub summary: String,
    /// The label of the highest line; the lowest is 0.
    pub top: String,
    /// The label of the line between them.
    pub half: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// A line of a chart.
pub struct Line {
    /// In the legend.
    pub name: &'static str,
    /// Its colour and pattern.
    pub class: &'static str,
    /// Its last value with its unit; a dash where there is none.
    pub last: String,
    /// The path of the drawing.
    pub path: String,
}

/// What a chart is about.
struct About {
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    summary: String,
}

impl Chart {
    fn new(about: About, lines: [(&'static str, &'static str, Values); 2]) -> Self {
        let About { id, title, unit, summary } = about;
        let highest = lines.iter().flat_map(|(_, _, values)| values.iter().flatten());
        let top = round_above(highest.copied().fold(0.0, f64::max));
        let lines = lines.map(|(name, class, values)| {
            let last = values.last().copied().flatten();
            Line {
                name,
                class,
                last: last.map_or_else(|| words::NONE.to_owned(), |it| labelled(it, unit)),
                path: path(&values, top),
            }
        });
        Self {
            id,
            title,
            summary,
            top: labelled(top, unit),
            half: labelled(top / 2.0, unit),
            lines: lines.into(),
        }
    }

    /// Whether there is nothing to draw.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.path.is_empty())
    }
}

/// The hour of charts that ends now.
#[derive(Debug, Clone, Copy)]
pub struct Hour {
    first_slot: i64,
}

impl Hour {
    /// The hour up to the last sample that every node has had time to make.
    #[must_use]
    pub fn until(now: i64) -> Self {
        let last = now.saturating_sub(GRACE_MS).div_euclid(SLOT_MS) - 1;
        Self { first_slot: last - (SLOTS as i64 - 1) }
    }

    fn at(self, sample: &Sample) -> Option<usize> {
        let slot = sample.from_unix_ms.div_euclid(SLOT_MS).checked_sub(self.first_slot)?;
        usize::try_from(slot).ok().filter(|slot| *slot < SLOTS)
    }

    /// A value a sample of what all nodes have in it, put together.
    fn values(
        self,
        nodes: &[NodeMetrics],
        value: impl Fn(&Sample) -> Option<f64>,
        together: impl Fn(f64, f64) -> f64,
    ) -> Values {
        let mut values = vec![None; SLOTS];
        for sample in nodes.iter().flat_map(|node| &node.samples) {
            let place = self.at(sample).and_then(|at| values.get_mut(at));
            if let (Some(place), Some(new)) = (place, value(sample).filter(|it| it.is_finite())) {
                *place = Some(place.map_or(new, |old| together(old, new)));
            }
        }
        values
    }

    fn sum(self, nodes: &[NodeMetrics], field: impl Fn(&Sample) -> u64) -> u64 {
        let samples = nodes.iter().flat_map(|node| &node.samples);
        let within = samples.filter(|sample| self.at(sample).is_some());
        within.map(field).fold(0, u64::saturating_add)
    }

    /// Calls a second, and those of them that were refused or failed, of all nodes together.
    #[must_use]
    pub fn rates(self, nodes: &[NodeMetrics]) -> Chart {
        let calls = self.values(nodes, |it| per_second(it, it.calls), |a, b| a + b);
        let wrong = self.values(
            nodes,
            |it| per_second(it, it.failed.saturating_add(it.denied)),
            |a, b| a + b,
        );
        let highest = calls.iter().flatten().copied().fold(0.0, f64::max);
        let summary = format!(
            "In the last hour: {}, at most {} a second; {} refused and {} failed.",
            words::several(self.sum(nodes, |it| it.calls), "call"),
            number(highest),
            were(self.sum(nodes, |it| it.denied)),
            words::count(self.sum(nodes, |it| it.failed)),
        );
        let about = About { id: "rates", title: "Calls per second", unit: "", summary };
        Chart::new(about, [("calls", "line-a", calls), ("refused or failed", "line-b", wrong)])
    }

    /// How long calls took on the slowest node.
    #[must_use]
    pub fn latencies(self, nodes: &[NodeMetrics]) -> Chart {
        let ms = |us: u64| (us > 0).then(|| us as f64 / 1_000.0);
        let half = self.values(nodes, |it| ms(it.p50_us), f64::max);
        let most = self.values(nodes, |it| ms(it.p99_us), f64::max);
        let highest = |values: &Values| values.iter().flatten().copied().reduce(f64::max);
        let words = |value: Option<f64>| {
            value.map_or_else(|| "no time at all".to_owned(), |it| labelled(it, "ms"))
        };
        let summary = format!(
            "In the worst ten seconds of the last hour, half of the calls of the slowest node were answered within {}, and \
             99 of 100 within {}.",
            words(highest(&half)),
            words(highest(&most)),
        );
        let about = About { id: "latencies", title: "Time to the answer", unit: "ms", summary };
        Chart::new(about, [("half of the calls", "line-a", half), ("99 of 100", "line-b", most)])
    }

    /// The calls of one node a minute, as a line without labels: its path, and what it shows in words.
    #[must_use]
    pub fn spark(self, node: &NodeMetrics) -> (String, String) {
        let calls =
            self.values(std::slice::from_ref(node), |it| per_second(it, it.calls), |a, b| a + b);
        let minutes: Values = calls.chunks(SPARK_SLOTS).map(mean).collect();
        let highest = minutes.iter().flatten().copied().fold(0.0, f64::max);
        let calls = if number(highest) == "1" { "call" } else { "calls" };
        let words = format!("At most {} {calls} per second in the last hour", number(highest));
        (path(&minutes, round_above(highest)), words)
    }
}

/// `1 was`, `2 were`.
fn were(number: u64) -> String {
    format!("{} {}", words::count(number), if number == 1 { "was" } else { "were" })
}

/// Of those that are there; `None` where none is.
fn mean(values: &[Option<f64>]) -> Option<f64> {
    let there: Vec<f64> = values.iter().flatten().copied().collect();
    (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
}

#[allow(clippy::cast_precision_loss)] // A rate is drawn to a hundredth of the chart's height.
fn per_second(sample: &Sample, count: u64) -> Option<f64> {
    (sample.duration_ms > 0).then(|| count as f64 * 1_000.0 / f64::from(sample.duration_ms))
}

/// The smallest of 1, 2, 5, 10, 20, … (or their tenths) that is not below a value; 1 for nothing.
fn round_above(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let size = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * size);
    steps.into_iter().find(|step| *step >= value).unwrap_or(10.0 * size)
}

/// A number with as many digits as tell something.
fn number(value: f64) -> String {
    let digits = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn labelled(value: f64, unit: &str) -> String {
    match unit {
        "" => number(value),
        unit => format!("{}\u{202f}{unit}", number(value)),
    }
}

/// The path of a line (SVG 2, section 9.3): a piece for each run of values.
fn path(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    let mut before = false;
    for (at, value) in values.iter().enumerate() {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            before = false;
            continue;
        };
        let y = (100.0 - value / top * 100.0).clamp(0.0, 100.0);
        let command = if before { 'L' } else { 'M' };
        let after = values.get(at + 1).copied().flatten().is_some();
        let dot = if before || after { "" } else { "h.01" }; // Round ends make a dot of it.
        let _ = write!(path, "{command}{at} {}{dot}", number(y)); // A String takes all.
        before = true;
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use askama::Template as _;

    use super::*;

    #[derive(askama::Template)]
    #[template(path = "chart.html")]
    struct Alone<'a> {
        chart: &'a Chart,
    }

    fn rendered(chart: &Chart) -> String {
        Alone { chart }.render().unwrap()
    }

    const NOW: i64 = 1_795_334_405_000;

    fn sample(slots_ago: i64, calls: u64, p99_us: u64) -> Sample {
        Sample {
            from_unix_ms: (NOW - GRACE_MS).div_euclid(SLOT_MS) * SLOT_MS
                - (slots_ago + 1) * SLOT_MS,
            duration_ms: 10_000,
            calls,
            p50_us: p99_us / 2,
            p99_us,
            ..Sample::default()
        }
    }

    fn node(samples: &[Sample]) -> NodeMetrics {
        NodeMetrics { node: None, samples: samples.to_vec() }
    }

    fn drawn(chart: &Chart) -> Vec<&str> {
        chart.lines.iter().map(|line| line.path.as_str()).collect()
    }

    #[test]
    fn no_sample_is_said_and_not_drawn() {
        for nodes in [vec![], vec![node(&[])], vec![node(&[sample(400, 7, 7)])]] {
            let chart = Hour::until(NOW).rates(&nodes);
            assert!(chart.is_empty());
            let page = rendered(&chart);
            assert!(page.contains("No samples yet") && !page.contains("<title"), "{page}");
        }
    }

    #[test]
    fn one_sample_is_a_dot_and_gaps_stay_gaps() {
        let hour = Hour::until(NOW);
        let check = |samples: &[Sample], expected: &str| {
            assert_eq!(drawn(&hour.rates(&[node(samples)]))[0], expected);
        };
        check(&[sample(0, 10, 1)], "M359 0h.01");
        check(&[sample(1, 10, 1), sample(0, 5, 1)], "M358 0L359 50");
        check(&[sample(359, 10, 1), sample(1, 5, 1)], "M0 0h.01M358 50h.01");
        check(&[sample(4, 10, 1), sample(3, 10, 1), sample(0, 0, 0)], "M355 0L356 0M359 100h.01");
        check(&[sample(0, 0, 0)], "M359 100h.01");
    }

    #[test]
    fn nodes_are_added_up_and_the_slowest_is_shown() {
        let hour = Hour::until(NOW);
        let nodes = [node(&[sample(0, 10, 4_000)]), node(&[sample(0, 30, 9_000), sample(1, 0, 0)])];
        let rates = hour.rates(&nodes);
        assert_eq!((rates.top.as_str(), rates.half.as_str()), ("5", "2.5"));
        assert_eq!(drawn(&rates)[0], "M358 100L359 20", "0, then 4 of 5 a second");
        assert!(
            rates.summary.starts_with("In the last hour: 40 calls, at most 4 a second; 0 were")
        );
        let latencies = hour.latencies(&nodes);
        assert_eq!(latencies.top, "10\u{202f}ms");
        assert_eq!(drawn(&latencies), ["M359 55h.01", "M359 10h.01"], "where no call was, no time");
        assert_eq!(latencies.lines[1].last, "9\u{202f}ms");
    }

    #[test]
    fn refusals_and_failures_are_a_line_of_their_own() {
        let wrong = Sample { denied: 3, failed: 2, ..sample(0, 10, 1) };
        let chart = Hour::until(NOW).rates(&[node(&[wrong])]);
        assert_eq!(drawn(&chart), ["M359 0h.01", "M359 50h.01"]);
        assert!(chart.summary.ends_with("3 were refused and 2 failed."), "{}", chart.summary);
        let one = Sample { denied: 1, ..sample(0, 1, 1) };
        let chart = Hour::until(NOW).rates(&[node(&[one])]);
        let told = "In the last hour: 1 call, at most 0.1 a second; 1 was refused and 0 failed.";
        assert_eq!(chart.summary, told);
    }

    #[test]
    fn a_page_holds_the_words_and_nothing_that_its_policy_forbids() {
        let page = Hour::until(NOW).rates(&[node(&[sample(1, 5, 1), sample(0, 5, 1)])]);
        let page = rendered(&page);
        for part in ["<title", "<desc", "role=\"img\"", "aria-labelledby", "an hour ago", "now"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("style=") && !page.contains("<script"), "{page}");
    }

    #[test]
    fn figures_that_nobody_expects_draw_something() {
        let odd = Sample { calls: u64::MAX, p99_us: u64::MAX, ..sample(0, 1, 1) };
        let none = Sample { duration_ms: 0, ..sample(1, 1, 1) };
        let far = Sample { from_unix_ms: i64::MIN, ..sample(1, 1, 1) };
        let ahead = Sample { from_unix_ms: i64::MAX, ..sample(1, 1, 1) };
        let nodes = [node(&[odd, none, far, ahead])];
        for now in [i64::MIN, 0, NOW, i64::MAX] {
            let hour = Hour::until(now);
            for chart in [hour.rates(&nodes), hour.latencies(&nodes)] {
                let page = rendered(&chart);
                assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
            }
            assert!(!hour.spark(&nodes[0]).0.contains("NaN"));
        }
    }

    #[test]
    fn scales_end_at_round_numbers() {
        for (value, top) in [
            (0.0, 1.0),
            (-1.0, 1.0),
            (f64::NAN, 1.0),
            (0.03, 0.05),
            (1.0, 1.0),
            (1.1, 2.0),
            (49.0, 50.0),
            (51.0, 100.0),
            (12_345.0, 20_000.0),
        ] {
            assert!((round_above(value) - top).abs() < 1e-9, "{value}: {}", round_above(value));
        }
        let texts = [0.0, 0.004, 0.25, 2.5, 10.0, 12.34, 99.96, 100.0, 20_000.0].map(number);
        assert_eq!(texts, ["0", "0", "0.25", "2.5", "10", "12.3", "100", "100", "20000"]);
    }

    #[test]
    fn a_spark_is_a_minute_a_point() {
        let samples: Vec<Sample> = (0..12).rev().map(|ago| sample(ago, 20, 1)).collect();
        let (path, words) = Hour::until(NOW).spark(&node(&samples));
        assert_eq!(path, "M58 0L59 0");
        assert_eq!(words, "At most 2 calls per second in the last hour");
    }
}
