"""The consciousness score: a pure, batch-oriented engine over binned activity of many sources."""
