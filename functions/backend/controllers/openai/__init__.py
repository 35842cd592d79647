"""The API in OpenAI's shapes, for the clients that people already have."""
