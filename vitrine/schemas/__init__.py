"""Request and response schemas of the HTTP API, used by the service and by the client."""
