"""Where other people's software meets the router; each file needs only what it is named after."""
