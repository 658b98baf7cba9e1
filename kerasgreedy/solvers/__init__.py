"""How the problem of a phase is solved: the step, what acts on gradients and weights, and the solvers that own an epoch."""
