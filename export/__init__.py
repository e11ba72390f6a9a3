"""What leaves for a device: capture, rewrites for export only, conversion, and the proof that the result is the model."""
