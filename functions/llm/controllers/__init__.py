"""The HTTP surface of the llm function."""
