"""Training: one loop over a small engine, checkpoints that survive, guards against what goes wrong."""
