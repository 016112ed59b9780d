"""The documentation site: what is in it, and how pages come from docs/ and docstrings."""
