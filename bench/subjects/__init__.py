"""What is measured, one file each. Each is imported only in the process that measures it."""
