//! One Chromium through one chromedriver.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use thirtyfour::{
    By, Capabilities, CapabilitiesHelper as _, ChromiumLikeCapabilities as _, DesiredCapabilities,
    LoggingPrefsLogLevel, WebDriver, WebElement,
};

use super::{CHROMEDRIVER, CHROMIUM, Profile};
use crate::wait::eventually;

/// Longest time until driver and browser have started, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(40);
/// Longest time of one step: a page that loads, a click, a script.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// Tallest screenshot.
const SHOT_HEIGHT_MAX: u64 = 4000;

/// What the browser is started with: no window, no sandbox (tests run as root in containers), no talk to anybody else.
const FLAGS: [&str; 11] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
];

/// The size of a window, in CSS pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// What screenshots call it.
    pub name: &'static str,
    width: u32,
    height: u32,
}

/// A window on a desk.
pub const WIDE: Size = Size { name: "wide", width: 1400, height: 900 };
/// A telephone.
pub const NARROW: Size = Size { name: "narrow", width: 390, height: 844 };

/// What the reader prefers (`prefers-color-scheme`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Dark text on a light ground.
    Light,
    /// Light text on a dark ground.
    Dark,
}

impl Theme {
    /// The value of the media feature.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// A browser window. Dropping it ends its processes; [`Browser::close`] ends them in order.
pub struct Browser {
    /// The session, for what has no method here.
    pub driver: WebDriver,
    processes: Processes,
}

impl Browser {
    /// Starts a browser with a profile.
    ///
    /// # Errors
    /// It has not started within the limit.
    pub async fn open(profile: Profile) -> Result<Self> {
        let mut processes = Processes::start(profile)?;
        let port = processes.port()?;
        let capabilities = capabilities(&processes.profile)?;
        let session = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities);
        let driver = tokio::time::timeout(START_LIMIT, session)
            .await
            .context("Chromium has not started")?
            .context("starting Chromium")?;
        let browser = Self { driver, processes };
        browser.resize(WIDE).await?;
        Ok(browser)
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.processes.profile
    }

    /// Opens a page and waits until it has loaded.
    ///
    /// # Errors
    /// It has not loaded within the limit.
    pub async fn goto(&self, url: &str) -> Result<()> {
        bounded(&format!("opening {url}"), self.driver.goto(url)).await
    }

