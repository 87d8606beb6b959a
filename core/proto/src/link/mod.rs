//! One neighbour: the Noise channel to it, its frames, its queues and its heartbeat.
