"""Compare the modes of training: run all of them, collect what they wrote, draw it, say it."""
