"""Where a model comes from: a work folder or an exported `.acd` file."""
