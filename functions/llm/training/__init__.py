"""Training: from text files to a checkpoint folder. Needs the train extra; nothing of it is imported while serving."""
