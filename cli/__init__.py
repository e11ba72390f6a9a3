"""The words of the user in, a record on the screen out. Nothing here imports torch at module level."""
