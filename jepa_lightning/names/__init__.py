"""Names that people read: made fit to be shown, found by what is nearest, reprs by how an object was made."""
