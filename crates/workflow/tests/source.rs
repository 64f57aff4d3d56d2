//! Texts to trees: what JSON and YAML mean, where each value stands, and what is refused.

use fleet_workflow::source::{Position, SyntaxError, parse};
use serde_json::{Value, json};

fn value(text: &str) -> Value {
    let tree = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
    assert_eq!(tree.errors, [], "{text:?}");
    tree.root.to_value()
}

fn error(text: &str) -> SyntaxError {
    match parse(text.as_bytes()) {
        Err(error) => error,
        Ok(tree) => tree.errors.into_iter().next().unwrap_or_else(|| panic!("{text:?} is a tree")),
    }
}

#[test]
fn json_means_what_a_strict_reader_says() {
    for text in [
        r#"{"a": "\ud83d\ude00 \u00e9 \"\\\/\b\f\n\r\t", "b": [true, false, null]}"#,
        "{\t\"a\"\t:\t[\t1\t]\t}\r\n",
        r#"{"a": 18446744073709551615, "b": -9223372036854775808, "c": 1.5e-3, "d": 1.0, "e": 0}"#,
        "[]",
        "{}",
        "\u{feff}{\"a\": 1}",
        "  \n {\"ключ\": \"значение\"}",
    ] {
        let plain: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        assert_eq!(value(text), plain, "{text}");
    }
}

#[test]
fn what_is_not_strict_json_is_refused_where_it_goes_wrong() {
    for (text, line, column, part) in [
        ("{\"a\": 1,}", 1, 9, "trailing comma"),
        ("{\"a\": [1, ]}", 1, 11, "trailing comma"),
        ("{\"a\": 01}", 1, 8, "invalid number"),
        ("{\"a\": .5}", 1, 7, "expected value"),
        ("{\"a\": NaN}", 1, 7, "expected"),
        ("{\"a\": 'b'}", 1, 7, "expected value"),
        ("{\"a\"\n: 1 \"b\": 2}", 2, 5, "expected `,` or `}`"),
        ("{\"a\": \"\n\"}", 1, 8, "control character"),
        ("{\"é\": \"\\x\"}", 1, 9, "invalid escape"),
        ("{\"a\": \"\\ud800\"}", 1, 8, "surrogate"),
        ("{\"a\": 1} x", 1, 10, "trailing characters"),
        ("[1, 2", 1, 5, "EOF"),
        ("{\"a\": 1e999}", 1, 7, "out of range"),
        ("{\"a\": /* no */ 1}", 1, 7, "expected value"),
    ] {
        let error = error(text);
        assert_eq!((error.position.line, error.message.contains(part)), (line, true), "{text:?}: {error:?}");
        let near = error.position.column.abs_diff(column);
        assert!(near <= 1, "{text:?}: {error:?}");
    }
}

