"""Text and pictures of items as vectors: encoders behind two protocols, and a driver that encodes a data set."""
