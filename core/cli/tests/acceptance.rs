//! Keeps docs/acceptance.md honest: every test of the report's annex is listed once, and every test named exists.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn rows() -> Vec<(String, String)> {
    let list = fs::read_to_string(root().join("docs/acceptance.md")).expect("docs/acceptance.md is there");
    list.lines()
        .filter_map(|line| line.strip_prefix("| 11."))
        .map(|line| {
            let (number, rest) = line.split_once(" | ").expect("a row has three columns");
            (format!("11.{number}"), rest.to_owned())
        })
        .collect()
}

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("sources are text"));
        }
    }
}

#[test]
fn every_test_of_the_annex_is_listed_once_and_in_order() {
    let expected: Vec<String> =
        (1..=21).map(|n| format!("11.1.{n}")).chain((1..=29).map(|n| format!("11.2.{n}"))).collect();
    let listed: Vec<String> = rows().into_iter().map(|(number, _)| number).collect();
    assert_eq!(listed, expected);
}

#[test]
fn every_test_that_is_named_exists() {
    let mut text = String::new();
    for folder in ["core/sim/tests", "core/cli/tests", "core/proto/tests", "core/library/tests"] {
        sources(&root().join(folder), &mut text);
    }
    for (number, row) in rows() {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || row.contains("not "), "{number} names no test and does not say that it is open");
        for name in names {
            assert!(text.contains(&format!("fn {name}()")), "{number} names {name}, which does not exist");
        }
    }
}
