//! Every scenario runs to its end, measures what it is for, and can be drawn.

use std::time::Duration;

use bbh_sim::{Metric, Note, Options, Outcome, Scenario, Summary, run, svg};

fn outcome(options: &Options) -> Outcome {
    let outcome = run(options, &mut |_| ());
    assert_eq!(outcome.failure, None, "{} seed {}", options.scenario, options.seed);
    outcome
}

#[test]
fn every_scenario_ends_in_one_tree_and_measures_what_it_is_for() {
    for &scenario in Scenario::ALL {
        let options = Options { pictures: true, ..Options::new(scenario, 14, 1) };
        let outcome = outcome(&options);
        let mut wanted = vec![Metric::Forming, Metric::Settled, Metric::Bytes, Metric::Wakeups, Metric::MeanPath];
        wanted.push(Metric::SearchReach);
        match scenario {
            Scenario::Meeting => wanted.push(Metric::Merge),
            Scenario::Partition => wanted.extend([Metric::Merge, Metric::OneTreeShare]),
            Scenario::Crowd | Scenario::Hall | Scenario::Stadium => wanted.extend([Metric::Join, Metric::Heal]),
            Scenario::Waypoint | Scenario::Churn | Scenario::Sleepers | Scenario::Reboots => {
                wanted.push(Metric::OneTreeShare);
            }
            _ => {}
        }
        for metric in wanted {
            assert!(!outcome.samples.of(metric).is_empty(), "{scenario} without {}", metric.name());
        }
        let share = outcome.samples.of(Metric::OneTreeShare).first().copied().unwrap_or(0.5);
        assert!(share > 0.0 && share <= 1.0, "{scenario}: {share}");
        assert!(outcome.frames.len() >= 3, "{scenario}");
        let drawing = svg(&outcome.frames, "a <heading>");
        assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"));
        for tag in ["g", "text", "svg"] {
            let count = |what: String| drawing.matches(&what).count();
            let opened = count(format!("<{tag} ")) + count(format!("<{tag}>"));
            assert_eq!(opened, count(format!("</{tag}>")), "{scenario}: {tag}");
        }
        assert!(drawing.contains("a &lt;heading&gt;") && drawing.contains("<path "));
    }
}

#[test]
fn two_crowds_that_meet_are_two_trees_before_and_one_after() {
    let mut components = Vec::new();
    let outcome = run(&Options::new(Scenario::Meeting, 20, 3), &mut |note| {
        if let Note::Progress { components: now, phase: "acting" | "settling", .. } = note {
            components.push(now);
        }
    });
    assert_eq!((outcome.failure, outcome.samples.of(Metric::Trees)), (None, [1.0].as_slice()));
    assert!(components.iter().all(|&components| components == 1), "{components:?}");
    assert!(outcome.samples.of(Metric::Merge)[0] > 0.0);
}

#[test]
fn nodes_that_cannot_become_one_tree_in_time_are_a_failure_that_says_so() {
    let options = Options { limit: Duration::from_millis(1200), ..Options::new(Scenario::Chain, 40, 1) };
    let failure = run(&options, &mut |_| ()).failure.unwrap();
    assert!(failure.contains("not one tree") && failure.contains("trees where there could be 1"), "{failure}");
}

#[test]
fn searches_reach_nearly_all_who_are_connected_while_a_third_of_the_nodes_is_replaced_each_minute() {
    let mut reach = Vec::new();
    for seed in 0..3 {
        reach.extend_from_slice(outcome(&Options::new(Scenario::Churn, 64, seed)).samples.of(Metric::SearchReach));
    }
    let summary = Summary::of(&reach).unwrap();
    assert!(summary.count > 30 && summary.mean >= 0.95, "{summary:?}");
}
