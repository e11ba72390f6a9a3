"""Time between two commits: both sides in processes of their own, from two work trees, in pairs; see docs/check-against.md."""
