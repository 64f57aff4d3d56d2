//! The configuration file: every key is read by name, every mistake is collected, what is left over is unknown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_core::{Error, ErrorKind};
use serde_json::{Map, Value};

use super::settings::{LogFormat, RobotAllow};

/// Fewest days that ended jobs are kept: idempotency keys are promised for as long.
const KEEP_DAYS_MIN: u64 = 30;

/// The keys of a configuration file; absent keys are `None` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileConfig {
    /// `fleet.seeds`
    pub seeds: Vec<String>,
    /// `fleet.token-file`
    pub token_file: Option<PathBuf>,
    /// `node.name`
    pub name: Option<String>,
    /// `node.site`
    pub site: Option<String>,
    /// `node.data-dir`
    pub data_dir: Option<PathBuf>,
    /// `node.listen`
    pub listen: Option<String>,
    /// `node.advertise`
    pub advertise: Option<String>,
    /// `node.http`
    pub http: Option<String>,
    /// `robot.tags`
    pub tags: Vec<String>,
    /// `robot.slots`
    pub slots: Option<u32>,
    /// `robot.allow`
    pub allow: Option<RobotAllow>,
    /// `store.reserve-bytes`
    pub reserve_bytes: Option<u64>,
    /// `store.cache-bytes`
    pub cache_bytes: Option<u64>,
    /// `jobs.keep-days`
    pub keep_days: Option<u64>,
    /// `actors.links`
    pub actor_links: Option<bool>,
    /// `log.level`
    pub log_level: Option<String>,
    /// `log.format`
    pub log_format: Option<LogFormat>,
    /// `stop.grace-ms`
    pub grace: Option<Duration>,
    /// What is wrong with the file. Told together with what is wrong with flags, by whoever resolves both.
    pub problems: Vec<String>,
}

/// Reads the file at `path`. Every mistake in it is in [`FileConfig::problems`].
///
/// # Errors
/// `InvalidInput` if it is not YAML at all.
pub fn parse_file(path: &Path, text: &str) -> Result<FileConfig, Error> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, format!("read configuration {}: {error}", path.display())).with_next_step(
            "Compare the file with config/fleetd.yaml, which names every key with its unit and default.",
        )
    })?;
    let mut problems = Vec::new();
    let config = read_document(value, &mut problems);
    let problems = problems.into_iter().map(|problem| format!("{}: {problem}", path.display())).collect();
    Ok(FileConfig { problems, ..config })
}

fn read_document(value: Value, problems: &mut Vec<String>) -> FileConfig {
    let mut config = FileConfig::default();
    let mut top = Section::new("", value, problems);
    let mut fleet = top.section("fleet");
    config.seeds = fleet.strings("seeds");
    config.token_file = fleet.string("token-file").map(PathBuf::from);
    fleet.finish();
    let mut node = top.section("node");
    config.name = node.string("name");
    config.site = node.string("site");
    config.data_dir = node.string("data-dir").map(PathBuf::from);
    config.listen = node.string("listen");
    config.advertise = node.string("advertise");
    config.http = node.string("http");
    node.finish();
    let mut robot = top.section("robot");
    config.tags = robot.strings("tags");
    config.slots =
        robot.number("slots", 1, u64::from(fleet_core::limits::SLOTS_MAX)).and_then(|slots| u32::try_from(slots).ok());
    if robot.has("allow") {
        let mut allow = robot.section("allow");
        config.allow = Some(RobotAllow {
            http: allow.strings("http"),
            shell: allow.boolean("shell").unwrap_or(false),
            script: allow.strings_of("script", &["python", "js"]),
            container: allow.never_yet("container"),
        });
        allow.finish();
    }
    robot.finish();
    let mut store = top.section("store");
    config.reserve_bytes = store.number("reserve-bytes", 0, u64::MAX);
    config.cache_bytes = store.number("cache-bytes", 1 << 20, 1 << 40);
    store.finish();
    let mut jobs = top.section("jobs");
    config.keep_days = jobs.number("keep-days", KEEP_DAYS_MIN, 36_500);
    jobs.finish();
    let mut actors = top.section("actors");
    config.actor_links = actors.boolean("links");
    actors.finish();
    let mut log = top.section("log");
    config.log_level = log.string("level");
    config.log_format = log.strings_of_one("format", &["text", "json"]).map(|format| LogFormat::from_word(&format));
    log.finish();
    let mut stop = top.section("stop");
    config.grace = stop.number("grace-ms", 0, 3_600_000).map(Duration::from_millis);
    stop.finish();
    top.finish();
    config
}

