"""Attacks on classifier and detector together."""
