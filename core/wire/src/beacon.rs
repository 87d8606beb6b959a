//! The beacon: what a node shows to whoever scans, in 18 bytes that fit a scan response (design §6).

use bbh_types::TreeId;
use serde::{Deserialize, Serialize};

use crate::packet::take;

/// What a node is in its tree (report 4.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Without any link.
    Free,
    /// With a parent.
    Tree,
    /// With a parent, and charged by the root to look for other trees.
    Coordinator,
    /// Without a parent, with children.
    Root,
}

/// What a beacon says. Nothing in it is stable: tree ids are random and change.
///
/// Layout: `version u8, tree id u64, epoch u32, role u8, free slots u8, size class u8, PSM u16`, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// The tree the node belongs to; a free node is a tree of its own.
    pub tree: TreeId,
    /// Counts the changes of that tree's root.
    pub epoch: u32,
    /// The node's role.
    pub role: Role,
    /// Links it would still take.
    pub free_slots: u8,
    /// Rounded-down base-2 logarithm of the tree's number of nodes.
    pub size_class: u8,
    /// L2CAP PSM to connect to, 0 where the radio has none.
    pub psm: u16,
}

/// Bytes that are no beacon this program understands; other programs advertise too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a beacon of a known version")]
pub struct NotABeacon;

impl Beacon {
    /// Length in bytes.
    pub const LEN: usize = 18;
    const VERSION: u8 = 1;

    /// The bytes to advertise.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.push(Self::VERSION);
        out.extend_from_slice(&self.tree.0.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.push(self.role as u8);
        out.push(self.free_slots);
        out.push(self.size_class);
        out.extend_from_slice(&self.psm.to_be_bytes());
        out
    }

    /// Reads an advertisement. Bytes behind the known ones are left to later versions.
    ///
    /// # Errors
    /// [`NotABeacon`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, NotABeacon> {
        let rest = &mut bytes;
        let [version] = take(rest).ok_or(NotABeacon)?;
        if version != Self::VERSION {
            return Err(NotABeacon);
        }
        let tree = TreeId(u64::from_be_bytes(take(rest).ok_or(NotABeacon)?));
        let epoch = u32::from_be_bytes(take(rest).ok_or(NotABeacon)?);
        let [role, free_slots, size_class] = take(rest).ok_or(NotABeacon)?;
        let role = match role {
            0 => Role::Free,
            1 => Role::Tree,
            2 => Role::Coordinator,
            3 => Role::Root,
            _ => return Err(NotABeacon),
        };
        let psm = u16::from_be_bytes(take(rest).ok_or(NotABeacon)?);
        Ok(Self { tree, epoch, role, free_slots, size_class, psm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beacon_fits_a_scan_response_and_comes_back() {
        let beacon = Beacon {
            tree: TreeId(0x0123_4567_89ab_cdef),
            epoch: 7,
            role: Role::Coordinator,
            free_slots: 3,
            size_class: 5,
            psm: 0x81,
        };
        let bytes = beacon.encode();
        assert_eq!(bytes.len(), Beacon::LEN);
        assert_eq!(Beacon::decode(&bytes), Ok(beacon));
        assert_eq!(Beacon::decode(&bytes[..17]), Err(NotABeacon));
        assert_eq!(Beacon::decode(b"\x02iBeacon of somebody"), Err(NotABeacon));
    }
}
