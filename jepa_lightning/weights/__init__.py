"""Weights in and out: released models into our modules, ours into other libraries' formats."""
