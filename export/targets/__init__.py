"""Formats that a model can leave in. The file's name is the target's name; what it needs is imported when it is used."""
