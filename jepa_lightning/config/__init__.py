"""From names to objects: plug-ins, shipped configs, what a stored configuration may name, short error messages."""
