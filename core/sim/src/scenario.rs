//! Named scenarios: where nodes are, what they can do, and what happens to them.

mod places;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bbh_air::Config;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::chance::{below, happens, unit};
use crate::world::Setup;

/// A scenario's name and what it is.
macro_rules! scenarios {
    ($($variant:ident $name:literal $text:literal)*) => {
        /// A kind of world; the number of nodes and the seed make it one world.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Scenario {
            $(#[doc = $text] $variant,)*
        }

        impl Scenario {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it is, in a line.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

scenarios! {
    Crowd "crowd" "all in one radio range"
    Chain "chain" "in a row, each hears only the next"
    Grid "grid" "rows and columns, each hears its eight neighbours"
    Hall "hall" "scattered over a hall, 20 square metres each, connected"
    Train "train" "in carriages of 20 m with ten people each, connected"
    Stadium "stadium" "a stand round a field, one every 4 m: ranges overlap, density is constant"
    Waypoint "waypoint" "a hall in which all walk to and fro at 1 m/s for two minutes"
    Meeting "meeting" "two crowds that form apart, then meet"
    Partition "partition" "a crowd that parts for a minute and comes together again"
    Churn "churn" "a hall in which 30 % of the nodes are replaced per minute, for two minutes"
    Sleepers "sleepers" "a hall in which radios are switched off for 10 to 40 s, a quarter at a time"
    Reboots "reboots" "a hall in which nodes die and come back 3 to 20 s later"
    Mixed "mixed" "a hall in which 40 % may not scan, ranges differ, beacons carry farther or less far than links, addresses rotate, 5 % is lost"
    Random "random" "a hall in which, for 40 s, nodes move, die, come back and lose their radio, groups part, and up to 30 % is lost"
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|scenario| scenario.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|scenario| scenario.name()).collect();
            format!("there is no scenario '{text}'; there are {}", names.join(", "))
        })
    }
}

/// Something done to a world. Nodes are numbered in the order of adding.
#[derive(Debug, Clone)]
pub enum Act {
    /// A node is carried there.
    Move(usize, f64, f64),
    /// A node dies.
    Kill(usize),
    /// A dead node comes back.
    Start(usize),
    /// A node's radio is switched.
    Radio(usize, bool),
    /// A new node appears.
    Join(Setup),
}

/// A world's beginning, and what is to happen to it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The air.
    pub air: Config,
    /// The nodes, all switched on within the first second.
    pub nodes: Vec<Setup>,
    /// What happens, in the order of time since the nodes have become one tree each group; empty in scenarios in
    /// which nothing does.
    pub acts: Vec<(Duration, Act)>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Scenario {
    /// The plan for that many nodes, each with up to `max_links` links.
    pub fn plan(self, nodes: usize, max_links: u8, seed: u64) -> Plan {
        // Not the world's own stream of numbers.
        let mut rng = ChaCha12Rng::seed_from_u64(seed ^ 0x5ce_0a71_0000);
        let rng = &mut rng;
        let mut air = Config::default();
        let spots = match self {
            Self::Crowd | Self::Partition => places::scattered(rng, nodes, 7.0, 7.0),
            Self::Chain => places::row(nodes),
            Self::Grid => places::grid(nodes),
            Self::Train => places::connected(rng, nodes, 20.0 * nodes.div_ceil(10) as f64, 3.0),
            Self::Stadium => places::stadium(rng, nodes),
            Self::Meeting => {
                let mut spots = places::scattered(rng, nodes, 7.0, 7.0);
                spots.iter_mut().skip(nodes / 2).for_each(|spot| spot.0 += APART);
                spots
            }
            _ => hall(rng, nodes),
        };
        let mut setups: Vec<Setup> = spots.into_iter().map(|(x, y)| Setup::at(x, y)).collect();
        if self == Self::Mixed {
            air.loss = 0.05;
            air.address_rotation = Some(15 * MINUTE);
            for setup in &mut setups {
                let range = 10.0 + 4.0 * unit(rng);
                setup.range = Some(range);
                setup.voice = happens(rng, 0.5).then(|| range * (0.8 + 0.5 * unit(rng)));
                setup.deaf = happens(rng, 0.4);
            }
        }
        if self == Self::Random {
            air.loss = 0.3 * unit(rng);
        }
        setups.iter_mut().for_each(|setup| setup.settings.max_links = max_links);
        let acts = match self {
            Self::Waypoint => walks(rng, &setups),
            Self::Meeting => moves(&setups, nodes / 2, Duration::ZERO, |x| x - APART + 9.0),
            Self::Partition => {
                let mut acts = moves(&setups, nodes / 2, Duration::ZERO, |x| x + APART);
                acts.extend(moves(&setups, nodes / 2, MINUTE, |x| x));
                acts
            }
            Self::Churn => replacements(rng, &setups),
            Self::Sleepers => naps(rng, nodes),
            Self::Reboots => reboots(rng, nodes),
            Self::Random => anything(rng, &setups),
            _ => Vec::new(),
        };
        Plan { air, nodes: setups, acts }
    }
}

/// Metres between two crowds that don't hear each other.
const APART: f64 = 100.0;

fn hall(rng: &mut ChaCha12Rng, nodes: usize) -> Vec<(f64, f64)> {
    let side = hall_side(nodes);
    places::connected(rng, nodes, side, side)
}

fn hall_side(nodes: usize) -> f64 {
    (20.0 * nodes as f64).sqrt()
}

/// All from number `from` on go to a place that differs in x.
fn moves(setups: &[Setup], from: usize, at: Duration, x: impl Fn(f64) -> f64) -> Vec<(Duration, Act)> {
    let rest = setups.iter().enumerate().skip(from);
    rest.map(|(n, setup)| (at, Act::Move(n, x(setup.position.0), setup.position.1))).collect()
}

