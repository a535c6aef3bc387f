"""What measures speed and size, each a command with a table as output."""
