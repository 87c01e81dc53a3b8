"""Probes of frozen features, protocols and intervals."""
