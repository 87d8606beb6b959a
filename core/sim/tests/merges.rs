//! What happens in the middle of a merge: nodes die, move, or lose the very link on which the tree is being turned.
//!
//! Each scenario runs for a few seeds with every test run; `BBH_SIM_RUNS=2000 cargo test -p bbh-sim --release --test
//! merges` runs so many of each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bbh_air::Config;
use bbh_proto::api::Settings;
use bbh_sim::invariants::{acyclic, one_tree_each};
use bbh_sim::{NodeIndex, Setup, World};
use bbh_types::{Instant, TreeId};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// Runs until `until`, checking at each step that no ring forms.
fn run(world: &mut World, until: Instant, what: &str) {
    while world.step(until) {
        if let Err(ring) = acyclic(world) {
            panic!("{what}: {ring}");
        }
    }
}

/// Runs until every group in radio range is one tree and stays it for some seconds.
fn settle(world: &mut World, what: &str) {
    let mut settled = None;
    let took = world.run_until(Duration::from_secs(240), |world| {
        if let Err(ring) = acyclic(world) {
            panic!("{what}: {ring}");
        }
        if one_tree_each(world).is_err() {
            settled = None;
            return false;
        }
        world.now().since(*settled.get_or_insert(world.now())) >= Duration::from_secs(5)
    });
    if took.is_none() {
        for (index, node) in world.living() {
            let status = node.status(world.now());
            eprintln!("{index:?} {:?} {:?} parent {:?}", node.tree().tree(), status, node.tree().parent());
        }
        panic!("{what}: {:?}", one_tree_each(world));
    }
}

fn node_at(world: &mut World, x: f64, y: f64, max_links: u8) -> NodeIndex {
    let settings = Settings { max_links, ..Settings::default() };
    world.add(Setup { settings, ..Setup::at(x, y) })
}

fn pick(rng: &mut ChaCha12Rng, below: u64) -> u64 {
    rng.next_u64() % below
}

