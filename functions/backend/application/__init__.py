"""What the backend does, and the port through which it reaches the model."""
