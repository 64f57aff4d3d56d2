//! The resolved settings of a node: a pure function of flags, file and host facts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fleet_core::{Error, ErrorKind, SiteName, limits};
use fleet_node::placement::HOST_WORD;

use super::file::FileConfig;
use super::host::HostFacts;
use super::places::Places;

/// Characters that a message shows of a text that is refused.
const SHOWN_MAX: usize = 80;

/// Most patterns of hosts that placement is told: each heartbeat carries them.
const HOSTS_TOLD_MAX: usize = 64;
/// Longest of their words, bytes: the longest name that DNS knows, and what stands before it.
const HOST_WORD_BYTES_MAX: usize = 253 + HOST_WORD.len() + 2;

/// Flags of `start`, `join` and `dev`; each has a `FLEET_*` variable.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeFlags {
    /// Development fleet: loopback only, no tokens, no credentials, everything allowed.
    #[arg(long, env = "FLEET_DEV")]
    pub dev: bool,
    /// Name of the node [default: the host name].
    #[arg(long, env = "FLEET_NAME")]
    pub name: Option<String>,
    /// Site of the node; `join` founds it if there is none [default: `default`; with `join` that of the seed].
    #[arg(long, env = "FLEET_SITE")]
    pub site: Option<String>,
    /// Where everything is kept [default: /var/lib/fleet as root, else ~/.local/share/fleet].
    #[arg(long, env = "FLEET_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for gRPC and gossip [default: 0.0.0.0:7000; 127.0.0.1:7000 with --dev].
    #[arg(long, env = "FLEET_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Where other nodes reach it [default: the listen address].
    #[arg(long, env = "FLEET_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Address for health and metrics [default: 0.0.0.0:8000; 127.0.0.1:8000 with --dev].
    #[arg(long, env = "FLEET_HTTP", value_name = "ADDRESS:PORT")]
    pub http: Option<String>,
    /// Tag that workflows can ask for (repeatable).
    #[arg(long = "tag", env = "FLEET_TAG", value_delimiter = ',', value_name = "TAG")]
    pub tags: Vec<String>,
    /// Jobs that may run at once [default: twice the cores].
    #[arg(long, env = "FLEET_SLOTS", value_name = "N")]
    pub slots: Option<u32>,
    /// Configuration file [default: /etc/fleet/fleetd.yaml if present].
    #[arg(long, env = "FLEET_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log level or directives [default: info].
    #[arg(long, env = "FLEET_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Log format: text or json [default: text].
    #[arg(long, env = "FLEET_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Stop when standard input closes: for processes that own this one.
    #[arg(long, hide = true)]
    pub stop_on_stdin_close: bool,
}

/// What jobs may do on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RobotAllow {
    /// Hosts for `call: http`: exact names, `*.suffix`, or `*`.
    pub http: Vec<String>,
    /// `run: shell`.
    pub shell: bool,
    /// Languages for `run: script`.
    pub script: Vec<String>,
    /// `run: container`.
    pub container: bool,
}

impl Default for RobotAllow {
    fn default() -> Self {
        Self { http: vec!["*".to_owned()], shell: false, script: Vec::new(), container: false }
    }
}

impl RobotAllow {
    /// Everything, as in a development fleet.
    pub fn everything() -> Self {
        Self {
            http: vec!["*".to_owned()],
            shell: true,
            script: vec!["python".to_owned(), "js".to_owned()],
            container: true,
        }
    }

    /// The capability words that placement matches: `http`, `shell`, `script:python`, `script:js`.
    pub fn capabilities(&self) -> Vec<String> {
        let mut words: Vec<String> = self.script.iter().map(|language| format!("script:{language}")).collect();
        if !self.http.is_empty() {
            words.push("http".to_owned());
        }
        if self.shell {
            words.push("shell".to_owned());
        }
        words.sort();
        words.dedup();
        words
    }

    /// What placement and other sites may count on: the capabilities, and the hosts as far as they are told. Sorted.
    pub fn words(&self) -> Vec<String> {
        let mut words = [self.capabilities(), self.host_words()].concat();
        words.sort();
        words.dedup();
        words
    }

    /// What a joiner says of them: without the hosts where a seed would find them too many or too long. Its robot tells
    /// all of them as soon as it is linked.
    pub fn words_to_join_with(&self) -> Vec<String> {
        let words = self.words();
        let fit = words.len() <= limits::TAGS_MAX && words.iter().all(|word| is_plain(word, limits::TAG_BYTES_MAX));
        if fit { words } else { self.capabilities() }
    }

