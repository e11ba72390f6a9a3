"""Will it run on a phone? For each runtime the parts that an ONNX graph falls into, what breaks it, what would mend that."""
