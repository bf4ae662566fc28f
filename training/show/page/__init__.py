"""The report as one HTML page that needs no network: for people who have to decide."""
