"""The API: takes a prompt, asks the model service, streams its tokens back."""
