"""What numbers a file may hold instead of float32. The file's name is the value of `--precision`."""
