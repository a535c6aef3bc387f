"""The HTTP API: application, middleware, authentication, limits and routes."""
