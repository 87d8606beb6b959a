//! Sessions of several nodes, with a network between them that loses, repeats, reorders and lies.

#![allow(clippy::unwrap_used)]

mod attacks;
mod life;
mod world;
