"""The methods: one file each, whose name is the method's. A file holds its description and its plan, and needs no torch."""
