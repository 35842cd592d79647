"""Names by which a request may come to what is for one machine alone: every function has its own eye on them."""

OWN = [
    "127.0.0.1:8082",
    "localhost",
    "localhost:8082",
    "LOCALHOST.",
    "[::1]:8082",
    "backend:8082",
    "10.0.0.7",
    "a.localhost",
]
OTHERS = [
    "evil.example",
    "evil.example:8082",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example.",
    "[::1",
]
