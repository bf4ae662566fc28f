"""What is promised: goals, bounds, worlds, and the operating point that they lead to."""
