"""Many devices and many threads: sharding, compilation, activation checkpointing, strategies."""
