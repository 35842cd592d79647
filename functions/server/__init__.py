"""How uvicorn serves the functions, on a machine of one's own and in containers; on Lambda `functions.runtime` does."""
