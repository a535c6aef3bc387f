"""HAProxy before Serve, and the environment that Ray needs. Nothing here imports Ray."""
