"""Pure functions over arrays that the model families share."""
