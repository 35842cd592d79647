"""The tiers' logs: kept of `huginn up`, and shown again, from wherever the tiers run."""
