//! Pictures of a world: the floor plan with nodes, the tree's links, and who is what.

use std::fmt::Write;

use bbh_wire::Role;

use crate::watch::Watch;
use crate::world::{NodeIndex, World};

/// A world at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    title: String,
    /// Place, and role where the node and its radio are on.
    nodes: Vec<((f64, f64), Option<Role>)>,
    /// Child and parent.
    links: Vec<(usize, usize)>,
    trees: usize,
}

impl Frame {
    /// The world as it stands.
    pub(crate) fn of(world: &World, watch: &Watch, title: String) -> Self {
        let all = (0..world.len()).map(NodeIndex);
        Self {
            title,
            nodes: all.clone().map(|node| (world.position(node), watch.role(node))).collect(),
            links: all.filter_map(|node| Some((node.0, watch.parent(node)?.0))).collect(),
            trees: watch.trees(),
        }
    }
}

/// Pixels of a panel's side, and of what is around it.
const PANEL: f64 = 460.0;
const MARGIN: f64 = 20.0;
const TITLE: f64 = 28.0;
const COLUMNS: usize = 3;

/// Draws the frames side by side, all on the same scale, as an SVG document.
pub fn svg(frames: &[Frame], heading: &str) -> String {
    let places = frames.iter().flat_map(|frame| frame.nodes.iter().map(|&(place, _)| place));
    let (mut low, mut high) = ((f64::MAX, f64::MAX), (f64::MIN, f64::MIN));
    for (x, y) in places {
        low = (low.0.min(x), low.1.min(y));
        high = (high.0.max(x), high.1.max(y));
    }
    let extent = (high.0 - low.0).max(high.1 - low.1).max(1.0);
    let scale = PANEL / extent;
    // Long rows and trains need no square panels.
    let height = ((high.1 - low.1) * scale).clamp(60.0, PANEL);
    let most = frames.iter().map(|frame| frame.nodes.len()).max().unwrap_or(0).max(1) as f64;
    let radius = (PANEL / most.sqrt() / 5.0).clamp(0.8, 6.0);
    let columns = frames.len().clamp(1, COLUMNS);
    let rows = frames.len().div_ceil(columns).max(1);
    let cell = (PANEL + 2.0 * MARGIN, height + 2.0 * MARGIN + TITLE);
    let (width, whole) = (cell.0 * columns as f64, cell.1 * rows as f64 + 2.0 * TITLE);

    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {whole:.0}" font-family="sans-serif" font-size="14">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{MARGIN}" y="20">{}</text>
<g transform="translate({MARGIN} 40)" font-size="12">"##,
        escape(heading)
    );
    let legend = [
        (Some(Role::Root), "root"),
        (Some(Role::Coordinator), "coordinator"),
        (Some(Role::Tree), "tree node"),
        (Some(Role::Free), "free"),
        (None, "off"),
    ];
    for (n, (role, name)) in legend.into_iter().enumerate() {
        let x = 110.0 * n as f64;
        let _ = write!(out, r#"{}<text x="{:.0}" y="4">{name}</text>"#, dot((x, 0.0), role, 5.0), x + 10.0);
    }
    out.push_str("</g>\n");
    for (n, frame) in frames.iter().enumerate() {
        let corner = (cell.0 * (n % columns) as f64 + MARGIN, cell.1 * (n / columns) as f64 + 2.0 * TITLE);
        let nodes = frame.nodes.iter().filter(|(_, role)| role.is_some()).count();
        let title = format!("{}, {nodes} nodes, {} trees", frame.title, frame.trees);
        let _ = write!(
            out,
            r##"<g transform="translate({:.0} {:.0})"><text y="14">{}</text><g transform="translate(0 {TITLE})">
<rect x="-10" y="-10" width="{:.0}" height="{:.0}" fill="none" stroke="#ccc"/>
<g stroke="#789" stroke-width="{:.1}">"##,
            corner.0,
            corner.1,
            escape(&title),
            PANEL + 20.0,
            height + 20.0,
            (radius / 3.0).max(0.4),
        );
        // North is up.
        let point = |(x, y): (f64, f64)| ((x - low.0) * scale, height - (y - low.1) * scale);
        for &(child, parent) in &frame.links {
            let ((x1, y1), (x2, y2)) = (point(frame.nodes[child].0), point(frame.nodes[parent].0));
            let _ = write!(out, r#"<path d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}"/>"#);
        }
        out.push_str("</g>\n");
        for &(place, role) in &frame.nodes {
            out.push_str(&dot(point(place), role, radius));
        }
        out.push_str("</g></g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn dot((x, y): (f64, f64), role: Option<Role>, radius: f64) -> String {
    let (fill, line, size) = match role {
        Some(Role::Root) => ("#c0392b", "#fff", 1.5),
        Some(Role::Coordinator) => ("#e67e22", "#fff", 1.3),
        Some(Role::Tree) => ("#2c6fbb", "none", 1.0),
        Some(Role::Free) => ("#fff", "#555", 1.0),
        None => ("#ddd", "none", 0.7),
    };
    format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="{:.1}" fill="{fill}" stroke="{line}"/>"#, radius * size)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
