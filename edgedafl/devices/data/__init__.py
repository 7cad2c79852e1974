"""What travels to devices."""
