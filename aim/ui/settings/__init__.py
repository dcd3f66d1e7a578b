"""The settings that every tab draws with: the column beside the tabs."""
