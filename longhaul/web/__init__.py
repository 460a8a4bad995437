"""Reading from the web, without reaching what is not public."""
