"""Arrays and strings in, numbers out. Knows no model, no file and no task."""
