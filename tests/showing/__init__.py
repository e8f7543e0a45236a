"""What people see of results in a notebook."""
