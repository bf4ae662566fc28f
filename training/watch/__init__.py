"""Watching a router that serves: has the traffic drifted, does the promise still hold."""
