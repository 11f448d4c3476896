"""A small web made offline from the documentation that the Python environment holds, with planted cases of known truth."""
