//! What every store shares when it verifies: row hash, tally, Merkle root, differences.
