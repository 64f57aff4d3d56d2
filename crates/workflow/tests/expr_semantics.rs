//! What expressions give: a table of programs, inputs and results.

use fleet_workflow::expr::{self, Program, Scope, Template, Val};
use proptest::prelude::{ProptestConfig, proptest};
use serde_json::{Value, json};

fn evaluate(text: &str, input: &Value) -> Result<Value, String> {
    let program = Program::compile(text, &["input", "context"])?;
    let variable = |name: &str| match name {
        "input" => Val::from(json!({"petId": 7})),
        _ => Val::Null,
    };
    program.evaluate(&Val::from(input), &variable, 1_700_000_000_500).map(|value| value.to_json())
}

fn check(text: &str, input: Value, expected: Value) {
    assert_eq!(evaluate(text, &input), Ok(expected), "{text} on {input}");
}

#[test]
fn programs_give_what_jq_gives() {
    check(".", json!({"a": 1}), json!({"a": 1}));
    check(".a.b", json!({"a": {"b": 2}}), json!(2));
    check(".a.b.c", json!({}), Value::Null);
    check("$input.petId", json!(null), json!(7));
    check("{ ids: [ $input.petId, .id ] }", json!({"id": 2}), json!({"ids": [7, 2]}));
    check(".colors + [\"red\"]", json!({}), json!(["red"]));
    check(".processed.colors + [1]", json!(null), json!([1]));
    check(". | length", json!([1, 2]), json!(2));
    check(".[0]", json!([{"x": 1}]), json!({"x": 1}));
    check(".[-1], .[0]", json!([1, 2]), json!(2));
    check("empty", json!(1), Value::Null);
    check("[.[] | select(. > 1) | . * 2]", json!([1, 2, 3]), json!([4, 6]));
    check("map(.a) | add", json!([{"a": 1}, {"a": 2}]), json!(3));
    check("add", json!(["a", "b"]), json!("ab"));
    check("add", json!([]), Value::Null);
    check("join(\", \")", json!(["a", 1, null, true]), json!("a, 1, , true"));
    check("\"Hello \\(.name)!\"", json!({"name": "World"}), json!("Hello World!"));
    check("to_entries", json!({"a": 1}), json!([{"key": "a", "value": 1}]));
    check("with_entries(.value += 1)", json!({"a": 1}), json!({"a": 2}));
    check("from_entries", json!([{"name": "a", "value": 1}, {"k": 2, "v": 3}]), json!({"a": 1, "2": 3}));
    check("keys", json!({"b": 1, "a": 2}), json!(["a", "b"]));
    check("sort_by(.a) | map(.a)", json!([{"a": 2}, {"a": 1}]), json!([1, 2]));
    check("group_by(.a) | map(length)", json!([{"a": 1}, {"a": 2}, {"a": 1}]), json!([2, 1]));
    check("unique", json!([2, 1, 2]), json!([1, 2]));
    check("flatten", json!([1, [2, [3]]]), json!([1, 2, 3]));
    check("[limit(3; repeat(1))]", json!(null), json!([1, 1, 1]));
    check("[recurse(if . < 3 then . + 1 else empty end)]", json!(0), json!([0, 1, 2, 3]));
    check("[.[] | tostring]", json!([1, "a", null, 1.5]), json!(["1", "a", "null", "1.5"]));
    check("tojson | fromjson", json!({"a": [1]}), json!({"a": [1]}));
    check("\"12\" | tonumber", json!(null), json!(12));
    check("test(\"^a+$\")", json!("aaa"), json!(true));
    check("[match(\"(?<x>b)\"; \"g\") | .offset, .captures[0].name]", json!("äbb"), json!([1, "x", 2, "x"]));
    check("sub(\"(?<d>[0-9]+)\"; \"<\\(.d)>\")", json!("a12b"), json!("a<12>b"));
    check("gsub(\"a\"; \"b\")", json!("aXa"), json!("bXb"));
    check("[scan(\"[a-z]+\")]", json!("ab cd"), json!(["ab", "cd"]));
    check("ascii_downcase | ltrimstr(\"x\")", json!("XY"), json!("y"));
    check("split(\",\")", json!("a,b"), json!(["a", "b"]));
    check("@base64 | @base64d", json!("hé"), json!("hé"));
    check("@uri", json!("a b"), json!("a%20b"));
    check("@csv", json!([1, "a\"b", null]), json!("1,\"a\"\"b\","));
    check(".a = 1", json!(null), json!({"a": 1}));
    check(".a.b |= 5", json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 5, "c": 2}}));
    check(".[2] = 1", json!(null), json!([null, null, 1]));
    check("del(.a)", json!({"a": 1, "b": 2}), json!({"b": 2}));
    check("del(.[] | select(. > 1))", json!([1, 2, 3]), json!([1]));
    check("walk(if type == \"number\" then . + 1 else . end)", json!([1, {"a": 2}]), json!([2, {"a": 3}]));
    check("[paths]", json!({"a": [1]}), json!([["a"], ["a", 0]]));
    check("getpath([\"a\", 0])", json!({"a": [5]}), json!(5));
    check("reduce .[] as $x (0; . + $x)", json!([1, 2, 3]), json!(6));
    check("[foreach .[] as $x (0; . + $x; [$x, .])]", json!([1, 2]), json!([[1, 1], [2, 3]]));
    check(". as [$a, {b: $b}] | $a + $b", json!([1, {"b": 2}]), json!(3));
    check("try error(\"x\") catch .", json!(null), json!("x"));
    check(".a?", json!(1), Value::Null);
    check(".[] // \"none\"", json!([null, false]), json!("none"));
    check("def double($x): $x * 2; double(.)", json!(4), json!(8));
    check("if . == null then 1 elif . > 1 then 2 else 3 end", json!(5), json!(2));
    check("label $out | 1, break $out, 2", json!(null), json!(1));
    check("10 / 4, 1", json!(null), json!(2.5));
    check("[10 / 5, 7 % 3, 2 - 3, -(1)]", json!(null), json!([2, 1, -1, -1]));
    check("9223372036854775807 + 1", json!(null), json!(9223372036854775808.0));
    check("{a: 1} * {a: {b: 2}, c: 3}", json!(null), json!({"a": {"b": 2}, "c": 3}));
    check("\"ab\" * 3", json!(null), json!("ababab"));
    check("[1, 2, 3] - [2]", json!(null), json!([1, 3]));
    check(".[1:3]", json!([1, 2, 3, 4]), json!([2, 3]));
    check(".[1:]", json!("äöü"), json!("öü"));
    check(
        "[.[] | type]",
        json!([null, true, 1, "a", [], {}]),
        json!(["null", "boolean", "number", "string", "array", "object"]),
    );
    check("now", json!(null), json!(1700000000.5));
    check("now | todate", json!(null), json!("2023-11-14T22:13:20.5Z"));
    check("\"2023-11-14T22:13:20Z\" | fromdate", json!(null), json!(1700000000));
    check("[splits(\", *\")]", json!("a, b"), json!(["a", "b"]));
    check("any(. > 2), 1", json!([1, 3]), json!(true));
    check("all", json!([true, 1]), json!(true));
    check("[range(0; 10; 3)]", json!(null), json!([0, 3, 6, 9]));
    check("min, 0", json!([3, 1]), json!(1));
    check("max_by(.a) | .a", json!([{"a": 1}, {"a": 3}]), json!(3));
    check("has(\"a\")", json!({"a": null}), json!(true));
    check("index(\"b\")", json!("abcb"), json!(1));
    check("inside([1, 2])", json!([1]), json!(true));
    check("first(.[]), last(.[])", json!([1, 2]), json!(1));
    check("[.[] | isnan]", json!([1]), json!([false]));
    check("infinite | tostring", json!(null), json!("1.7976931348623157e+308"));
    check("nan | tojson", json!(null), json!("null"));
    check("18446744073709551615", json!(null), json!(18446744073709551615.0));
    check(".", json!(18446744073709551615_u64), json!(18446744073709551615_u64));
    check("transpose", json!([[1, 2], [3, 4]]), json!([[1, 3], [2, 4]]));
    check("pick(.a.b)", json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1}}));
    check("limit(1; .[])", json!([4, 5]), json!(4));
    check("until(. > 100; . * 2)", json!(1), json!(128));
    check("[while(. < 5; . + 2)]", json!(1), json!([1, 3]));
    check("ascii", json!(65), json!("A"));
    check("$input | .petId", json!(null), json!(7));
}

