"""Removing filters: what is weak (`importance`), what goes together (`groups`), how much (`amounts`), taking it out (`removal`)."""
