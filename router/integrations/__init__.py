"""The router in other software; each file needs only the package that it is named after."""
