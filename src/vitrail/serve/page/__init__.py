"""What the studio, the page over a running service, asks for."""
