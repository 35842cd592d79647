"""The model as a function: recurrent language models, their training, and their tokens over HTTP."""
