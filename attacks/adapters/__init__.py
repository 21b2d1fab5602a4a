"""The same attack interface over the attack libraries."""
