//! What a script finds wrong with a page: structure, labels, contrast, width, layout shift, focus, the console.

use std::time::Duration;

use anyhow::{Context as _, Result};
use thirtyfour::Key;

use super::{Browser, Size, Theme, driver::bounded};

/// Largest sum of layout shifts while a page loads.
const SHIFT_MAX: f64 = 0.01;

/// What a look found.
#[derive(Debug)]
pub struct Findings {
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// The lowest contrast of a text; that of large text counts one and a half times, as in WCAG.
    pub contrast_lowest: f64,
    /// Pieces of text that were measured.
    pub texts: u64,
}

impl Browser {
    /// Looks at the page that is shown.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn look(&self, size: Size, theme: Theme) -> Result<Findings> {
        let answer = self.script_that_waits(include_str!("look.js")).await?;
        let told: Vec<String> = serde_json::from_value(answer["problems"].clone())?;
        let mut problems: Vec<String> = told;
        let shift = answer["shift"].as_f64().context("the layout shift")?;
        if shift >= SHIFT_MAX {
            problems.push(format!("what was shown moved while it loaded: {shift:.3}"));
        }
        let url = answer["url"].as_str().context("the address")?;
        // A page that is a refusal has the status of one, and the console names it.
        let own =
            format!("{url} - Failed to load resource: the server responded with a status of 4");
        let lines = self.console().await?.into_iter().filter(|line| !line.contains(&own));
        problems.extend(lines.map(|line| format!("console: {line}")));
        let at = format!("{}, {}", size.name, theme.name());
        Ok(Findings {
            problems: problems.into_iter().map(|it| format!("{at}: {it}")).collect(),
            contrast_lowest: answer["lowest"].as_f64().context("the contrast")?,
            texts: answer["texts"].as_u64().unwrap_or_default(),
        })
    }

    /// Presses Tab through the page: what can be clicked and is not reached. One radio button of a group is enough.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn not_reached_by_keyboard(&self) -> Result<Vec<String>> {
        let count = self.script(include_str!("focus_before.js")).await?;
        let count = usize::try_from(count.as_u64().context("a count of controls")?)?;
        // Scrolling regions and browser controls take a few more.
        let tabs = String::from(Key::Tab.value()).repeat(count + 8);
        let keys = self.driver.action_chain_with_delay(Some(Duration::ZERO), None).send_keys(tabs);
        bounded("pressing Tab", keys.perform()).await?;
        let left = self.script(include_str!("focus_after.js")).await?;
        Ok(serde_json::from_value(left)?)
    }

    /// Warnings and errors of the console since it was asked last: errors of scripts, refusals of the policy, files that failed.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn console(&self) -> Result<Vec<String>> {
        let lines = bounded("the console", self.driver.browser_log()).await?;
        // Below them is advice, such as that a form with a password could name its holder.
        let told =
            lines.into_iter().filter(|line| matches!(line.level.as_str(), "SEVERE" | "WARNING"));
        Ok(told.map(|line| format!("{} {}", line.level, line.message)).collect())
    }
}