/// A mapping of the file while its keys are taken out one by one.
struct Section<'a> {
    path: String,
    left: Map<String, Value>,
    problems: &'a mut Vec<String>,
}

impl<'a> Section<'a> {
    fn new(path: &str, value: Value, problems: &'a mut Vec<String>) -> Self {
        let left = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => {
                let place = if path.is_empty() { "the file" } else { path };
                problems.push(format!("{place}: expected a mapping, found {}", kind_of(&other)));
                Map::new()
            }
        };
        Self { path: path.to_owned(), left, problems }
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn has(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|value| !value.is_null())
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|value| !value.is_null())
    }

    fn section(&mut self, name: &str) -> Section<'_> {
        let value = self.take(name).unwrap_or(Value::Null);
        let path = self.key(name);
        Section::new(&path, value, self.problems)
    }

    fn refuse<T>(&mut self, name: &str, expected: &str, found: &Value) -> Option<T> {
        let key = self.key(name);
        self.problems.push(format!("{key}: expected {expected}, found {}", kind_of(found)));
        None
    }

    fn string(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => self.refuse(name, "text", &other),
        }
    }

    fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(value) => Some(value),
            other => self.refuse(name, "true or false", &other),
        }
    }

    /// A switch for what this version does not have: only `false` is taken.
    fn never_yet(&mut self, name: &str) -> bool {
        if self.boolean(name) == Some(true) {
            let key = self.key(name);
            self.problems.push(format!("{key}: not there yet in this version; use false"));
        }
        false
    }

    fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.take(name)?;
        match value.as_u64() {
            Some(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                let key = self.key(name);
                self.problems.push(format!("{key}: expected a whole number from {min} to {max}, found {value}"));
                None
            }
        }
    }

    fn strings(&mut self, name: &str) -> Vec<String> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Value::Array(items) = value else {
            let none: Option<()> = self.refuse(name, "a list of texts", &value);
            return none.map(|()| Vec::new()).unwrap_or_default();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Value::String(text) => texts.push(text),
                other => {
                    let _: Option<()> = self.refuse(name, "a list of texts", &other);
                }
            }
        }
        texts
    }

    fn strings_of(&mut self, name: &str, allowed: &[&str]) -> Vec<String> {
        let texts = self.strings(name);
        for text in texts.iter().filter(|text| !allowed.contains(&text.as_str())) {
            self.problems.push(format!("{}: `{text}` is none of {}", self.key(name), allowed.join(", ")));
        }
        texts
    }

    fn strings_of_one(&mut self, name: &str, allowed: &[&str]) -> Option<String> {
        let text = self.string(name)?;
        if !allowed.contains(&text.as_str()) {
            self.problems.push(format!("{}: `{text}` is none of {}", self.key(name), allowed.join(", ")));
            return None;
        }
        Some(text)
    }

    fn finish(self) {
        for name in self.left.keys() {
            self.problems.push(format!("{}: unknown key", self.key(name)));
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileConfig, String> {
        let config = parse_file(Path::new("fleetd.yaml"), text).map_err(|error| error.message)?;
        if config.problems.is_empty() { Ok(config) } else { Err(config.problems.join("; ")) }
    }

    #[test]
    fn the_reference_file_is_valid_and_holds_the_defaults() {
        let config = parse(include_str!("../../../../config/fleetd.yaml")).expect("the reference file is valid");
        assert_eq!(config.site, None, "a site here would be taken for the wish of a joiner");
        assert_eq!(config.listen.as_deref(), Some("0.0.0.0:7000"));
        assert_eq!(config.reserve_bytes, Some(fleet_core::limits::STORE_RESERVE_BYTES));
        assert_eq!(config.allow, Some(RobotAllow::default()));
        assert_eq!(config.grace, Some(Duration::from_secs(10)));
        assert_eq!(config.keep_days, Some(KEEP_DAYS_MIN));
        assert_eq!(config.actor_links, Some(true));
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let message =
            parse("node: {nmae: a, listen: 7}\nrobot: {slots: 0, allow: {script: [perl]}}\nlgo: {}\n").unwrap_err();
        for part in ["node.nmae: unknown key", "node.listen: expected text", "robot.slots", "perl", "lgo: unknown key"]
        {
            assert!(message.contains(part), "{part} is missing in {message}");
        }
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(parse(""), Ok(FileConfig::default()));
    }
}