    /// A capability word for each pattern of hosts; none where they are more or longer than placement is told: then a job
    /// comes here whatever hosts it names, and the robot judges each call as it does anyway.
    pub fn host_words(&self) -> Vec<String> {
        let words: Vec<String> = self.http.iter().map(|pattern| format!("{HOST_WORD}{pattern}")).collect();
        let fit = words.len() <= HOSTS_TOLD_MAX && words.iter().all(|word| is_plain(word, HOST_WORD_BYTES_MAX));
        if fit { words } else { Vec::new() }
    }
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The format named `word`; text for anything but `json`.
    pub fn from_word(word: &str) -> Self {
        if word == "json" { Self::Json } else { Self::Text }
    }
}

/// Everything a node needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Development fleet.
    pub dev: bool,
    /// Name of the node.
    pub name: String,
    /// Site of the node.
    pub site: Option<SiteName>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Address for gRPC and gossip.
    pub listen: SocketAddr,
    /// `host:port` that others use; `None`: the address used towards the seed or of the default route.
    pub advertise: Option<String>,
    /// Address for health and metrics.
    pub http: SocketAddr,
    /// Tags of the robot.
    pub tags: Vec<String>,
    /// Slots of the robot.
    pub slots: u32,
    /// What jobs may do here.
    pub allow: RobotAllow,
    /// Free space below which new work is refused, bytes.
    pub reserve_bytes: u64,
    /// Memory for cached pages of the store, bytes.
    pub cache_bytes: u64,
    /// Whether this node keeps actor links to others.
    pub actor_links: bool,
    /// Log level or directives.
    pub log_level: String,
    /// Log format.
    pub log_format: LogFormat,
    /// How long running jobs may take when told to stop.
    pub grace: Duration,
    /// How long ended jobs are kept.
    pub ended_jobs_kept: Duration,
    /// Nodes to join by; empty means found a fleet.
    pub seeds: Vec<String>,
    /// File with a join token.
    pub token_file: Option<PathBuf>,
    /// Stop when standard input closes.
    pub stop_on_stdin_close: bool,
}

impl Settings {
    /// Flags over file over defaults.
    ///
    /// # Errors
    /// `InvalidInput` that names every value that is wrong.
    pub fn resolve(flags: &NodeFlags, file: FileConfig, host: &HostFacts) -> Result<Self, Error> {
        let mut problems = file.problems.clone();
        let places = Places::of(flags, &file);
        let default_host = if flags.dev { "127.0.0.1" } else { "0.0.0.0" };
        let listen = flags.listen.clone().or(file.listen).unwrap_or_else(|| format!("{default_host}:7000"));
        let http = flags.http.clone().or(file.http).unwrap_or_else(|| format!("{default_host}:8000"));
        let site = flags.site.clone().or(file.site);
        let tags = if flags.tags.is_empty() { file.tags } else { flags.tags.clone() };
        let slots = flags.slots.or(file.slots);
        let settings = Self {
            dev: flags.dev,
            name: flags.name.clone().or(file.name).unwrap_or_else(|| host.name.clone()),
            // Nothing that is a site name needs an escape, so this is wrong only where the text itself is.
            site: site.and_then(|site| {
                let wrong = |problem: String| problems.push(format!("{}: {problem}", places.site));
                shown(&site).parse().map_err(wrong).ok()
            }),
            data_dir: flags.data_dir.clone().or(file.data_dir).unwrap_or_else(|| default_data_dir(host)),
            listen: parse_address(&places.listen, &listen, &mut problems),
            advertise: flags.advertise.clone().or(file.advertise),
            http: parse_address(&places.http, &http, &mut problems),
            tags,
            slots: slots.unwrap_or(host.cores.saturating_mul(2).min(limits::SLOTS_MAX)),
            allow: if flags.dev { RobotAllow::everything() } else { file.allow.unwrap_or_default() },
            reserve_bytes: file.reserve_bytes.unwrap_or(limits::STORE_RESERVE_BYTES),
            cache_bytes: file.cache_bytes.unwrap_or(64 << 20),
            actor_links: file.actor_links.unwrap_or(true),
            log_level: flags.log_level.clone().or(file.log_level).unwrap_or_else(|| "info".to_owned()),
            log_format: flags.log_format.as_deref().map(LogFormat::from_word).or(file.log_format).unwrap_or_default(),
            ended_jobs_kept: file
                .keep_days
                .map_or(limits::ENDED_JOBS_KEPT, |days| Duration::from_secs(days * 24 * 60 * 60)),
            grace: file.grace.unwrap_or(Duration::from_secs(10)),
            seeds: file.seeds,
            token_file: file.token_file,
            stop_on_stdin_close: flags.stop_on_stdin_close,
        };
        settings.check(&places, &mut problems);
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(Error::new(ErrorKind::InvalidInput, format!("read the settings: {}", problems.join("; ")))
                .with_next_step("See `fleetd start --help` and config/fleetd.yaml."))
        }
    }

    /// What every node would refuse of a joiner is refused here too: a founder asks nobody.
    fn check(&self, places: &Places, problems: &mut Vec<String>) {
        let bound = limits::TAG_BYTES_MAX;
        let plain = format!("must have 1 to {bound} bytes and no control characters");
        if !is_plain(&self.name, bound) {
            problems.push(format!("{}: `{}` {plain}", places.name, shown(&self.name)));
        }
        if self.tags.len() > limits::TAGS_MAX {
            problems.push(format!("{}: {} are too many, at most {}", places.tags, self.tags.len(), limits::TAGS_MAX));
        }
        for tag in self.tags.iter().filter(|tag| !is_plain(tag, bound)) {
            problems.push(format!("{}: `{}` {plain}", places.tags, shown(tag)));
        }
        if self.slots == 0 || self.slots > limits::SLOTS_MAX {
            problems.push(format!("{}: must be 1 to {}", places.slots, limits::SLOTS_MAX));
        }
        if let Some(advertise) = &self.advertise
            && !(is_host_port(advertise) && is_plain(advertise, limits::ADDRESS_BYTES_MAX))
        {
            problems.push(format!("{}: `{}` is not host:port", places.advertise, shown(advertise)));
        }
        for seed in self.seeds.iter().filter(|seed| !is_host_port(seed)) {
            problems.push(format!("the file's fleet.seeds: `{}` is not host:port", shown(seed)));
        }
        for (place, address) in [(&places.listen, self.listen), (&places.http, self.http)] {
            if self.dev && !address.ip().is_loopback() {
                problems.push(format!("{place}: a development fleet listens on loopback only, not on {address}"));
            }
        }
    }
}

