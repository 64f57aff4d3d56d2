//! The options of a bench, after `--`. Unknown ones are refused, so that a typing error does not run for minutes.

/// What to measure and how to say it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--json`: one line of JSON a figure.
    pub json: bool,
    /// `--only PART`: only figures with PART in their name.
    pub only: Option<String>,
    /// `--nodes N`: only fleets of N nodes.
    pub nodes: Option<usize>,
    /// `--clients N`: only figures of N clients.
    pub clients: Option<usize>,
    /// `--rounds N`: kills or starts behind a median.
    pub rounds: Option<usize>,
    /// `--jobs N`: jobs of a backlog.
    pub jobs: Option<usize>,
}

impl Options {
    /// Those of this process; ends it with exit code 2 if they make no sense.
    pub fn of_process() -> Self {
        match Self::parse(std::env::args().skip(1)) {
            Ok(options) => options,
            Err(message) => {
                eprintln!("{message}\noptions: --json --only PART --nodes N --clients N --rounds N --jobs N");
                std::process::exit(2);
            }
        }
    }

    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut options, mut arguments) = (Self::default(), arguments);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                // Cargo says this to every bench it runs.
                "--bench" => {}
                "--json" => options.json = true,
                "--only" => options.only = Some(value()?),
                "--nodes" => options.nodes = Some(number(&value()?)?),
                "--clients" => options.clients = Some(number(&value()?)?),
                "--rounds" => options.rounds = Some(number(&value()?)?),
                "--jobs" => options.jobs = Some(number(&value()?)?),
                _ => return Err(format!("unknown option {argument}")),
            }
        }
        Ok(options)
    }

    /// Whether the figure `name` was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }

    /// Whether any of `names` was asked for.
    pub fn wants_any(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// Whether fleets of `nodes` were asked for.
    pub fn wants_nodes(&self, nodes: usize) -> bool {
        self.nodes.is_none_or(|only| only == nodes)
    }

    /// Whether figures of `clients` were asked for.
    pub fn wants_clients(&self, clients: usize) -> bool {
        self.clients.is_none_or(|only| only == clients)
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("`{text}` is not a number above zero"))
}
