"""A teacher's layers beside a student's, as a loss for every layer."""
