"""What the package costs."""
