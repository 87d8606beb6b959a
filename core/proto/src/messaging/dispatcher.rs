//! The dispatcher (report 9.4: SkyNet): knows which manager handles which kind of message.

use bbh_types::{Instant, NodeId};

use super::manager::{Context, Manager, Received};
use super::ping::PingManager;
use crate::api::{Command, LibraryAnswer, StorageAnswer};
use crate::files::FileManagers;

/// All managers, and the way from a kind's number to its manager.
pub struct Dispatcher {
    /// Searching, downloading, uploading.
    pub files: FileManagers,
    pings: PingManager,
    by_kind: [Option<u8>; 256],
}

impl Dispatcher {
    /// Asks each manager for its kinds.
    pub fn new(files: FileManagers) -> Self {
        let mut dispatcher = Self { files, pings: PingManager::default(), by_kind: [None; 256] };
        let mut by_kind = [None; 256];
        for (number, manager) in dispatcher.managers().into_iter().enumerate() {
            for &kind in manager.kinds() {
                let taken = by_kind[usize::from(kind)].replace(number as u8);
                debug_assert_eq!(taken, None, "kind {kind} has two managers");
            }
        }
        dispatcher.by_kind = by_kind;
        dispatcher
    }

    fn managers(&mut self) -> [&mut dyn Manager; 2] {
        [&mut self.files, &mut self.pings]
    }

    /// Hands a message to its manager; returns whether there is one.
    pub fn handle_message(&mut self, cx: &mut Context<'_>, received: Received) -> bool {
        let Some(number) = self.by_kind[usize::from(received.message.kind())] else { return false };
        self.managers()[usize::from(number)].handle_message(cx, received);
        true
    }

    /// Hands a command to all.
    pub fn handle_command(&mut self, cx: &mut Context<'_>, command: &Command) {
        for manager in self.managers() {
            manager.handle_command(cx, command);
        }
    }

    /// Hands a library's answer to all.
    pub fn handle_library(&mut self, cx: &mut Context<'_>, answer: &LibraryAnswer) {
        for manager in self.managers() {
            manager.handle_library(cx, answer);
        }
    }

    /// Hands a disk's answer to all.
    pub fn handle_storage(&mut self, cx: &mut Context<'_>, answer: &StorageAnswer) {
        for manager in self.managers() {
            manager.handle_storage(cx, answer);
        }
    }

    /// Tells all that a node can't be reached.
    pub fn handle_unreachable(&mut self, cx: &mut Context<'_>, node: NodeId) {
        for manager in self.managers() {
            manager.handle_unreachable(cx, node);
        }
    }

    /// Tells all that the network has changed.
    pub fn handle_network_changed(&mut self, cx: &mut Context<'_>) {
        for manager in self.managers() {
            manager.handle_network_changed(cx);
        }
    }

    /// Tells all that bulk messages for a node may go on.
    pub fn handle_room(&mut self, cx: &mut Context<'_>, to: NodeId) {
        for manager in self.managers() {
            manager.handle_room(cx, to);
        }
    }

    /// Calls those whose time has come.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        for manager in self.managers() {
            if manager.poll_timeout().is_some_and(|at| at <= cx.now) {
                manager.handle_timeout(cx);
            }
        }
    }

    /// When the first of them wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let managers: [&dyn Manager; 2] = [&self.files, &self.pings];
        managers.into_iter().filter_map(|manager| manager.poll_timeout()).min()
    }
}
