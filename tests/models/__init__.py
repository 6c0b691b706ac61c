"""The networks that ship: what they are trained on, how, and how good they are."""
