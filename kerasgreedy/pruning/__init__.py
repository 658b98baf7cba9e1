"""Which filters matter: importance, and how it is measured. Removing them is done in `network`, deciding how many in `plan`."""
