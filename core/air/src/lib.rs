//! A model of radios in a plane: who hears whom, when, and how fast.
