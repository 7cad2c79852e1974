"""Training of the student: its step, its images, its average."""
