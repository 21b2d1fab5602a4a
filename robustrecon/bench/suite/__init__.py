"""Suites: which models meet which attacks, read from a TOML file and run whole."""
