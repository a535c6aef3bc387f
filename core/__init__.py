"""Pure ground floor: types, errors, ports, fusion, search and indexing, on numpy and pydantic alone."""
