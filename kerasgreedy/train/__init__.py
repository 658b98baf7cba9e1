"""Plan, step, loop, state, run folder."""