/// Seeds to run: `usual` many, or as many as `BBH_SIM_RUNS` says.
fn seeds(usual: u64) -> Range<u64> {
    0..std::env::var("BBH_SIM_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(usual)
}

/// A chain with little room, of which nodes die and return while it forms.
fn chains_with_deaths(seeds: Range<u64>) {
    for seed in seeds {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut world = World::new(Config { loss: 0.2, ..Config::default() }, seed);
        let nodes: Vec<_> = (0..7).map(|n| node_at(&mut world, 8.0 * f64::from(n), 0.0, 3)).collect();
        for _ in 0..6 {
            let until = world.now() + Duration::from_millis(pick(&mut rng, 4000));
            run(&mut world, until, &format!("seed {seed}"));
            let node = nodes[pick(&mut rng, 7) as usize];
            if pick(&mut rng, 2) == 0 {
                world.kill(node);
                let until = world.now() + Duration::from_millis(pick(&mut rng, 4000));
                run(&mut world, until, &format!("seed {seed}"));
            }
            world.start(node);
        }
        settle(&mut world, &format!("seed {seed}"));
    }
}

/// Two roots under one tree id: an edge is being turned round, and the old root does not know yet.
fn turning(world: &World) -> Option<(NodeIndex, NodeIndex)> {
    let mut roots: BTreeMap<TreeId, NodeIndex> = BTreeMap::new();
    world
        .living()
        .filter(|(_, node)| node.tree().parent().is_none())
        .find_map(|(index, node)| Some((roots.insert(node.tree().tree(), index)?, index)))
}

/// Two chains that meet; each time that an edge is being turned round, one of its ends is carried away for a while.
fn edges_cut_while_they_turn(seeds: Range<u64>) -> usize {
    let mut cuts = 0;
    for seed in seeds {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut world = World::new(Config { loss: 0.1, ..Config::default() }, seed);
        let left: Vec<_> = (0..4).map(|n| node_at(&mut world, 8.0 * f64::from(n), 0.0, 3)).collect();
        let right: Vec<_> = (0..5).map(|n| node_at(&mut world, 500.0 + 8.0 * f64::from(n), 0.0, 3)).collect();
        settle(&mut world, &format!("seed {seed}, apart"));
        for (n, &node) in right.iter().enumerate() {
            world.move_to(node, 32.0 + 8.0 * n as f64, 0.0);
        }
        let mut left_to_cut = 1 + pick(&mut rng, 3);
        let end = world.now() + Duration::from_secs(60);
        while left_to_cut > 0 && world.step(end) {
            if let Err(ring) = acyclic(&world) {
                panic!("seed {seed}: {ring}");
            }
            let Some((a, b)) = turning(&world) else { continue };
            let victim = if pick(&mut rng, 2) == 0 { a } else { b };
            let (x, _) = place(&left, &right, victim);
            world.move_to(victim, x, 1000.0);
            let until = world.now() + Duration::from_millis(pick(&mut rng, 7000));
            run(&mut world, until, &format!("seed {seed}"));
            world.move_to(victim, x, 0.0);
            (left_to_cut, cuts) = (left_to_cut - 1, cuts + 1);
        }
        settle(&mut world, &format!("seed {seed}"));
    }
    cuts
}

fn place(left: &[NodeIndex], right: &[NodeIndex], node: NodeIndex) -> (f64, f64) {
    let n = left.iter().chain(right).position(|&other| other == node).expect("the node is of one of the two groups");
    (8.0 * n as f64, 0.0)
}

/// Two nodes whose larger company leaves just when their edge turns, and the edge breaks.
fn company_that_leaves_as_an_edge_turns(seeds: Range<u64>) -> usize {
    let mut cuts = 0;
    for seed in seeds {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut world = World::new(Config::default(), seed);
        let pair: Vec<_> = (0..2).map(|n| node_at(&mut world, 8.0 * f64::from(n), 0.0, 4)).collect();
        let company: Vec<_> = (0..3).map(|n| node_at(&mut world, 500.0 + 8.0 * f64::from(n), 0.0, 4)).collect();
        settle(&mut world, &format!("seed {seed}, apart"));
        // The company meets the one of the two that is not the root.
        let root = usize::from(world.node(pair[1]).is_some_and(|node| node.tree().parent().is_none()));
        let side: f64 = if root == 0 { 16.0 } else { -8.0 };
        for (n, &node) in company.iter().enumerate() {
            world.move_to(node, side + 8.0 * n as f64 * side.signum(), 0.0);
        }
        let end = world.now() + Duration::from_secs(30);
        while turning(&world).is_none() && world.step(end) {}
        cuts += usize::from(turning(&world).is_some());
        for (n, &node) in company.iter().enumerate() {
            world.move_to(node, 500.0 + 8.0 * n as f64, 0.0);
        }
        world.move_to(pair[root], 0.0, 1000.0);
        let until = world.now() + Duration::from_millis(pick(&mut rng, 9000));
        run(&mut world, until, &format!("seed {seed}"));
        world.move_to(pair[root], 8.0 * root as f64, 0.0);
        settle(&mut world, &format!("seed {seed}"));
    }
    cuts
}

/// A crowd in which nodes hop about faster than losses are noticed.
fn nodes_that_hop_about(seeds: Range<u64>) {
    for seed in seeds {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut world = World::new(Config { loss: 0.2, ..Config::default() }, seed);
        let spot = |rng: &mut ChaCha12Rng| (6.0 * pick(rng, 4) as f64, 6.0 * pick(rng, 3) as f64);
        let nodes: Vec<_> = (0..9)
            .map(|_| {
                let (x, y) = spot(&mut rng);
                node_at(&mut world, x, y, 8)
            })
            .collect();
        for _ in 0..40 {
            let node = nodes[pick(&mut rng, 9) as usize];
            match pick(&mut rng, 5) {
                0 => world.kill(node),
                1 | 2 => world.start(node),
                _ => {
                    let (x, y) = spot(&mut rng);
                    world.move_to(node, x, y);
                }
            }
            let until = world.now() + Duration::from_millis(pick(&mut rng, 1500));
            run(&mut world, until, &format!("seed {seed}"));
        }
        settle(&mut world, &format!("seed {seed}"));
    }
}

#[test]
fn a_chain_of_nodes_with_three_links_settles_however_its_nodes_die_while_it_forms() {
    chains_with_deaths(seeds(25));
}

#[test]
fn an_edge_that_is_cut_while_it_turns_leaves_two_trees_that_find_each_other_again() {
    let cuts = edges_cut_while_they_turn(seeds(20));
    assert!(cuts > 10, "only {cuts} edges were caught turning");
}

#[test]
fn tables_and_trees_are_right_again_after_nodes_have_hopped_about() {
    nodes_that_hop_about(seeds(12));
    // Here a node leaves another which moves before it could tell its old parent.
    nodes_that_hop_about(608..609);
}

#[test]
fn two_roots_of_one_tree_that_lost_each_other_as_their_edge_turned_become_one_again() {
    let cuts = company_that_leaves_as_an_edge_turns(seeds(10));
    assert!(cuts > 5, "only {cuts} edges were caught turning");
}
