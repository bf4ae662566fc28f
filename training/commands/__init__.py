"""The commands, a file per stage: what they take, which job they call, what they print."""
