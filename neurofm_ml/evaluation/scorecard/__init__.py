"""The report of a size: everything that was scored, to be read, clicked through and traced."""
