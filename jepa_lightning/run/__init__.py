"""A run on disk: its folder, checkpoints, how it is resumed, interrupted and locked."""
