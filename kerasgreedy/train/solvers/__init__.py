"""How the problem of a phase is solved: `descent` by the optimiser's steps, or `alternation` under support masks."""
