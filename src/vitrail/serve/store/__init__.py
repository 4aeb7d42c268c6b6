"""Where the service keeps events, served answers and changes of items."""
