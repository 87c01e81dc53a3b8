"""Data that are read from the beginning to the end, in shards or as a stream."""
