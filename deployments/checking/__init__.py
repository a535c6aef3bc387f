"""The strict check of Serve configurations, and each mistake in words."""
