"""One command, one file: parse, call the engine, emit."""
