"""A run is a folder: its files, checkpoints, state and log, how it is opened, the devices it runs on. Nothing trains here."""
