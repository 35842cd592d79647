"""What the backend speaks about: prompts, sampling options, events, errors."""
