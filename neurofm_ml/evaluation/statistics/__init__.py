"""How sure a score is: intervals, nulls, controls, noise ceilings."""
