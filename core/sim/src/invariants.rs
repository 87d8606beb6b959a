//! What must hold of the trees of a world (design §6).

use std::collections::{BTreeMap, BTreeSet};

use bbh_types::NodeId;

use crate::world::World;

/// Follows parents from every node: nobody may be his own ancestor. A parent always knows of its child before the
/// child knows of it, so one that does not has died, or lost the link, and is an end like a root: the child has only
/// not noticed yet. Holds at every moment.
///
/// # Errors
/// The ring.
pub fn acyclic(world: &World) -> Result<(), String> {
    let children: BTreeSet<(NodeId, NodeId)> =
        world.living().flat_map(|(_, node)| node.tree().children().map(move |(_, child)| (node.id(), child))).collect();
    let parents: BTreeMap<NodeId, NodeId> = world
        .living()
        .filter_map(|(_, node)| Some((node.id(), node.tree().parent()?.1)))
        .filter(|&(child, parent)| children.contains(&(parent, child)))
        .collect();
    for &start in parents.keys() {
        let mut at = start;
        let mut seen = BTreeSet::from([at]);
        while let Some(&parent) = parents.get(&at) {
            if !seen.insert(parent) {
                return Err(format!("a ring through {parent}: {seen:?}"));
            }
            at = parent;
        }
    }
    Ok(())
}

/// Whether every group of nodes that could be one tree is one, parents and children agree, and every table holds
/// exactly the nodes below. Holds once the world has been quiet for a while.
///
/// # Errors
/// What is amiss first.
pub fn one_tree_each(world: &World) -> Result<(), String> {
    let mut children: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
    for (_, node) in world.living() {
        if let Some((_, parent)) = node.tree().parent() {
            children.entry(parent).or_default().insert(node.id());
        }
    }
    for component in world.radio_components() {
        let nodes: Vec<_> = component.iter().filter_map(|&index| world.node(index)).collect();
        let roots = nodes.iter().filter(|node| node.tree().parent().is_none()).count();
        if roots != 1 {
            return Err(format!("{roots} roots among {} nodes", nodes.len()));
        }
        let trees: BTreeSet<_> = nodes.iter().map(|node| node.tree().tree()).collect();
        if trees.len() != 1 {
            return Err(format!("{} tree ids among {} nodes", trees.len(), nodes.len()));
        }
        for node in nodes {
            let known: BTreeSet<NodeId> = node.tree().children().map(|(_, child)| child).collect();
            let own = children.get(&node.id()).cloned().unwrap_or_default();
            if known != own {
                return Err(format!("{} knows {known:?} as children, who are {own:?}", node.id()));
            }
            let below = descendants(&children, node.id());
            let table: BTreeSet<NodeId> = below.iter().copied().filter(|&n| node.tree().table().contains(n)).collect();
            if table.len() != below.len() || node.tree().table().len() != below.len() {
                let held = node.tree().table().len();
                return Err(format!("the table of {} holds {held} nodes, {} are below", node.id(), below.len()));
            }
        }
    }
    Ok(())
}

fn descendants(children: &BTreeMap<NodeId, BTreeSet<NodeId>>, of: NodeId) -> BTreeSet<NodeId> {
    let mut all = BTreeSet::new();
    let mut waiting = vec![of];
    while let Some(node) = waiting.pop() {
        for &child in children.get(&node).into_iter().flatten() {
            if all.insert(child) {
                waiting.push(child);
            }
        }
    }
    all
}