#[test]
fn yaml_means_what_the_core_schema_says() {
    for (text, expected) in [
        ("a: true", json!({"a": true})),
        ("a: [True, FALSE, tRue]", json!({"a": [true, false, "tRue"]})),
        ("a: [yes, no, on, off, y, n]", json!({"a": ["yes", "no", "on", "off", "y", "n"]})),
        ("on: {any: []}", json!({"on": {"any": []}})),
        ("a: [null, Null, ~, 'null', ]", json!({"a": [null, null, null, "null"]})),
        ("a:\nb: ''", json!({"a": null, "b": ""})),
        ("a: [1, -2, +3, 017, 0o17, 0xFF, 1_000]", json!({"a": [1, -2, 3, 17, 15, 255, "1_000"]})),
        (
            "a: [1.5, .5, 2., 1e3, 1.0.3, 1:30, 12e03, e5, ., +]",
            json!({"a": [1.5, 0.5, 2.0, 1000.0, "1.0.3", "1:30", 12000.0, "e5", ".", "+"]}),
        ),
        ("a: 18446744073709551615", json!({"a": 18_446_744_073_709_551_615_u64})),
        ("a: 2026-01-31", json!({"a": "2026-01-31"})),
        ("a: !!str 5\nb: !!int '7'\nc: ! 5\nd: !!null ''", json!({"a": "5", "b": 7, "c": "5", "d": null})),
        ("a: \"\\u00e9\\t\\x41\"", json!({"a": "é\tA"})),
        ("a: |\n  one\n  two\nb: >-\n  three\n  four", json!({"a": "one\ntwo\n", "b": "three four"})),
        ("5: a\ntrue: b\n~: c", json!({"5": "a", "true": "b", "~": "c"})),
        ("a: &x {b: 1}\nc: *x\nd: [*x, &y 2, *y]", json!({"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, 2, 2]})),
        ("&k key: 1\nother: *k", json!({"key": 1, "other": "key"})),
        ("{a: b, c}", json!({"a": "b", "c": null})),
        ("--- \na: 1\n...", json!({"a": 1})),
        ("%YAML 1.2\n---\na: 1", json!({"a": 1})),
        ("a: ${ .b | length } # a comment", json!({"a": "${ .b | length }"})),
        ("- 1\n-  - 2\n   - 3", json!([1, [2, 3]])),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn every_value_knows_its_line_and_column() {
    let at = |line, column| Position { line, column };
    let yaml = parse("a: 1\nbé:\n  - x\n  -   é: {c: d}\nn:\nm: 'z'\n".as_bytes()).unwrap().root;
    let list = yaml.get("bé").unwrap();
    let fleet_workflow::source::Content::Array(items) = &list.content else { panic!("{list:?}") };
    assert_eq!(yaml.get("a").unwrap().position, at(1, 4));
    assert_eq!(items[0].position, at(3, 5));
    assert_eq!(items[1].get("é").unwrap().position, at(4, 10));
    assert_eq!(items[1].get("é").unwrap().get("c").unwrap().position, at(4, 14));
    assert_eq!(yaml.get("n").unwrap().position, at(5, 1), "nothing stands where its key stands");
    assert_eq!(yaml.get("m").unwrap().position, at(6, 4));
    let json = parse("{\n\t\"é\": {\"b\":\r\n [1, 2]}}".as_bytes()).unwrap().root;
    assert_eq!(json.get("é").unwrap().position, at(2, 7));
    assert_eq!(json.get("é").unwrap().get("b").unwrap().position, at(3, 2));
}

#[test]
fn keys_that_stand_twice_are_all_reported_and_the_first_counts() {
    for text in ["a: {b: 1, c: 2, b: 3, b: 4}\na: 5", r#"{"a": {"b": 1, "c": 2, "b": 3, "b": 4}, "a": 5}"#] {
        let tree = parse(text.as_bytes()).unwrap();
        assert_eq!(tree.root.to_value(), json!({"a": {"b": 1, "c": 2}}));
        let pointers: Vec<&str> = tree.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a/b", "/a/b", "/a"], "{text}");
    }
}

#[test]
fn what_a_workflow_has_no_use_for_in_yaml_is_refused() {
    for (text, pointer, part) in [
        ("a: 1\n---\nb: 2", "", "one YAML document"),
        ("a: {<<: {b: 1}}", "/a", "merge keys"),
        ("a: [1, !mine 2]", "/a/1", "the tag `!mine` is not known"),
        ("a: !!binary aGk=", "/a", "the tag"),
        ("a: !!set {b, c}", "/a", "the tag"),
        ("a: !!int x", "/a", "not a value of the tag"),
        ("[a]: 1", "", ""),
        ("a: &x [*x]", "/a/0", "inside its own anchor"),
        ("a: *x", "/a", "unknown anchor"),
        ("a: [.inf]", "/a/0", "cannot be written in JSON"),
        ("a: .nan", "/a", "cannot be written in JSON"),
        ("a: 1e999", "/a", "out of range"),
        ("a: \"\\ud83d\\ude00\"", "/a", "not valid YAML"),
        ("a: [1", "/a/1", "not valid YAML"),
    ] {
        let error = error(text);
        assert!(error.pointer == pointer && error.message.contains(part), "{text:?}: {error:?}");
    }
    let latin = parse(b"a: caf\xe9\nb: 1").expect_err("not UTF-8");
    assert_eq!(
        (latin.position, latin.message.as_str()),
        (Position { line: 1, column: 7 }, "the file is not UTF-8 text")
    );
}
