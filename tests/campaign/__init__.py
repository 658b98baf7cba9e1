"""A fault campaign: runs and exports are killed inside named events, files are damaged, and what comes of it is counted.

`python -m tests.campaign` prints the tables; `--json` ends standard output with one object.
"""
