"""Every call of the API: from arguments to a request, without sending it."""
