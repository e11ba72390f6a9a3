"""Runtimes that a report asks about; the file's name is the runtime's name."""
