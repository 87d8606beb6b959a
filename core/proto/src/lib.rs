//! The protocol of Blue Brewery Horse as one sans-IO state machine.
