"""Layouts that people have, each turned into a `Study`."""
