"""What every tab shares: a drawing as it is shown, who draws, components, and what is told."""
