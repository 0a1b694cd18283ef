"""The HTML report, and tables for the terminal."""
