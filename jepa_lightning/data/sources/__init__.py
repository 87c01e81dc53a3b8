"""Where samples come from: files, other libraries' data sets, generated ones."""
