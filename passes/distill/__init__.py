"""Passes that train a student against its teacher."""
