"""`suffice bench`: Suffice and its peers' methods on the same rows."""
