//! The shape of a forest: paths, depth, piconets.

/// What a forest looks like. Paths are counted in links.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shape {
    /// Its nodes.
    pub nodes: usize,
    /// Its trees, single nodes included.
    pub trees: usize,
    /// Nodes of its largest tree.
    pub largest: usize,
    /// Mean length of the path between two nodes of the same tree; 0 if there are no two.
    pub mean_path: f64,
    /// Longest path.
    pub diameter: usize,
    /// Longest path from a root.
    pub depth: usize,
    /// Nodes with children: each leads a piconet.
    pub piconets: usize,
    /// Transmissions of one broadcast over tree edges, from the average node.
    pub broadcast: f64,
    /// The same by the 2005 report's rule (10.2.5): to every device of the routing table and to the parent, who does
    /// the same. A device h links away costs h transmissions, and is told again by every common ancestor.
    pub report_broadcast: f64,
}

impl Shape {
    /// The shape of the forest in which node i has the parent `parents[i]`.
    ///
    /// # Errors
    /// A node on a ring.
    ///
    /// # Panics
    /// If a parent is not a node.
    pub fn of(parents: &[Option<usize>]) -> Result<Self, usize> {
        let n = parents.len();
        let mut children = vec![Vec::new(); n];
        let mut order: Vec<usize> = Vec::with_capacity(n);
        for (node, parent) in parents.iter().enumerate() {
            match parent {
                Some(parent) => children[*parent].push(node),
                None => order.push(node),
            }
        }
        let trees = order.len();
        let mut depth = vec![0_usize; n];
        let mut next = 0;
        while let Some(&node) = order.get(next) {
            next += 1;
            for &child in &children[node] {
                depth[child] = depth[node] + 1;
                order.push(child);
            }
        }
        if order.len() < n {
            let mut reached = vec![false; n];
            order.iter().for_each(|&node| reached[node] = true);
            return Err(reached.iter().position(|reached| !reached).unwrap_or_default());
        }

        let mut shape = Self { nodes: n, trees, ..Self::default() };
        let mut size = vec![1_usize; n];
        let mut height = vec![0_usize; n];
        // Links from a node to all below it together.
        let mut reach = vec![0_usize; n];
        for &node in order.iter().rev() {
            let mut highest = [0, 0];
            for &child in &children[node] {
                size[node] += size[child];
                reach[node] += reach[child] + size[child];
                let through = height[child] + 1;
                if through > highest[0] {
                    highest = [through, highest[0]];
                } else {
                    highest[1] = highest[1].max(through);
                }
            }
            height[node] = highest[0];
            shape.diameter = shape.diameter.max(highest[0] + highest[1]);
            shape.piconets += usize::from(!children[node].is_empty());
        }
        let mut whole = vec![0_usize; n];
        let mut told = vec![0_usize; n];
        let (mut pairs, mut links, mut all_told) = (0_u128, 0_u128, 0_u128);
        for &node in &order {
            let (tree, above) = parents[node].map_or((size[node], 0), |parent| (whole[parent], told[parent] + 1));
            whole[node] = tree;
            told[node] = above + reach[node];
            pairs += tree as u128 - 1;
            if parents[node].is_some() {
                // The link to the parent is on the path of every pair that it parts, in both directions.
                links += 2 * size[node] as u128 * (tree - size[node]) as u128;
            }
            shape.largest = shape.largest.max(tree);
            shape.depth = shape.depth.max(depth[node]);
            all_told += told[node] as u128;
        }
        if n > 0 {
            shape.broadcast = pairs as f64 / n as f64;
            shape.report_broadcast = all_told as f64 / n as f64;
        }
        if pairs > 0 {
            shape.mean_path = links as f64 / pairs as f64;
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_a_star_and_a_single_node_have_their_known_shapes() {
        // 0 - 1 - 2 - 3: paths 1, 2, 3, 1, 2, 1.
        let chain = Shape::of(&[None, Some(0), Some(1), Some(2)]).unwrap();
        assert_eq!((chain.trees, chain.diameter, chain.depth, chain.piconets), (1, 3, 3, 3));
        assert!((chain.mean_path - 10.0 / 6.0).abs() < 1e-9);
        let star = Shape::of(&[None, Some(0), Some(0), Some(0)]).unwrap();
        assert_eq!((star.diameter, star.depth, star.piconets, star.mean_path), (2, 1, 1, 1.5));
        // The root tells three, each child one parent, who tells three.
        assert_eq!((star.broadcast, star.report_broadcast), (3.0, (3.0 + 3.0 * 4.0) / 4.0));
        let single = Shape::of(&[None]).unwrap();
        assert_eq!((single.trees, single.largest, single.mean_path), (1, 1, 0.0));
        assert_eq!(Shape::of(&[]), Ok(Shape::default()));
    }

    #[test]
    fn two_trees_are_measured_apart() {
        let forest = Shape::of(&[None, Some(0), None, Some(2), Some(2)]).unwrap();
        assert_eq!((forest.trees, forest.largest, forest.diameter, forest.piconets), (2, 3, 2, 2));
        assert!((forest.mean_path - (2.0 + 8.0) / 8.0).abs() < 1e-9);
    }

    #[test]
    fn a_ring_is_found() {
        assert_eq!(Shape::of(&[None, Some(2), Some(1)]), Err(1));
    }
}
