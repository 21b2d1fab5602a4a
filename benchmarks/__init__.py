"""Measurements that are not part of the package: speed against peers, and the README's tables."""
