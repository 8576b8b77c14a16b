"""Composition roots: each module builds one process from the settings and runs it."""
