//! The tree of all nodes and the way through it: TSF and BTR of the report, with the fixes of design §6.
