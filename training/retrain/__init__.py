"""Retraining: challengers, the gate they must pass, the registry that serves the champion."""
