"""The HTML report and the tables for the terminal."""
