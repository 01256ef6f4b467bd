"""The commands: each parses, calls once, renders."""
