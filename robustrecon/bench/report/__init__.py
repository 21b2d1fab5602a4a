"""Reports of a benchmark: tables, pictures and pages, made from stored results alone."""
