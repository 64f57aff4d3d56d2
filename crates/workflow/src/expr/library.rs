//! The functions that expressions may call: jaq's own, less those that reach outside, and ours.
//!
//! Absent on purpose: `env`, `halt`, `debug`, `stderr`, `input`, and everything that reads the local time zone.
//! An expression is compiled with the definitions it needs and no others: most need none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use jaq_core::load::parse::Def;
use jaq_core::native::Fun;

use super::instrument::{Instrument, Origin};
use super::natives::{self, Kind, TICK};

/// Definitions and functions of jaq that reach outside, or that ours replace.
const REMOVED: [&str; 19] = [
    "stderr",
    "debug",
    "halt",
    "halt_error",
    "env",
    "debug_empty",
    "stderr_empty",
    "strflocaltime",
    "localtime",
    "type",
    "isnan",
    "add",
    "join",
    "from_entries",
    "matches",
    "split_matches",
    "split_",
    "now",
    "input",
];

/// Ours, in jq. They come after jaq's, so they may call them.
const DEFINITIONS: &str = r#"
def add(f): [f] | add;
def from_entries: reduce (.[] | {
  (if type != "object" then error("cannot use \(.) as an entry")
   elif has("key") then .key elif has("k") then .k elif has("name") then .name
   elif has("Name") then .Name elif has("Key") then .Key else .K end
   | if type == "string" then . elif . == null then "null" else tojson end):
  (if has("value") then .value elif has("v") then .v else .Value end)
}) as $x ({}; . + $x);
def with_entries(f): to_entries | map(f) | from_entries;
def totype(p; e): if p then . else fromjson | if p then . else e end end;
def tonumber: totype(isnumber; error("cannot parse as a number"));
def toboolean: totype(isboolean; error("cannot parse as a boolean"));
def transpose: [range([.[] | length] | max) as $i | [.[][$i]]];
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def index($i): indices($i)[0];
def rindex($i): indices($i)[-1];
def leaf_paths: paths(scalars);
def ascii: [.] | implode;
def dateadd(u; n): . + n;
def @json: tojson;
def @csv: map(if type == "string" then "\"" + (split("\"") | join("\"\"")) + "\"" elif . == null then ""
  elif type == "array" or type == "object" then error("\(type) is not valid in a csv row") else tostring end) | join(",");
def @tsv: map(if . == null then "" elif type == "array" or type == "object" then error("\(type) is not valid in a tsv row")
  else tostring | split("\\") | join("\\\\") | split("\t") | join("\\t") | split("\n") | join("\\n")
  | split("\r") | join("\\r") end) | join("\t");
"#;

/// One definition and what it calls.
struct Definition {
    code: Def<&'static str>,
    calls: BTreeSet<(&'static str, usize)>,
    recursive: bool,
}

/// All definitions in order; a later one of the same name and arity is the one that is called.
struct Library {
    definitions: Vec<Definition>,
    latest: BTreeMap<(&'static str, usize), usize>,
    functions: BTreeSet<(&'static str, usize)>,
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let ours = jaq_core::load::parse(DEFINITIONS, |parser| parser.defs()).unwrap_or_default();
        let kept = |definition: &Def<&'static str>| !REMOVED.contains(&definition.name);
        let all = jaq_core::defs().chain(jaq_std::defs()).filter(kept).chain(ours);
        let mut definitions = Vec::new();
        let mut latest = BTreeMap::new();
        for definition in all {
            let mut instrument = Instrument::new(Origin::Library);
            let signature = (definition.name, definition.args.len());
            if let Ok(code) = instrument.definition(definition) {
                latest.insert(signature, definitions.len());
                let Instrument { called: calls, recursive, .. } = instrument;
                definitions.push(Definition { code, calls, recursive });
            }
        }
        let functions = all_functions().map(|(name, arguments, _)| (name, arguments.len())).collect();
        Library { definitions, latest, functions }
    })
}

fn all_functions() -> impl Iterator<Item = Fun<Kind>> {
    let kept = |function: &Fun<Kind>| !REMOVED.contains(&function.0);
    let theirs = jaq_core::funs().chain(jaq_std::funs()).filter(kept);
    natives::functions().into_iter().chain(theirs)
}

/// Whether a function of this name and arity exists.
pub(super) fn knows(signature: (&str, usize)) -> bool {
    let library = library();
    library.latest.keys().chain(&library.functions).any(|known| *known == signature)
}

/// The arities under which a name is known.
pub(super) fn arities(name: &str) -> BTreeSet<usize> {
    let library = library();
    let known = library.latest.keys().chain(&library.functions);
    known.filter(|(known, _)| *known == name).map(|(_, arity)| *arity).collect()
}

/// What a program needs to be compiled.
pub(super) struct Needed {
    pub(super) definitions: Vec<Def<&'static str>>,
    pub(super) functions: Vec<Fun<Kind>>,
    /// Whether one of the definitions calls itself.
    pub(super) recursive: bool,
}

/// What a program needs that calls these functions.
pub(super) fn needed(called: &BTreeSet<(&str, usize)>) -> Needed {
    let library = library();
    let mut wanted: Vec<(&str, usize)> = called.iter().copied().collect();
    let mut chosen = BTreeSet::new();
    let mut names: BTreeSet<(&str, usize)> = BTreeSet::new();
    while let Some(signature) = wanted.pop() {
        if !names.insert(signature) {
            continue;
        }
        if let Some(index) = library.latest.get(&signature) {
            chosen.insert(*index);
            wanted.extend(library.definitions[*index].calls.iter().copied());
        }
    }
    let recursive = chosen.iter().any(|index| library.definitions[*index].recursive);
    let definitions = chosen.into_iter().map(|index| library.definitions[index].code.clone()).collect();
    names.insert((TICK, 0));
    let functions = all_functions().filter(|(name, arguments, _)| names.contains(&(*name, arguments.len()))).collect();
    Needed { definitions, functions, recursive }
}