/// Random waypoints: everybody walks to a random place, then to the next.
fn walks(rng: &mut ChaCha12Rng, setups: &[Setup]) -> Vec<(Duration, Act)> {
    let side = hall_side(setups.len());
    let place = |rng: &mut ChaCha12Rng| (unit(rng) * side, unit(rng) * side);
    let mut walkers: Vec<_> = setups.iter().map(|setup| (setup.position, place(rng))).collect();
    let mut acts = Vec::new();
    for second in 1..=120 {
        for (n, (at, to)) in walkers.iter_mut().enumerate() {
            let (dx, dy) = (to.0 - at.0, to.1 - at.1);
            let left = (dx * dx + dy * dy).sqrt();
            if left <= 1.0 {
                (*at, *to) = (*to, place(rng));
            } else {
                *at = (at.0 + dx / left, at.1 + dy / left);
            }
            acts.push((Duration::from_secs(second), Act::Move(n, at.0, at.1)));
        }
    }
    acts
}

/// Random moments within the two minutes, in order.
fn moments(rng: &mut ChaCha12Rng, count: usize) -> Vec<Duration> {
    let mut moments: Vec<Duration> = (0..count).map(|_| (2 * MINUTE).mul_f64(unit(rng))).collect();
    moments.sort_unstable();
    moments
}

fn replacements(rng: &mut ChaCha12Rng, setups: &[Setup]) -> Vec<(Duration, Act)> {
    let Some(pattern) = setups.first() else { return Vec::new() };
    let mut alive: Vec<usize> = (0..setups.len()).collect();
    let mut acts = Vec::new();
    let side = hall_side(setups.len());
    for (count, at) in moments(rng, setups.len() * 6 / 10).into_iter().enumerate() {
        let place = below(rng, alive.len());
        acts.push((at, Act::Kill(alive[place])));
        alive[place] = setups.len() + count;
        acts.push((at, Act::Join(Setup { position: (unit(rng) * side, unit(rng) * side), ..pattern.clone() })));
    }
    acts
}

fn naps(rng: &mut ChaCha12Rng, nodes: usize) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    for node in 0..nodes {
        // Awake for three times as long as asleep.
        let mut at = Duration::from_secs_f64(150.0 * unit(rng));
        while at < 2 * MINUTE {
            let nap = Duration::from_secs_f64(10.0 + 30.0 * unit(rng));
            acts.push((at, Act::Radio(node, false)));
            acts.push((at + nap, Act::Radio(node, true)));
            at += nap + Duration::from_secs_f64(50.0 + 50.0 * unit(rng));
        }
    }
    in_order(acts)
}

fn reboots(rng: &mut ChaCha12Rng, nodes: usize) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    if nodes > 0 {
        for at in moments(rng, (nodes / 2).max(4)) {
            let node = below(rng, nodes);
            acts.push((at, Act::Kill(node)));
            acts.push((at + Duration::from_secs_f64(3.0 + 17.0 * unit(rng)), Act::Start(node)));
        }
    }
    in_order(acts)
}

fn anything(rng: &mut ChaCha12Rng, setups: &[Setup]) -> Vec<(Duration, Act)> {
    let side = hall_side(setups.len());
    let mut acts = Vec::new();
    if setups.is_empty() {
        return acts;
    }
    for _ in 0..10 + below(rng, 30) {
        let at = Duration::from_secs_f64(40.0 * unit(rng));
        let until = at + Duration::from_secs_f64(12.0 * unit(rng));
        let node = below(rng, setups.len());
        match below(rng, 8) {
            0 | 1 => {
                acts.push((at, Act::Kill(node)));
                // Some stay dead.
                if happens(rng, 0.8) {
                    acts.push((until, Act::Start(node)));
                }
            }
            2 => acts.extend([(at, Act::Radio(node, false)), (until, Act::Radio(node, true))]),
            3 => {
                let cut = below(rng, setups.len());
                acts.extend(moves(setups, cut, at, |x| x + APART));
                acts.extend(moves(setups, cut, until, |x| x));
            }
            _ => acts.push((at, Act::Move(node, unit(rng) * side, unit(rng) * side))),
        }
    }
    // Whatever was off is on in the end.
    let end = Duration::from_secs(53);
    acts.extend((0..setups.len()).map(|node| (end, Act::Radio(node, true))));
    in_order(acts)
}

fn in_order(mut acts: Vec<(Duration, Act)>) -> Vec<(Duration, Act)> {
    acts.sort_by_key(|(at, _)| *at);
    acts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name_and_gives_as_many_nodes_as_asked_for_in_order_of_time() {
        for &scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(scenario));
            for nodes in [1, 2, 7, 64, 300] {
                let plan = scenario.plan(nodes, 4, 3);
                assert_eq!(plan.nodes.len(), nodes, "{scenario}");
                assert!(plan.acts.is_sorted_by_key(|(at, _)| *at), "{scenario}");
                assert!(plan.air.validate().is_ok());
            }
        }
        assert!("hell".parse::<Scenario>().unwrap_err().contains("hall"));
    }

    #[test]
    fn a_plan_depends_on_the_seed_alone() {
        for &scenario in Scenario::ALL {
            let plan = |seed| format!("{:?}", scenario.plan(40, 4, seed));
            assert_eq!(plan(1), plan(1));
            if !matches!(scenario, Scenario::Chain | Scenario::Grid) {
                assert_ne!(plan(1), plan(2), "{scenario}");
            }
        }
    }
}
