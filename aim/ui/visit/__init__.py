"""The pictures of a visit, below every tab that draws."""
