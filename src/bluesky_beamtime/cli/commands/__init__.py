"""The commands: what they take and say; what they do is imported when they run."""
