"""Logs in: files of any tool → the traffic table, and the table seen by request."""
