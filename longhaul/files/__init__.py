"""Files: those that people upload, and the folder that a session's tools work in."""
