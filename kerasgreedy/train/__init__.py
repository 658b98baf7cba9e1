"""The engine: one loop over stages, actions, what is watched, results, and the public functions behind the commands."""
