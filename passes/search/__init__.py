"""Passes that choose a smaller student from the search space of a teacher."""
