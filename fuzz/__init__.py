"""Fuzzing: bytes that nobody would write, thrown at every room that reads an image."""
