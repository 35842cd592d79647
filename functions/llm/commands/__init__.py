"""The llm function's commands: a module each, which says how it is called and imports its own tools when it runs."""
