"""A page on this machine to try a model: drop a video, see what the model says of it."""
