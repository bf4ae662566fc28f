"""What a router is worth: metrics, intervals, slices, reports."""
