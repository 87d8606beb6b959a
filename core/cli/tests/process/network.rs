//! Nodes as processes: starting, meeting, parting and ending.

use serde_json::json;

use crate::support::{Air, Node, bbh, one_tree, run, until};

#[test]
fn nodes_started_at_the_same_time_end_in_one_tree() {
    let air = Air::start();
    let mut nodes: Vec<_> =
        [("a", "0,0"), ("b", "4,0"), ("c", "0,4")].iter().map(|(name, at)| air.node_starting(name, at)).collect();
    for node in &mut nodes {
        node.wait_until_ready();
    }
    one_tree(&nodes.iter().collect::<Vec<_>>());
    until("all know all", || {
        nodes.iter().all(|node| node.json(&["devices"]).as_array().unwrap().len() == 2).then_some(())
    });
}

#[test]
fn a_node_that_goes_out_of_range_is_lost_and_comes_back() {
    let air = Air::start();
    let (anna, ben) = (air.node("anna", "0,0"), air.node("ben", "-5,0"));
    one_tree(&[&anna, &ben]);
    let time = anna.json(&["ping", &ben.id]);
    assert!(time["time"].as_f64().unwrap() > 0.0, "{time}");

    assert_eq!(ben.bbh(&["move", "-500,0"]).code, 0);
    until("both are alone", || (anna.status()["links"] == 0 && ben.status()["links"] == 0).then_some(()));
    assert_eq!(anna.bbh(&["ping", &ben.id]).code, 1);
    assert_eq!(anna.json(&["devices"]), json!([]));

    assert_eq!(ben.bbh(&["move", "-5,0"]).code, 0);
    one_tree(&[&anna, &ben]);
}

#[test]
fn nodes_meet_by_tcp_without_a_radio() {
    let folder = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let server = Node::with_options(&folder.path().join("server"), &["--listen", &address]);
    let client = Node::with_options(&folder.path().join("client"), &["--peer", &address]);
    one_tree(&[&server, &client]);
}

#[test]
fn a_data_folder_is_one_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path());
    let second = run(bbh().args(["run", "--data"]).arg(folder.path()));
    assert_eq!((second.code, second.stdout.as_str()), (1, ""), "{second:?}");
    assert!(second.stderr.contains(folder.path().to_str().unwrap()), "{second:?}");
    assert_eq!(node.status()["node_id"], node.id.as_str(), "the first goes on");
}

#[test]
fn signals_and_stop_end_a_node_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control.json");
    let mut ids = Vec::new();
    for ending in ["-TERM", "-INT", "stop", "stdin"] {
        let mut node = Node::alone(folder.path());
        assert!(control.exists());
        match ending {
            "stop" => assert_eq!(node.bbh(&["stop"]).code, 0),
            "stdin" => node.process.close_stdin(),
            signal => node.process.signal(signal),
        }
        assert_eq!(node.process.ended(), Some(0), "{ending}");
        assert!(!control.exists(), "{ending}");
        ids.push(node.id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "the identity stays");
}

#[test]
fn after_stop_the_folder_is_free_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let _node = Node::alone(folder.path());
        assert_eq!(run(bbh().args(["stop", "--data"]).arg(folder.path())).code, 0);
    }
}

#[test]
fn a_killed_node_is_no_running_node_and_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::alone(folder.path());
    node.process.kill();
    assert!(folder.path().join("control.json").exists());
    let stale = node.bbh(&["status"]);
    assert_eq!(stale.code, 3, "{stale:?}");
    assert!(stale.stderr.contains("killed"), "{stale:?}");
    let again = Node::alone(folder.path());
    assert_eq!(again.id, node.id);
    assert_eq!(again.status()["node_id"], again.id.as_str());
}

#[test]
fn a_radio_or_address_that_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let radio = format!("air://127.0.0.1:{port}");
    let refused = run(bbh().args(["run", "--radio", &radio, "--data"]).arg(folder.path().join("a")));
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains(&port.to_string()), "{refused:?}");

    let air = Air::start();
    let taken = run(bbh().args(["air", "--listen", &air.address]));
    assert_eq!((taken.code, taken.stdout.as_str()), (1, ""), "{taken:?}");
    assert_eq!(run(bbh().args(["air", "--loss", "7"])).code, 2);
}
