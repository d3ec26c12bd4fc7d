"""What commands found, on the terminal."""