    /// Gives the window a size.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn resize(&self, size: Size) -> Result<()> {
        let metrics = json!({
            "width": size.width, "height": size.height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.tools("Emulation.setDeviceMetricsOverride", metrics).await.map(drop)
    }

    /// Has the browser prefer a theme.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn prefer(&self, theme: Theme) -> Result<()> {
        // Without animations: what is looked at has come to rest.
        let features = json!([
            { "name": "prefers-color-scheme", "value": theme.name() },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        let media = json!({ "media": "screen", "features": features });
        self.tools("Emulation.setEmulatedMedia", media).await.map(drop)
    }

    /// The text that an element shows.
    ///
    /// # Errors
    /// There is no such element.
    pub async fn text(&self, css: &str) -> Result<String> {
        bounded(&format!("the text of {css}"), self.find(css).await?.text()).await
    }

    /// Waits until the text of an element contains `part`; gives the whole.
    ///
    /// # Errors
    /// It does not within the limit, with what it shows instead.
    pub async fn shows(&self, css: &str, part: &str) -> Result<String> {
        eventually(&format!("{css} shows {part:?}"), STEP_LIMIT, async || {
            let text = self.text(css).await?;
            anyhow::ensure!(text.contains(part), "it shows {text:?}");
            Ok(text)
        })
        .await
    }

    /// Clicks an element, and waits where that opens a page.
    ///
    /// # Errors
    /// There is none, or it cannot be clicked.
    pub async fn click(&self, css: &str) -> Result<()> {
        bounded(&format!("clicking {css}"), self.find(css).await?.click()).await
    }

    /// Clicks a button or link by its words.
    ///
    /// # Errors
    /// There is none, or it cannot be clicked.
    pub async fn press(&self, words: &str) -> Result<()> {
        let path = format!("//main//*[self::a or self::button][normalize-space()='{words}']");
        let found = bounded(words, self.driver.find(By::XPath(path))).await?;
        bounded(&format!("pressing {words}"), found.click()).await
    }

    /// Types into a field, in place of what it holds.
    ///
    /// # Errors
    /// There is no such field.
    pub async fn fill(&self, css: &str, text: &str) -> Result<()> {
        let field = self.find(css).await?;
        bounded(&format!("emptying {css}"), field.clear()).await?;
        bounded(&format!("typing into {css}"), field.send_keys(text)).await
    }

    /// Has a file field choose a file.
    ///
    /// # Errors
    /// There is no such field.
    pub async fn choose_file(&self, css: &str, file: &Path) -> Result<()> {
        let field = self.find(css).await?;
        bounded(&format!("a file in {css}"), field.send_keys(file.display().to_string())).await
    }

    /// Runs a script in the page and gives what it returns.
    ///
    /// # Errors
    /// It throws.
    pub async fn script(&self, script: &str) -> Result<Value> {
        let ran = bounded("a script", self.driver.execute(script, Vec::new())).await?;
        Ok(ran.json().clone())
    }

    /// Runs a script that calls its last argument with what it has to say.
    ///
    /// # Errors
    /// It throws, or never says anything.
    pub async fn script_that_waits(&self, script: &str) -> Result<Value> {
        let ran = bounded("a script", self.driver.execute_async(script, Vec::new())).await?;
        Ok(ran.json().clone())
    }

    /// Writes a picture of the whole page.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn shoot(&self, path: &Path) -> Result<()> {
        let size = "const e = document.documentElement; e.scrollTo(0, 0); return [e.clientWidth, e.scrollHeight];";
        let size = self.script(size).await?;
        let height = size[1].as_u64().unwrap_or_default().clamp(100, SHOT_HEIGHT_MAX);
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": height, "scale": 1 });
        let asked = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let answer = self.tools("Page.captureScreenshot", asked).await?;
        let picture = answer["data"].as_str().context("a picture")?;
        let picture = base64::engine::general_purpose::STANDARD.decode(picture)?;
        fs::write(path, picture).with_context(|| format!("writing {}", path.display()))
    }

    /// Sends a command of the Chrome DevTools Protocol.
    ///
    /// # Errors
    /// It is refused.
    pub async fn tools(&self, command: &str, parameters: Value) -> Result<Value> {
        bounded(command, self.driver.cdp().send_raw(command, parameters)).await
    }

    /// Waits until a download has come whole, and gives its file.
    ///
    /// # Errors
    /// There is none within the limit.
    pub async fn downloaded(&self, ending: &str) -> Result<std::path::PathBuf> {
        let folder = self.profile().downloads();
        eventually(&format!("a download *{ending}"), STEP_LIMIT, async || {
            let files: Vec<_> =
                fs::read_dir(&folder)?.filter_map(|it| Some(it.ok()?.path())).collect();
            let whole = |file: &&std::path::PathBuf| file.display().to_string().ends_with(ending);
            files.iter().find(whole).cloned().with_context(|| format!("there are {files:?}"))
        })
        .await
    }

    /// Ends the session, then the driver.
    ///
    /// # Errors
    /// The browser does not end.
    pub async fn close(self) -> Result<()> {
        bounded("closing the browser", self.driver.clone().quit()).await
    }

    async fn find(&self, css: &str) -> Result<WebElement> {
        bounded(&format!("finding {css}"), self.driver.find(By::Css(css.to_owned()))).await
    }
}

impl Drop for Browser {
    /// Nothing is said to the driver any more: its processes end with the fields.
    fn drop(&mut self) {
        let _ = self.driver.clone().leak(); // Closed already: good.
    }
}

/// A step of WebDriver with a limit, and with what it was in its error.
pub(super) async fn bounded<T, E>(what: &str, step: impl Future<Output = Result<T, E>>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let outcome = tokio::time::timeout(STEP_LIMIT, step).await;
    outcome
        .with_context(|| format!("{what}: no answer in {STEP_LIMIT:?}"))?
        .context(what.to_owned())
}

fn capabilities(profile: &Profile) -> Result<Capabilities> {
    let mut chrome = DesiredCapabilities::chrome();
    chrome.set_binary(CHROMIUM)?;
    for flag in FLAGS {
        chrome.add_arg(flag)?;
    }
    chrome.add_arg(&format!("--user-data-dir={}", profile.home().join("profile").display()))?;
    let preferences = json!({
        "download.default_directory": profile.downloads(),
        "download.prompt_for_download": false,
        "safebrowsing.enabled": false,
    });
    chrome.add_experimental_option("prefs", preferences)?;
    chrome.set_browser_log_level(LoggingPrefsLogLevel::All)?;
    let limit_ms = STEP_LIMIT.as_secs() * 1000 - 5_000;
    let limits = json!({ "pageLoad": limit_ms, "script": limit_ms, "implicit": 0 });
    chrome.set("timeouts", limits)?;
    Ok(chrome.into())
}

/// The driver and whatever it started, with the folder that they live in.
struct Processes {
    driver: Child,
    profile: Profile,
}

impl Processes {
    fn start(profile: Profile) -> Result<Self> {
        let driver = Command::new(CHROMEDRIVER)
            .arg("--port=0")
            .env("HOME", profile.home())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .env("TMPDIR", profile.home())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting chromedriver")?;
        Ok(Self { driver, profile })
    }

    /// The port that the driver chose, which it tells in its first lines.
    fn port(&mut self) -> Result<u16> {
        let output = self.driver.stdout.take().context("the output of chromedriver")?;
        let (tell, told) = mpsc::channel();
        // Reads on to the end, so that the driver never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let port = line.rsplit_once("started successfully on port ");
                if let Some(port) =
                    port.and_then(|(_, port)| port.trim_end_matches('.').parse().ok())
                {
                    let _ = tell.send(port); // Nobody waits any more: the start has failed.
                }
            }
        });
        told.recv_timeout(START_LIMIT).context("chromedriver does not tell its port")
    }
}

impl Drop for Processes {
    /// The driver by its group; the browser, which has a group of its own, by the folder that its command line names.
    fn drop(&mut self) {
        if let Ok(Some(group)) = i32::try_from(self.driver.id()).map(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL); // Gone already: good.
        }
        let _ = self.driver.wait();
        let home = self.profile.home().display().to_string();
        for pid in started_with(&home) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The processes whose command line names a folder that only this test has.
fn started_with(folder: &str) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let names = processes.filter_map(|it| it.ok()?.file_name().into_string().ok());
    let ids = names.filter_map(|name| name.parse::<i32>().ok());
    let named = |id: &i32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder)
    };
    ids.filter(named).filter_map(Pid::from_raw).collect()
}
