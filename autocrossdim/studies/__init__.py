"""The questions of transfer across dimensions as experiments on the user's own data."""
