//! A real browser in a namespace: Chromium without a window, told what to do over its debugging pipe (Chrome DevTools
//! Protocol; JSON messages that end with a NUL, in on descriptor 3 and out on 4).

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::{Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{netns::Namespace, wait::within};

/// Names of the program.
const NAMES: [&str; 2] = ["chromium", "chromium-browser"];
/// For one answer of the browser, and for something to be seen on a page; it may share the machine with a lot.
const PATIENCE: Duration = Duration::from_mins(1);

/// A browser with one page. Ends with this.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    number: u64,
    /// What the page complained about: exceptions, refused loads, errors on its console.
    complaints: Vec<String>,
    _directory: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// The browser that this machine has.
pub fn program() -> Option<&'static str> {
    let paths = std::env::var_os("PATH")?;
    let has = |name: &&&str| std::env::split_paths(&paths).any(|path| path.join(name).is_file());
    NAMES.iter().find(has).copied()
}

impl Browser {
    /// Starts it.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(namespace: &Namespace, program: &str) -> Self {
        let directory = TempDir::with_prefix("breakwater-browser-").expect("a directory");
        let [input, output] = ["in", "out"].map(|name| {
            let path = directory.path().join(name);
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
                0,
            )
            .expect("a pipe");
            path
        });
        // Both ways at once, so that neither side waits for the other to open.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let (to, reading) = (open(&input).expect("opened"), open(&output).expect("opened"));
        let profile = directory.path().join("profile");
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"in=$1 out=$2; shift 2; exec "$@" 3<"$in" 4>"$out""#, "sh"])
            .args([input.as_os_str(), output.as_os_str(), OsStr::new(program)])
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--remote-debugging-pipe",
                "--window-size=1280,1000",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .process_group(0)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let child = namespace.spawn(command).expect("the browser starts");
        let (sender, from) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(reading);
            loop {
                let mut message = Vec::new();
                let ended = !matches!(reader.read_until(0, &mut message), Ok(length) if length > 0);
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else {
                    return;
                };
                if ended || sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            to,
            from,
            session: None,
            number: 0,
            complaints: Vec::new(),
            _directory: directory,
        };
        let page = within(PATIENCE, || {
            let targets = browser.call("Target.getTargets", &json!({}));
            let targets = targets["targetInfos"].as_array()?.clone();
            targets
                .iter()
                .find(|target| target["type"] == "page")?
                .get("targetId")
                .cloned()
        })
        .expect("the browser has a page");
        let attached = browser.call(
            "Target.attachToTarget",
            &json!({ "targetId": page, "flatten": true }),
        );
        browser.session = attached["sessionId"].as_str().map(ToOwned::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Has the browser do something, and returns its answer.
    ///
    /// # Panics
    /// It refuses, or does not answer.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).expect("the browser listens");
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self.from.recv_timeout(left).expect("the browser answers");
            if answer["id"] == json!(self.number) {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let of = &event["params"];
        let complains = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            // Every answer with 4xx or 5xx is one too; whether that is an error is for the page to say.
            Some("Log.entryAdded") => of["entry"]["level"] == "error" && of["entry"]["source"] != "network",
            Some("Runtime.consoleAPICalled") => of["type"] == "error",
            _ => false,
        };
        if complains {
            self.complaints.push(of.to_string());
        }
    }

    /// What the page complained about since the last time.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Goes to an address, and waits until the page is there.
    #[track_caller]
    pub fn open(&mut self, address: &str) {
        let went = self.call("Page.navigate", &json!({ "url": address }));
        assert!(went.get("errorText").is_none(), "{address}: {went}");
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of an expression on the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text of the first element that a selector finds.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({})?.innerText", json!(selector)));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression holds.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        let held = within(PATIENCE, || {
            (self.value(&format!("Boolean({expression})")) == json!(true)).then_some(())
        });
        if held.is_none() {
            let page = self.value("document.body.innerText");
            panic!("never: {expression}\ncomplaints: {:?}\n{page}", self.complaints);
        }
    }

    /// Presses the primary button of a mouse in the middle of the first element that a selector finds.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let place = self.value(&format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{ block: 'center' }}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let parameters =
                json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &parameters);
        }
    }

    /// Writes into whatever has the focus.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Presses a key: `Tab` or `Enter`.
    #[track_caller]
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            _ => panic!("no key {key}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut parameters =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                parameters["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", &parameters);
        }
    }

    /// Chooses an option of a list.
    #[track_caller]
    pub fn choose(&mut self, selector: &str, option: &str) {
        let (list, option) = (json!(selector), json!(option));
        let chosen = self.value(&format!(
            "(() => {{ const e = document.querySelector({list}); e.value = {option}; \
             e.dispatchEvent(new Event('change')); return e.value; }})()"
        ));
        assert_eq!(chosen, option, "{selector} has this option");
    }

    /// Gives the page this width, in CSS pixels, and a theme.
    pub fn resize(&mut self, width: u32, height: u32, theme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// A picture of the whole page, as PNG.
    #[track_caller]
    pub fn screenshot(&mut self) -> Vec<u8> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.call("Page.captureScreenshot", &parameters);
        BASE64_STANDARD
            .decode(taken["data"].as_str().unwrap_or_default())
            .expect("base64")
    }

    /// Keeps a picture of the whole page, if `BREAKWATER_SCREENSHOTS` names a directory for them.
    pub fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("BREAKWATER_SCREENSHOTS") else {
            return;
        };
        std::fs::write(
            Path::new(&directory).join(format!("{name}.png")),
            self.screenshot(),
        )
        .expect("written");
    }
}
