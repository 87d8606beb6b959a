//! The older rules give the figures known of them, so that a comparison with them means something.

use bbh_sim::report_rules::{Outcome, Rules, form};

const RUNS: u64 = 300;

fn runs(nodes: usize, max_children: usize, rules: Rules, count: u64) -> impl Iterator<Item = Outcome> {
    (0..count).map(move |seed| form(nodes, max_children, rules, seed))
}

/// The share of runs, in percent, that never become one tree.
fn split(nodes: usize, max_children: usize, rules: Rules) -> f64 {
    let count = 400;
    let split = runs(nodes, max_children, rules, count).filter(|outcome| !outcome.is_one_tree()).count();
    100.0 * split as f64 / count as f64
}

#[test]
fn the_published_rules_give_the_known_paths_diameters_and_piconets() {
    // Nodes, mean path, diameter, piconets: one range, even encounters, at most 7 children, 300 runs each.
    let known = [
        (8, 2.58, 5.3, 4.6),
        (16, 3.63, 7.7, 9.2),
        (32, 4.78, 10.3, 18.1),
        (64, 6.00, 13.2, 36.3),
        (128, 7.24, 16.0, 72.7),
    ];
    for (nodes, path, diameter, piconets) in known {
        let mut sums = [0.0; 3];
        for outcome in runs(nodes, 7, Rules::Published, RUNS) {
            assert_eq!(outcome.parents.len(), nodes);
            let shape = outcome.shape;
            for (sum, value) in sums.iter_mut().zip([shape.mean_path, shape.diameter as f64, shape.piconets as f64]) {
                *sum += value / RUNS as f64;
            }
        }
        println!("{nodes:4} nodes: path {:.2}, diameter {:.1}, piconets {:.1}", sums[0], sums[1], sums[2]);
        for (got, want) in sums.into_iter().zip([path, diameter, piconets]) {
            assert!((got - want).abs() <= 0.1 * want, "{nodes} nodes: {got:.2} instead of {want}");
        }
    }
}

#[test]
fn with_few_children_the_published_rules_often_never_give_one_tree() {
    // 24 %, 70 % and 13 % are known, of 400 runs each, in which giving up after a while counted as never.
    for (nodes, max_children, from, to) in [(32, 3, 14.0, 30.0), (64, 3, 55.0, 78.0), (64, 4, 7.0, 18.0)] {
        let never = split(nodes, max_children, Rules::Published);
        println!("{nodes} nodes, {max_children} children: {never:.1} % never one tree");
        assert!((from..=to).contains(&never), "{nodes} nodes, {max_children} children: {never:.1} %");
    }
    assert_eq!(split(8, 7, Rules::Published), 0.0);
}

#[test]
fn the_reports_rules_leave_more_networks_split_than_the_published_ones() {
    for (nodes, max_children) in [(32, 3), (64, 3), (64, 4)] {
        let (report, published) =
            (split(nodes, max_children, Rules::Report), split(nodes, max_children, Rules::Published));
        println!("{nodes} nodes, {max_children} children: report {report:.1} %, published {published:.1} %");
        assert!(report > published);
    }
}

#[test]
fn no_node_has_more_children_than_allowed_and_the_broadcast_of_the_report_costs_more_than_tree_edges() {
    for rules in [Rules::Published, Rules::Report] {
        for outcome in runs(100, 4, rules, 20) {
            let mut children = vec![0; 100];
            outcome.parents.iter().flatten().for_each(|&parent| children[parent] += 1);
            assert!(children.iter().all(|&children: &usize| children <= 4));
            assert!(outcome.shape.report_broadcast > outcome.shape.broadcast);
        }
    }
}

#[test]
fn small_worlds_come_to_an_end() {
    for rules in [Rules::Published, Rules::Report] {
        for nodes in 0..6 {
            for max_children in 0..3 {
                let outcome = form(nodes, max_children, rules, 1);
                assert_eq!(outcome.parents.len(), nodes);
            }
        }
    }
}
