"""The HTTP surface: routes, wire types, negotiation, errors, middleware."""
