"""Files that are whole or not there: atomic writes, what is cached, and what lies elsewhere.

Imports errors and wording alone; every room above may import it.
"""
