"""What a model costs: counted from its operators, and later timed on its device."""
