"""The OpenAPI document of the API, with examples, and the page that is made from it."""
