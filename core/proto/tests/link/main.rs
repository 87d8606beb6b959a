//! Two links wired together: what one end sends, the other receives.

#![allow(clippy::unwrap_used)]

mod bulk;
mod exchange;
mod heartbeat;
mod hostile;
mod pair;
