"""Training jobs: from logged traffic to an artifact that `router` serves."""
