"""Files on disk and their labels: folders, tables, archives, lists of splits."""
