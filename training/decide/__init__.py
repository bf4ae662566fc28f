"""What is promised: goals, bounds, and the operating point that they lead to."""
