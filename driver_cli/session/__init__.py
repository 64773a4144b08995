"""A driver's session: one run, from its configuration to the results that it leaves."""
