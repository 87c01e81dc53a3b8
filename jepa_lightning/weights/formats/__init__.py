"""What files of weights hold: names, sizes and tables of positions. Nothing here knows a module."""
