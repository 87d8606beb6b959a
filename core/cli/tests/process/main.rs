//! The program from outside: real processes over a real air hub, asked as a script would ask them.

mod commands;
mod files;
mod idle;
mod network;
mod support;
