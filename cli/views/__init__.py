"""A record as a table, as JSON, as CSV: views only read."""
