"""Files with fewer bits: converted from the finished float32 graph, measured against it, and mended layer by layer."""
