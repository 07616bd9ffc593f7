"""The job that compares labels with truth; it runs no model."""
