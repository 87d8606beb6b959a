//! Tree messages that a neighbour sends too fast, or with absurd figures: others get few messages because of them, and
//! the node goes on.

use std::sync::Arc;
use std::time::Duration;

use bbh_proto::Identity;
use bbh_proto::routing::{TreeAction, TreeManager};
use bbh_types::radio::{LinkId, PeerAddr};
use bbh_types::{BoundedVec, Instant, NodeId, TreeId};
use bbh_wire::message::{
    AttachReply, AttachRequest, AttachVerdict, RootQuery, RoutingConnect, RoutingResync, TreeFound, TreeInfo, TreeMerge,
};
use bbh_wire::{Message, Role};

const UP: LinkId = LinkId(1);
const DOWN: LinkId = LinkId(2);
const ASIDE: LinkId = LinkId(3);

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

/// A node with a parent, a child and a contact.
struct Scene {
    now: Instant,
    tree: TreeManager,
    me: NodeId,
    child: NodeId,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::ZERO;
        let own = Arc::new(identity(1));
        let me = own.node_id();
        let mut tree = TreeManager::new(own, 1, "me".into(), 8, [1; 32], now);
        let (parent, child) = (identity(2).node_id(), identity(3).node_id());
        tree.link_opened(now, UP, PeerAddr(2), false);
        tree.neighbour_up(UP, parent);
        tree.handle_message(now, UP, info(7, 1000).into());
        tree.handle_message(now, UP, AttachReply { verdict: AttachVerdict::Accepted, info: info(7, 1000) }.into());
        assert_eq!(tree.parent(), Some((UP, parent)));
        tree.link_opened(now, DOWN, PeerAddr(3), false);
        tree.neighbour_up(DOWN, child);
        let attachment = identity(3).attach(me, 1, "child");
        tree.handle_message(now, DOWN, AttachRequest { attachment, size: 1 }.into());
        assert_eq!(tree.children().collect::<Vec<_>>(), [(DOWN, child)]);
        tree.link_opened(now, ASIDE, PeerAddr(4), false);
        tree.neighbour_up(ASIDE, identity(4).node_id());
        let mut scene = Self { now, tree, me, child };
        scene.actions();
        scene
    }

    fn actions(&mut self) -> Vec<TreeAction> {
        std::iter::from_fn(|| self.tree.poll_action()).collect()
    }

    /// How many messages go out over a link, and whether it is to be closed, after one message of a neighbour 10,000
    /// times at once.
    fn flood(&mut self, from: LinkId, message: impl Fn(u32) -> Message, watched: LinkId) -> (usize, bool) {
        for n in 0..10_000 {
            self.tree.handle_message(self.now, from, message(n));
        }
        let actions = self.actions();
        let sent = actions.iter().filter(|action| matches!(action, TreeAction::Send(link, _) if *link == watched));
        let closed = actions.iter().any(|action| matches!(action, TreeAction::Close(link, _) if *link == from));
        (sent.count(), closed)
    }
}

fn info(tree: u64, size: u32) -> TreeInfo {
    TreeInfo { tree: TreeId(tree), epoch: 0, size, role: Role::Root, free_slots: 3 }
}

#[test]
fn questions_for_the_root_are_not_passed_on_faster_than_honest_ones_come() {
    let child = identity(3).node_id();
    let questions: [fn(NodeId, u32) -> Message; 3] = [
        |child, n| TreeFound { contact: child, other: TreeId(u64::from(n)) }.into(),
        |child, n| TreeMerge { contact: child, attacher: child, request: n }.into(),
        |child, n| RootQuery { query: n, origin: child, hops: 1 }.into(),
    ];
    for question in questions {
        let mut scene = Scene::new();
        let (sent, closed) = scene.flood(DOWN, |n| question(child, n), UP);
        assert!((1..=200).contains(&sent) && !closed, "{sent}");
        scene.now += Duration::from_secs(1);
        let (sent, _) = scene.flood(DOWN, |n| question(child, n), UP);
        assert!((1..=50).contains(&sent), "later there is room again: {sent}");
    }
}

#[test]
fn device_lists_stay_within_what_a_links_queue_takes() {
    let mut scene = Scene::new();
    let child = scene.child;
    for n in 0..10_000 {
        scene.tree.handle_message(scene.now, DOWN, RootQuery { query: n, origin: child, hops: 1 }.into());
    }
    let pages = scene.actions().iter().filter(|action| matches!(action, TreeAction::SendTo(..))).count();
    assert!((1..=16).contains(&pages), "{pages}");
}

#[test]
fn a_parent_that_changes_its_tree_all_the_time_is_believed_at_last_but_not_echoed_each_time() {
    let mut scene = Scene::new();
    let (sent, closed) = scene.flood(UP, |n| info(u64::from(n), n).into(), DOWN);
    assert!(sent <= 200 && !closed, "{sent}");
    assert_ne!(scene.tree.tree(), TreeId(9_999));
    let due = scene.tree.poll_timeout().expect("the last news wait");
    assert!(due <= scene.now + Duration::from_millis(100));
    scene.tree.handle_timeout(due);
    assert_eq!(scene.tree.tree(), TreeId(9_999));
}

#[test]
fn a_contact_that_changes_its_tree_all_the_time_does_not_make_the_root_ring() {
    let mut scene = Scene::new();
    let (sent, closed) = scene.flood(ASIDE, |n| info(u64::from(n) + 10, 1_000_000).into(), UP);
    assert!((1..=200).contains(&sent) && !closed, "{sent}");
    let attachment = identity(4).attach(scene.me, 1, "contact");
    let request = AttachRequest { attachment, size: 5 };
    let (sent, _) = scene.flood(ASIDE, |_| request.clone().into(), UP);
    assert!(sent <= 200, "{sent}");
}

#[test]
fn a_parent_that_asks_for_all_routes_again_and_again_is_left() {
    let mut scene = Scene::new();
    let (sent, closed) = scene.flood(UP, |_| RoutingResync {}.into(), UP);
    assert!(sent <= 200 && closed, "{sent}");
}

#[test]
fn a_child_that_changes_its_routes_all_the_time_is_left() {
    let mut scene = Scene::new();
    let child = scene.child;
    // Genuine attachments, told again and again from the beginning.
    let below: Vec<_> = (10..42).map(|n| identity(n).attach(child, 1, "below")).collect();
    let routes = RoutingConnect { sequence: 0, attachments: BoundedVec::truncated(below) };
    let mut closed = None;
    for n in 0..1_000 {
        scene.tree.handle_message(scene.now, DOWN, routes.clone().into());
        if scene.actions().iter().any(|action| matches!(action, TreeAction::Close(link, _) if *link == DOWN)) {
            closed = Some(n);
            break;
        }
    }
    assert!(closed.is_some_and(|n| n >= 500), "{closed:?}");
}

#[test]
fn a_tree_of_any_claimed_size_is_bearable() {
    let mut scene = Scene::new();
    for size in [u32::MAX, 0, u32::MAX - 1, 1, u32::MAX] {
        scene.tree.handle_message(scene.now, UP, info(7, size).into());
        scene.tree.handle_message(scene.now, ASIDE, info(8, size).into());
    }
    assert_eq!(scene.tree.size(), u32::MAX);
}
