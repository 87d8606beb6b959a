//! The program from outside: real processes over a real air hub, asked as a script would ask them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod commands;
mod files;
mod idle;
mod network;
mod secrecy;
mod support;