#[test]
fn errors_name_what_is_wrong() {
    for (text, expected) in [
        (".a | .b", "cannot index 1 with"),
        ("error(\"boom\")", "boom"),
        ("error({code: 1})", "{\"code\":1}"),
        ("{(1): 2}", "an object key must be a string"),
        ("1 % 0", "cannot calculate 1 % 0"),
        ("\"x\" | test(\"(\")", "invalid regular expression"),
    ] {
        let error = evaluate(text, &json!({"a": 1})).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_cannot_run_is_refused_before_it_runs() {
    for (text, expected) in [
        ("$nothing", "there is no variable `$nothing` here; there are $input, $context"),
        ("env", "there is no function `env`"),
        ("$ENV.PATH", "there is no variable `$ENV`"),
        ("halt", "there is no function `halt`"),
        ("halt_error(1)", "there is no function `halt_error`"),
        ("debug", "there is no function `debug`"),
        ("stderr", "there is no function `stderr`"),
        ("input", "there is no function `input`"),
        ("localtime", "there is no function `localtime`"),
        ("map", "the function `map` takes 1 arguments, not 0"),
        ("def f: f; f", "the function `f` calls itself"),
        ("def f: def g: f; g; f", "the function `f` calls itself"),
        ("def f(g): g | g; f(.)", "must be values"),
        (".a |", "not jq"),
        ("", "not jq"),
        ("import \"a\" as a; .", "not jq"),
        ("whole_expression__", "there is no function"),
    ] {
        let error = expr::check(text, &["input", "context"]).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn strings_are_expressions_only_in_their_braces() {
    let scope = Scope { variable: &|_| Val::Null, now_ms: 0 };
    for (template, input, expected) in [
        (json!("${ .a }"), json!({"a": 1}), json!(1)),
        (json!("  ${ .a }\n"), json!({"a": 1}), json!(1)),
        (json!("Hello ${ .a }!"), json!({"a": "you"}), json!("Hello you!")),
        (json!("${ .a } and ${ .b }"), json!({"a": 1, "b": [2]}), json!("1 and [2]")),
        (json!(".a"), json!({"a": 1}), json!(".a")),
        (json!("${ \"}\" + \"\\(.a)}\" }"), json!({"a": 1}), json!("}1}")),
        (json!("${ {a: {b: .a}} }"), json!({"a": 1}), json!({"a": {"b": 1}})),
        (json!("${ \"a\" # }\n}"), json!(null), json!("a")),
        (json!({"x": ["${ .a }", 1], "y": true}), json!({"a": 2}), json!({"x": [2, 1], "y": true})),
        (json!("$5"), json!(null), json!("$5")),
        (json!("${ .a }"), json!({"a": "${ .b }", "b": 1}), json!("${ .b }")),
    ] {
        let compiled = Template::compile(&template, &[]).unwrap();
        let result = compiled.evaluate(&Val::from(&input), &scope).map(|value| value.to_json());
        assert_eq!(result, Ok(expected), "{template}");
    }
    assert!(Template::compile(&json!("a ${ .b"), &[]).is_err());
}

#[test]
fn code_of_other_languages_keeps_its_own_braces() {
    let scope = Scope { variable: &|_| Val::text("v"), now_ms: 0 };
    for (code, expected) in [
        ("echo ${HOME} ${ .a } ${A:-${B}} $1", "echo ${HOME} 1 ${A:-${B}} $1"),
        ("`${name} ${ $input } ${ x + 1 }`", "`${name} v ${ x + 1 }`"),
        ("${ .a }", "1"),
        ("${", "${"),
    ] {
        let compiled = Template::compile_code(code, &["input"]).unwrap();
        let result = compiled.evaluate(&Val::from(json!({"a": 1})), &scope).unwrap();
        assert_eq!(expr::template::to_text(&result), expected, "{code}");
    }
}

#[test]
fn every_function_of_the_library_compiles() {
    for (name, arities) in [
        ("map", 1),
        ("with_entries", 1),
        ("from_entries", 0),
        ("unique_by", 1),
        ("min_by", 1),
        ("combinations", 0),
        ("combinations", 1),
        ("pick", 1),
        ("todate", 0),
        ("strptime", 1),
        ("strftime", 1),
        ("mktime", 0),
        ("gmtime", 0),
        ("splits", 2),
        ("capture", 2),
        ("sub", 3),
        ("isempty", 1),
        ("nth", 2),
        ("delpaths", 1),
        ("setpath", 2),
        ("leaf_paths", 0),
        ("toboolean", 0),
        ("significand", 0),
        ("logb", 0),
        ("drem", 2),
        ("gamma", 0),
        ("scalb", 2),
        ("in", 1),
        ("rindex", 1),
        ("map_values", 1),
        ("walk", 1),
        ("del", 1),
        ("paths", 1),
        ("min", 0),
        ("max_by", 1),
        ("flatten", 1),
        ("any", 2),
        ("all", 2),
        ("getpath", 1),
        ("tojson", 0),
        ("implode", 0),
        ("explode", 0),
        ("@sh", 0),
        ("@html", 0),
        ("@tsv", 0),
        ("@text", 0),
        ("@json", 0),
        ("@urid", 0),
        ("ceil", 0),
        ("pow", 2),
    ] {
        let arguments = vec!["."; arities].join("; ");
        let text = if arities == 0 { name.to_owned() } else { format!("{name}({arguments})") };
        assert_eq!(expr::check(&text, &[]), Ok(()), "{text}");
    }
}

#[test]
fn a_panic_of_the_engine_is_an_error() {
    for text in ["[2024, 127, 1, 0, 0, 0, 0, 0] | mktime", "[2024, 127, 1, 0, 0, 0, 0, 0] | todate"] {
        assert!(evaluate(text, &Value::Null).is_err(), "{text}");
    }
}

const TOKENS: [&str; 60] = [
    ".",
    "..",
    ".a",
    ".[0]",
    ".[]",
    ".[1:]",
    "|",
    ",",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "<",
    "and",
    "or",
    "not",
    "//",
    "=",
    "|=",
    "+=",
    "?",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "a:",
    "1",
    "-1",
    "1.5",
    "\"s\"",
    "\"\\(.)\"",
    "null",
    "true",
    "$input",
    "as $x |",
    "$x",
    "if",
    "then",
    "else",
    "end",
    "try",
    "catch",
    "reduce",
    "map(.)",
    "select(.)",
    "recurse",
    "keys",
    "length",
    "tostring",
    "sort",
    "add",
    "paths",
    "del(.a)",
    "limit(3; .)",
    "@base64",
    "tojson",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_words_give_a_result_or_an_error_and_the_same_again(words in proptest::collection::vec(0..TOKENS.len(), 1..14)) {
        let text = words.iter().map(|word| TOKENS[*word]).collect::<Vec<_>>().join(" ");
        let input = json!({"a": [1, "b", null, {"c": 2.5}], "x": "y"});
        let first = evaluate(&text, &input);
        assert_eq!(first, evaluate(&text, &input), "{text}");
        assert_ne!(first, Err("the expression engine failed on this expression".to_owned()), "{text}");
    }
}
