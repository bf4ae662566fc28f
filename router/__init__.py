"""Choose the smallest model tier that suffices, in-process."""
