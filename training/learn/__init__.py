"""What is learned: splits, features, heads, token models, embedding tables."""
