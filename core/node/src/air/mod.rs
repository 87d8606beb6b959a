//! The TCP "radio" for emulators, simulators and desktops: a hub with the model of the air behind it, and its client.

pub mod client;
pub mod hub;
pub mod protocol;

#[cfg(test)]
mod tests;

pub use client::{AirRadio, AirRadioError};
pub use hub::{HubConfig, HubError, serve};
