"""What the logs tell of a request, and how it is followed through all tiers; the tiers' copies are one text."""
