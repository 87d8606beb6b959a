//! JSON documents and exit codes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Air, Node, bbh, folder_with, one_tree, run, tagged_audio, until};

/// The object has these fields and no others.
#[track_caller]
fn has_fields(object: &Value, fields: &[&str]) {
    let found: BTreeSet<_> = object.as_object().unwrap_or_else(|| panic!("no object: {object}")).keys().collect();
    let expected: Vec<_> = fields.iter().map(|field| (*field).to_owned()).collect();
    assert_eq!(found, expected.iter().collect::<BTreeSet<_>>(), "{object}");
}

const DOWNLOAD: [&str; 9] = ["content_id", "name", "path", "size", "verified", "state", "rate", "error", "sources"];
const SHARED: [&str; 8] = ["content_id", "md5", "name", "path", "size", "kind", "tags", "priority"];

#[test]
fn json_documents_have_the_documented_fields() {
    let air = Air::start();
    let (anna, ben) = (air.node("anna", "0,0"), air.node("ben", "-5,0"));
    one_tree(&[&anna, &ben]);

    let status = anna.status();
    has_fields(
        &status,
        &[
            "node_id",
            "name",
            "fingerprint",
            "role",
            "tree_id",
            "parent",
            "children",
            "known_nodes",
            "links",
            "sending",
            "receiving",
            "version",
        ],
    );
    assert_eq!(status["node_id"], anna.id.as_str());
    assert_eq!(status["name"], "anna");
    assert_eq!(status["links"], 1);
    assert!(["tree", "coordinator", "root"].contains(&status["role"].as_str().unwrap()));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));

    let device = until("ben is known", || {
        anna.json(&["devices"]).as_array().unwrap().iter().find(|device| device["name"] == "ben").cloned()
    });
    has_fields(&device, &["node_id", "name", "hops", "via", "direct"]);
    assert_eq!((&device["node_id"], &device["hops"], &device["direct"]), (&json!(ben.id), &json!(1), &json!(true)));

    let settings = anna.json(&["settings"]);
    for key in
        ["search_timeout", "inquiry_interval", "upload_slots", "max_links", "download_dir", "name", "search_mode"]
    {
        assert!(settings.get(key).is_some(), "{key} is not in {settings}");
    }

    let folder = folder_with(air.folder.path(), &[("notes.txt", b"hops")]);
    tagged_audio(&folder.join("a.mp3"), "Rauchbier Live");
    let shared = anna.json(&["share", folder.to_str().unwrap()]);
    assert_eq!(shared.as_array().unwrap().len(), 2);
    for file in shared.as_array().unwrap() {
        has_fields(file, &SHARED);
    }
    let notes = shared.as_array().unwrap().iter().find(|file| file["name"] == "notes.txt").unwrap();
    assert_eq!(notes["md5"], "a6b9236bf6c7a3dfafdbc0709208acc0");
    assert_eq!((&notes["size"], &notes["kind"], &notes["priority"]), (&json!(4), &json!("document"), &json!("normal")));
    assert_eq!(anna.json(&["shared"]).as_array().unwrap().len(), 2);

    let found = ben.find("rauchbier");
    has_fields(&found, &["content_id", "md5", "names", "size", "kind", "tags", "sources"]);
    assert_eq!(found["names"], json!(["a.mp3"]));
    assert_eq!(found["tags"]["album"], "Rauchbier Live");
    let sources = found["sources"].as_array().unwrap();
    assert_eq!(sources.len(), 1);
    has_fields(&sources[0], &["node_id", "queue_position", "hops"]);
    assert_eq!((&sources[0]["node_id"], &sources[0]["hops"]), (&json!(anna.id), &json!(1)));

    let content = found["content_id"].as_str().unwrap();
    let target = air.folder.path().join("target");
    let download = ben.json(&["download", content, "--wait", "--to", target.to_str().unwrap()]);
    has_fields(&download, &DOWNLOAD);
    assert_eq!((&download["state"], &download["verified"]), (&json!("complete"), &found["size"]));
    assert_eq!(download["path"], target.join("a.mp3").to_str().unwrap());
    let downloads = ben.json(&["downloads"]);
    for download in downloads.as_array().unwrap() {
        has_fields(download, &DOWNLOAD);
    }
    assert!(!downloads.as_array().unwrap().is_empty());
}

