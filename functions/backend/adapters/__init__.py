"""The outside world behind the ports: the model service over HTTP."""
