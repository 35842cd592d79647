"""From a request to tokens: sampling, decoding, stop strings, and the engine that owns the model."""
