"""Labels: what says that an answer sufficed, and how its sources are put together."""
