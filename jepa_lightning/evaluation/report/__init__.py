"""From scores to a report: figures, tables, plots, pages."""
