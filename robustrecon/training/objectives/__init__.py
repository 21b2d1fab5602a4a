"""Objectives: what a network is trained to minimise, one file each."""
