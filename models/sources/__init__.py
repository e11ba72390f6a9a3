"""Models that are not mixbench's own, one file for each place that they come from.

A file assigns a `Source` to ``SOURCE``, literals only, and has ``find(words, settings)``, which makes the `ModelSpec` of a name
that the source's patterns fit. Nothing heavy is imported until the spec's factory is called.
"""
