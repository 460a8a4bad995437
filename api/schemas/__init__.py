"""The JSON that the API takes and answers; a file is a topic."""
