"""The command-line programs beside `jepa-fit`."""
