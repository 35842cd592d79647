"""Checkpoints: a folder with config.json, model.safetensors, tokenizer.json and card.md."""
