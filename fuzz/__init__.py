"""Fuzzing of every module that reads an image."""
