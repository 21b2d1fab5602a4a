"""Reports of a benchmark: tables, pictures and pages, made from stored results alone."""

from .cells import table

__all__ = ["table"]
