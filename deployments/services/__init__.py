"""Services that the routes call: search, products, captions, status and jobs, free of HTTP."""