#[test]
fn settings_are_changed_checked_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path());
    assert_eq!(node.bbh(&["set", "search_timeout", "3.5"]).code, 0);
    assert_eq!(node.bbh(&["set", "search_mode", "any"]).code, 0);
    assert_eq!(node.json(&["settings"])["search_timeout"], 3.5);
    for (key, value) in [("search_timeout", "-1"), ("max_links", "99"), ("colour", "blue")] {
        let refused = node.bbh(&["set", key, value]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(!refused.stderr.is_empty() && refused.stdout.is_empty(), "{refused:?}");
    }
    assert_eq!(node.bbh(&["stop"]).code, 0);
    let node = Node::alone(folder.path());
    let settings = node.json(&["settings"]);
    assert_eq!((&settings["search_timeout"], &settings["search_mode"]), (&json!(3.5), &json!("any")));
}

#[test]
fn an_empty_search_is_wrong_usage_and_no_hit_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path());
    for args in [&["search", ""][..], &["search", "  ", ""], &["search"]] {
        let refused = node.bbh(args);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert_eq!(refused.stdout, "");
    }
    let none = node.bbh(&["search", "unobtainable", "--timeout", "1", "--json"]);
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.as_str()), (0, "[]\n", ""));
    let none = node.bbh(&["search", "unobtainable", "--timeout", "1"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
}

#[test]
fn without_a_node_every_command_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let content = "ab".repeat(32);
    for args in [
        &["status"][..],
        &["devices", "--json"],
        &["move", "-5,0"],
        &["set", "name", "x"],
        &["settings"],
        &["stop"],
        &["share", "."],
        &["unshare", "."],
        &["shared"],
        &["rescan"],
        &["search", "x"],
        &["download", &content],
        &["downloads"],
        &["pause", &content],
        &["cancel", &content],
    ] {
        let refused = run(bbh().args(args).env("BBH_DATA", folder.path()));
        assert_eq!(refused.code, 3, "{args:?}: {refused:?}");
        assert!(refused.stderr.contains("no node is running"), "{refused:?}");
        assert_eq!(refused.stdout, "");
    }
}

#[test]
fn what_a_node_cannot_do_is_a_failure_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path());
    let content = "ab".repeat(32);
    for args in [
        &["move", "-5,0"][..],
        &["pause", &content],
        &["resume", &content],
        &["start", &content],
        &["cancel", &content],
        &["unshare", "/nowhere/at/all"],
        &["ping", "aaaaaaaaaaaaaaaaaaaaaaaaaa"],
    ] {
        let failed = node.bbh(args);
        assert_eq!(failed.code, 1, "{args:?}: {failed:?}");
        assert!(failed.stderr.starts_with("bbh: "), "{failed:?}");
    }
    assert_eq!(node.bbh(&["download", "nonsense"]).code, 2);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_shared() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(&folder.path().join("data"));
    let files = folder_with(folder.path(), &[("good.txt", b"malt")]);
    let outcome = run(node.command(&["share", "--json"]).arg(files.join("good.txt")).arg(files.join("missing.txt")));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.json().as_array().unwrap().len(), 1);
    assert!(outcome.stderr.contains("missing.txt"), "{outcome:?}");

    let id = outcome.json()[0]["content_id"].as_str().unwrap().to_owned();
    assert_eq!(node.bbh(&["unshare", &id]).code, 0);
    assert_eq!(node.json(&["shared"]), json!([]));
}

#[test]
fn relative_paths_are_the_callers() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(&folder.path().join("data"));
    let files = folder_with(folder.path(), &[("here.txt", b"yeast")]);
    let outcome = run(node.command(&["share", "here.txt", "--json"]).current_dir(&files));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.json()[0]["name"], "here.txt");
    assert_eq!(run(node.command(&["unshare", "./here.txt"]).current_dir(&files)).code, 0);
    assert_eq!(node.json(&["shared"]), json!([]));
}
