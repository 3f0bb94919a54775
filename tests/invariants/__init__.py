"""The eight invariants of the design, one file each."""
