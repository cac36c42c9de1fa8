"""The file: where it is, who may write when, and what keeps it whole."""