fn default_data_dir(host: &HostFacts) -> PathBuf {
    match &host.home {
        Some(home) if !host.is_root => home.join(".local/share/fleet"),
        _ => PathBuf::from("/var/lib/fleet"),
    }
}

fn parse_address(place: &str, text: &str, problems: &mut Vec<String>) -> SocketAddr {
    text.parse().unwrap_or_else(|_| {
        problems.push(format!("{place}: `{}` is not address:port, such as 0.0.0.0:7000", shown(text)));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

/// A refused text on a terminal: as much as is needed to find it, and nothing that moves the cursor.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect()
}

/// Whether `text` has 1 to `bytes_max` bytes that can stand in one line of a table or a log.
pub(crate) fn is_plain(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.contains(char::is_control)
}

/// Whether `text` is `host:port` with a port from 1.
pub(crate) fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn host() -> HostFacts {
        HostFacts {
            name: "box".to_owned(),
            cores: 4,
            is_root: false,
            home: Some(PathBuf::from("/home/ada")),
            route: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    #[test]
    fn placement_is_told_of_hosts_only_if_they_are_few_and_short() {
        let told = |http: Vec<String>| RobotAllow { http, ..RobotAllow::default() }.host_words().len();
        let many = |count: usize| (0..count).map(|number| format!("h{number}.example")).collect::<Vec<_>>();
        assert_eq!(RobotAllow::everything().host_words(), ["http:*"]);
        assert_eq!((told(many(64)), told(many(65)), told(Vec::new())), (64, 0, 0));
        assert_eq!(told(vec!["x".repeat(300), "y.example".to_owned()]), 0);
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = FileConfig { name: Some("file".to_owned()), slots: Some(3), ..FileConfig::default() };
        let flags = NodeFlags { name: Some("flag".to_owned()), ..NodeFlags::default() };
        let settings = Settings::resolve(&flags, file, &host()).expect("these are valid");
        assert_eq!((settings.name.as_str(), settings.slots), ("flag", 3));
        assert_eq!(settings.listen.to_string(), "0.0.0.0:7000");
        assert_eq!(settings.data_dir, PathBuf::from("/home/ada/.local/share/fleet"));
        assert_eq!(settings.allow, RobotAllow::default());
        assert!(settings.actor_links);
        let file = FileConfig { actor_links: Some(false), ..FileConfig::default() };
        assert!(!Settings::resolve(&flags, file, &host()).expect("these are valid").actor_links);
    }

    #[test]
    fn a_development_fleet_stays_on_loopback() {
        let flags = NodeFlags { dev: true, listen: Some("0.0.0.0:7000".to_owned()), ..NodeFlags::default() };
        let error = Settings::resolve(&flags, FileConfig::default(), &host()).expect_err("not loopback");
        assert!(error.message.contains("loopback only"), "{error}");
        let flags = NodeFlags { dev: true, ..NodeFlags::default() };
        let settings = Settings::resolve(&flags, FileConfig::default(), &host()).expect("defaults are loopback");
        assert!(settings.listen.ip().is_loopback() && settings.allow.shell);
    }

    #[test]
    fn all_wrong_values_are_named_together() {
        let flags = NodeFlags {
            listen: Some("nowhere".to_owned()),
            site: Some("No Site".to_owned()),
            advertise: Some("host".to_owned()),
            slots: Some(0),
            ..NodeFlags::default()
        };
        let message = Settings::resolve(&flags, FileConfig::default(), &host()).expect_err("all wrong").message;
        for part in ["--listen or FLEET_LISTEN:", "--site or", "--advertise or", "--slots or"] {
            assert!(message.contains(part), "{part} is missing in {message}");
        }
    }

    /// What a joiner would be refused for: here it stands in flags, there in a file, and once on the machine itself.
    #[test]
    fn what_no_node_would_let_join_does_not_start_either() {
        let long = "t".repeat(limits::TAG_BYTES_MAX + 1);
        let rows = [
            ("name", "a\u{1b}[2Jb", r"`a\u{1b}[2Jb` must have 1 to 63 bytes and no control characters"),
            ("name", "", "`` must have 1 to 63 bytes"),
            ("name", &long, "must have 1 to 63 bytes"),
            ("site", "a\nb", r"`a\nb` is not a site name"),
            ("tag", "gpu\r", r"`gpu\r` must have 1 to 63 bytes and no control characters"),
            ("tag", "", "`` must have 1 to 63 bytes"),
            ("tag", &long, "must have 1 to 63 bytes"),
            ("advertise", "ho\tst:7000", r"`ho\tst:7000` is not host:port"),
        ];
        let refused = |flags: &NodeFlags, file, host: &HostFacts| {
            Settings::resolve(flags, file, host).expect_err("every row is wrong").message
        };
        for (what, text, complaint) in rows {
            let (mut flags, mut file) = (NodeFlags::default(), FileConfig::default());
            let (flag, key) = match what {
                "name" => (&mut flags.name, &mut file.name),
                "site" => (&mut flags.site, &mut file.site),
                "advertise" => (&mut flags.advertise, &mut file.advertise),
                _ => (&mut None, &mut None),
            };
            (*flag, *key) = (Some(text.to_owned()), Some(text.to_owned()));
            if what == "tag" {
                (flags.tags, file.tags) = (vec![text.to_owned()], vec!["good".to_owned(), text.to_owned()]);
            }
            let message = refused(&flags, FileConfig::default(), &host());
            let place = format!("--{what} or FLEET_{}: ", what.to_uppercase());
            assert!(message.contains(&place) && message.contains(complaint), "{what} `{text}`: {message}");
            let message = refused(&NodeFlags::default(), file, &host());
            let place = if what == "tag" { "robot.tags: ".to_owned() } else { format!("node.{what}: ") };
            assert!(message.contains(&place) && message.contains(complaint), "{what} `{text}`: {message}");
            assert!(!message.contains(char::is_control), "{message:?}");
        }
        let named_oddly = HostFacts { name: "a\u{7}".to_owned(), ..host() };
        assert!(refused(&NodeFlags::default(), FileConfig::default(), &named_oddly).contains("node.name as it is"));
        let too_many = NodeFlags { slots: Some(limits::SLOTS_MAX + 1), ..NodeFlags::default() };
        assert!(refused(&too_many, FileConfig::default(), &host()).contains("--slots or FLEET_SLOTS: must be 1 to"));
    }

    #[test]
    fn mistakes_of_the_file_and_of_flags_are_named_together() {
        let file =
            crate::config::parse_file(std::path::Path::new("f.yaml"), "node: {nmae: a}\nrobot: {tags: [\"a\\tb\"]}\n");
        let flags = NodeFlags { site: Some("No Site".to_owned()), ..NodeFlags::default() };
        let message = Settings::resolve(&flags, file.expect("it is YAML"), &host()).expect_err("all wrong").message;
        for part in ["f.yaml: node.nmae: unknown key", r"the file's robot.tags: `a\tb`", "--site or FLEET_SITE: "] {
            assert!(message.contains(part), "{part} is missing in {message}");
        }
    }
}
