"""The shared data layer: rows from a source, encoded once, in a stateless order, cut into micro-batches."""
