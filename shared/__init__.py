"""The language all sides speak."""
